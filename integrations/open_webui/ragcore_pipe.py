"""
title: ragcore
author: ragcore
version: 0.1.0
required_open_webui_version: 0.6.0
license: Apache-2.0
description: Answers from your documents, each sentence with the passage that bears it out.
"""

# A pipe function of Open WebUI: each collection of ragcore becomes a model of its own. This file is
# all of it, so that it can be pasted into Admin Panel > Functions; install.py does that for you.

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from pydantic import BaseModel, Field

PASSWORD = {"input": {"type": "password"}}
MOST_QUESTION_CHARACTERS = 10_000
MOST_TURNS = 40
MOST_TURN_CHARACTERS = 20_000
LONGEST_TITLE = 60
TRIES = 3
LONGEST_PAUSE_SECONDS = 5.0

WORDS = {
    "en": {
        "searching": "Searching {}",
        "found": "Passages found: {}",
        "answered": "Sources: {}",
        "declined": "The documents do not tell",
        "again": "ragcore is busy, asking again",
        "page": "p.",
        "unreachable": "ragcore can't be reached at {}. Is it running? The address stands in the "
        "function's valves (Admin Panel > Functions).",
        "unauthenticated": "ragcore does not know the API key. An administrator sets it in the "
        "function's valves, or you set your own in Settings > Valves.",
        "forbidden": "The API key may not read this collection: {}",
        "missing": "There is no such collection: {}",
        "slow": "ragcore gave no answer within {} seconds.",
        "broken": "The answer broke off: {}",
        "failed": "ragcore answered with an error ({}): {}",
        "filter": "The filter in the function's valves can't be used: {}",
        "question": "There is no question in the message.",
    },
    "ru": {
        "searching": "Ищу в {}",
        "found": "Найдено фрагментов: {}",
        "answered": "Источников: {}",
        "declined": "В документах об этом не сказано",
        "again": "ragcore занят, спрашиваю ещё раз",
        "page": "с.",
        "unreachable": "ragcore недоступен по адресу {}. Запущен ли он? Адрес задаётся в "
        "настройках функции (Admin Panel > Functions).",
        "unauthenticated": "ragcore не принял ключ API. Администратор задаёт его в настройках "
        "функции, свой собственный можно указать в Settings > Valves.",
        "forbidden": "Этому ключу API не разрешено читать коллекцию: {}",
        "missing": "Такой коллекции нет: {}",
        "slow": "ragcore не ответил за {} с.",
        "broken": "Ответ оборвался: {}",
        "failed": "ragcore ответил ошибкой ({}): {}",
        "filter": "Фильтр в настройках функции не годится: {}",
        "question": "В сообщении нет вопроса.",
    },
}

Emit = Callable[[dict[str, Any]], Awaitable[None]] | None


class Failed(Exception):
    """Told to the user as it is."""


class Pipe:
    class Valves(BaseModel):
        url: str = Field(
            default="http://rag-api:8000", description="Where Open WebUI reaches ragcore."
        )
        api_key: str = Field(
            default="",
            description="A key of the scope `query`; it decides which collections there are.",
            json_schema_extra=PASSWORD,
        )
        collections: str = Field(
            default="", description="Which to offer, with commas between; empty: all of the key's."
        )
        top_k: int = Field(default=0, ge=0, le=100, description="Most passages; 0: as configured.")
        filters: str = Field(
            default="",
            description="JSON that every question is narrowed by. {{user.email}}, {{user.id}}, "
            "{{user.name}} and {{user.role}} stand for who asks: "
            '{"readers": {"$in": ["all", "{{user.email}}"]}}.',
        )
        console_url: str = Field(
            default="", description="Where a browser reaches ragcore; empty: sources do not link."
        )
        timeout_seconds: int = Field(default=120, ge=1, description="Of silence, then given up.")

    class UserValves(BaseModel):
        api_key: str = Field(
            default="",
            description="Your own key; empty: the administrator's.",
            json_schema_extra=PASSWORD,
        )
        top_k: int = Field(default=0, ge=0, le=100, description="Most passages; 0: as set above.")
        filters: str = Field(
            default="", description='JSON that narrows your questions further: {"year": 2026}.'
        )

    def __init__(self) -> None:
        self.name = "ragcore: "
        self.valves = self.Valves()

    async def pipes(self) -> list[dict[str, str]]:
        """Tell Open WebUI the models: one for each collection that is offered."""
        if self.valves.collections.strip():
            names = [name.strip() for name in self.valves.collections.split(",")]
            return [{"id": name, "name": name} for name in names if name]
        try:
            models = await self._models()
        except Failed as failure:
            return [{"id": "default", "name": f"default ({failure})"[:120]}]
        return [{"id": name, "name": name} for name in models]

    async def pipe(
        self,
        body: dict[str, Any],
        __user__: dict[str, Any] | None = None,
        __event_emitter__: Emit = None,
        __chat_id__: str | None = None,
        __task__: str | None = None,
        __task_body__: dict[str, Any] | None = None,
    ) -> AsyncIterator[str | dict[str, Any]]:
        """Answer the last message; Open WebUI is told of sources and of progress on the way."""
        if __task__:
            yield task_answer(__task__, (__task_body__ or body).get("messages") or [])
            return
        history, question = conversation(body.get("messages") or [])
        words = WORDS["ru" if re.search("[А-Яа-яЁё]", question) else "en"]
        try:
            asked = self._question(body, history, question, __user__ or {}, __chat_id__, words)
            await status(__event_emitter__, words["searching"].format(asked["collection"]))
            async for piece in self._answer(asked, __user__ or {}, __event_emitter__, words):
                yield piece
        except Failed as failure:
            await status(__event_emitter__, str(failure), done=True)
            yield {"error": {"message": str(failure), "detail": str(failure)}}

    # --- asking ----------------------------------------------------------------------------

    def _question(
        self,
        body: Mapping[str, Any],
        history: list[dict[str, str]],
        question: str,
        user: Mapping[str, Any],
        chat_id: str | None,
        words: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return the body of `POST /query`."""
        if not question.strip():
            raise Failed(words["question"])
        own = user.get("valves") or self.UserValves()
        try:
            filters = narrowed([filter_in(self.valves.filters, user), filter_in(own.filters, user)])
        except ValueError as error:
            raise Failed(words["filter"].format(error)) from error
        asked = {
            "question": question[:MOST_QUESTION_CHARACTERS],
            "collection": str(body.get("model", "")).partition(".")[2] or "default",
            "history": history,
            "stream": True,
            "top_k": own.top_k or self.valves.top_k or None,
            "filters": filters,
            "user": (user.get("email") or user.get("id") or "")[:200] or None,
            "session": (chat_id or "")[:200] or None,
        }
        return {name: value for name, value in asked.items() if value is not None}

    async def _answer(
        self,
        asked: Mapping[str, Any],
        user: Mapping[str, Any],
        emit: Emit,
        words: Mapping[str, str],
    ) -> AsyncIterator[str]:
        told, is_done = "", False
        async for name, data in self._events(asked, user, emit, words):
            if name == "passages":
                await status(emit, words["found"].format(len(data["passages"])))
            elif name == "token":
                told += data["text"]
                yield data["text"]
            elif name == "error":
                raise Failed(words["broken"].format(data.get("detail", "")))
            elif name == "done":
                is_done = True
                if data["answer"] != told:
                    # The language model failed midway, and the answer is another.
                    yield f"\n\n{data['answer']}" if told else data["answer"]
                sources = list(sources_of(data, self.valves.console_url, words["page"]))
                for source in sources:
                    await event(emit, "source", source)
                for warning in data.get("warnings", ()):
                    await status(emit, warning, done=True)
                end = words["answered"].format(len({c["marker"] for c in data["citations"]}))
                await status(
                    emit,
                    words["declined"] if data.get("no_answer_reason") else end,
                    done=True,
                    # By it a rating finds the trace of the answer (ragcore_ratings.py).
                    trace_id=data.get("trace_id"),
                )
        if not is_done:
            raise Failed(words["broken"].format(""))

    async def _events(
        self,
        asked: Mapping[str, Any],
        user: Mapping[str, Any],
        emit: Emit,
        words: Mapping[str, str],
    ) -> AsyncIterator[tuple[str, Any]]:
        """Yield the events of an answer; asks again while ragcore is busy and nothing was told."""
        timeout = aiohttp.ClientTimeout(sock_connect=10, sock_read=self.valves.timeout_seconds)
        try:
            async with aiohttp.ClientSession(timeout=timeout, headers=self._headers(user)) as http:
                for tries_left in reversed(range(TRIES)):
                    async with http.post(self._url("/query"), json=asked) as answer:
                        pause = pause_before_another_try(answer) if tries_left else None
                        if pause is None:
                            await require_fine(answer, words)
                            async for each in server_sent(answer.content):
                                yield each
                            return
                    await status(emit, words["again"])
                    await asyncio.sleep(pause)
        except TimeoutError as error:
            raise Failed(words["slow"].format(self.valves.timeout_seconds)) from error
        except aiohttp.ClientPayloadError as error:
            raise Failed(words["broken"].format("")) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Failed(words["unreachable"].format(self.valves.url)) from error

    async def _models(self) -> list[str]:
        """Return the names of the key's collections."""
        timeout = aiohttp.ClientTimeout(total=5)
        words = WORDS["en"]
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=self._headers({})) as http,
                http.get(self._url("/v1/models")) as answer,
            ):
                await require_fine(answer, words)
                told = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Failed(words["unreachable"].format(self.valves.url)) from error
        return [model["id"].removeprefix("ragcore/") for model in told["data"]]

    def _url(self, path: str) -> str:
        return self.valves.url.rstrip("/") + path

    def _headers(self, user: Mapping[str, Any]) -> dict[str, str]:
        own = user.get("valves")
        key = (own and own.api_key) or self.valves.api_key
        return {"Authorization": f"Bearer {key}"} if key else {}


# --- messages ------------------------------------------------------------------------------


def conversation(messages: list[dict[str, Any]]) -> tuple[list[dict[str, str]], str]:
    """Return the turns before the last message of the user, and that message."""
    turns = [
        {"role": message["role"], "content": text_of(message)[:MOST_TURN_CHARACTERS]}
        for message in messages
        if message.get("role") in ("user", "assistant")
    ]
    while turns and turns[-1]["role"] != "user":
        turns.pop()
    if not turns:
        return [], ""
    return turns[:-1][-MOST_TURNS:], turns[-1]["content"]


def text_of(message: Mapping[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


def task_answer(task: str, messages: list[dict[str, Any]]) -> str:
    """Answer what Open WebUI asks a model about a chat, without asking anybody.

    The title is the beginning of the first message; there are no tags and no follow-ups.
    """
    first = next((text_of(each) for each in messages if each.get("role") == "user"), "")
    title = " ".join(first.split())
    if len(title) > LONGEST_TITLE:
        title = title[:LONGEST_TITLE].rsplit(" ", 1)[0] + "…"
    answers: dict[str, Any] = {
        "title_generation": {"title": title},
        "tags_generation": {"tags": []},
        "follow_up_generation": {"follow_ups": []},
        "query_generation": {"queries": []},
        "autocomplete_generation": {"text": ""},
    }
    return json.dumps(answers[task], ensure_ascii=False) if task in answers else ""


# --- filters -------------------------------------------------------------------------------


def filter_in(text: str, user: Mapping[str, Any]) -> Any:
    """Read a filter and put in who asks. Raises ValueError.

    It is read first: whatever a user is called, it is a value and can't become an operator.
    """
    return filled(json.loads(text), user) if text.strip() else None


def filled(value: Any, user: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: filled(each, user) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, user) for each in value]
    if isinstance(value, str):
        return re.sub(r"\{\{\s*user\.(\w+)\s*\}\}", lambda found: said_of(user, found[1]), value)
    return value


def said_of(user: Mapping[str, Any], name: str) -> str:
    if name not in ("email", "id", "name", "role") or not user.get(name):
        raise ValueError(f"{{{{user.{name}}}}} is not known")
    return str(user[name])


def narrowed(filters: list[Any]) -> Any:
    """Return one filter that all of them hold for, None without any."""
    given = [each for each in filters if each is not None]
    return {"$and": given} if len(given) > 1 else next(iter(given), None)


# --- answers -------------------------------------------------------------------------------


def pause_before_another_try(answer: aiohttp.ClientResponse) -> float | None:
    """Return the seconds to wait; None: it is not worth it, or told to wait for long."""
    if answer.status not in (429, 503):
        return None
    told = answer.headers.get("Retry-After", "1")
    seconds = float(told) if told.isdigit() else 1.0
    return seconds if seconds <= LONGEST_PAUSE_SECONDS else None


async def require_fine(answer: aiohttp.ClientResponse, words: Mapping[str, str]) -> None:
    if answer.status < 400:
        return
    try:
        problem = json.loads(await answer.text())
        code, detail = problem["code"], problem["detail"]
    except (ValueError, KeyError, TypeError):
        code, detail = str(answer.status), answer.reason or ""
    known = {
        "unauthenticated": "unauthenticated",
        "forbidden": "forbidden",
        "collection_not_found": "missing",
    }
    if code in known:
        raise Failed(words[known[code]].format(detail))
    raise Failed(words["failed"].format(code, detail))


async def server_sent(lines: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, Any]]:
    """Yield name and data of each event."""
    name, data = "", []
    async for raw in long_lines(lines):
        line = raw.decode().rstrip("\r\n")
        if not line and data:
            yield name, json.loads("\n".join(data))
            name, data = "", []
        elif line.startswith("event:"):
            name = line[6:].strip()
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))


async def long_lines(stream: Any) -> AsyncIterator[bytes]:
    """Yield lines however long: those of aiohttp may only be so long as its buffer."""
    rest = b""
    async for piece in stream.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line


def sources_of(answer: Mapping[str, Any], console_url: str, page_word: str) -> Iterator[Any]:
    """Yield the data of `source` events.

    In Open WebUI `[n]` is the n-th source, and sources of one name are one: so each has its number
    in its name, and passages between those that are cited are sent as well.
    """
    cited: dict[int, Any] = {}
    for citation in answer["citations"]:
        cited.setdefault(citation["marker"], citation)
    for marker in range(1, max(cited, default=0) + 1):
        found = cited.get(marker) or answer["passages"][marker - 1]
        title = " ".join((found.get("title") or found["document_id"]).split())[:200]
        page = found.get("page")
        name = f"{marker}. {title}" + ("" if page is None else f", {page_word} {page}")
        about = {
            "source": name,
            "name": name,
            "document_id": found["document_id"],
            "collection": found["collection"],
            "chunk_id": found["chunk_id"],
            "headings": " › ".join(found.get("headings") or ()),
        }
        if page is not None:
            about["page"] = page - 1  # counted from 0 there
        yield {
            "source": {"name": name, "url": link(found, console_url) or found.get("uri") or ""},
            "document": [found.get("quote") or found["text"]],
            "metadata": [about],
            "distances": [found["score"]],
        }


def link(found: Mapping[str, Any], console_url: str) -> str | None:
    """Return where the console shows the passage on its page."""
    if not console_url:
        return None
    wanted = {
        "collection": found["collection"],
        "page": found.get("page"),
        "chunk": found["chunk_id"],
    }
    query = "&".join(f"{n}={quote(str(v), safe='')}" for n, v in wanted.items() if v is not None)
    document = quote(found["document_id"], safe="")
    return f"{console_url.rstrip('/')}/#/documents/{document}?{query}"


# --- events --------------------------------------------------------------------------------


async def event(emit: Emit, kind: str, data: Mapping[str, Any]) -> None:
    """Tell the chat something; there is nobody to tell when the API of Open WebUI is asked."""
    if emit is not None:
        await emit({"type": kind, "data": dict(data)})


async def status(emit: Emit, description: str, *, done: bool = False, **more: Any) -> None:
    given = {name: value for name, value in more.items() if value is not None}
    await event(emit, "status", {"description": description, "done": done, **given})
