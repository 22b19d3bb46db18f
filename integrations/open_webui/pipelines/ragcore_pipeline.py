"""
title: ragcore
author: ragcore
version: 0.1.0
license: Apache-2.0
description: Answers from your documents, each sentence with the passage that bears it out.
requirements: requests
"""

# For Open WebUI's Pipelines server, where functions are not allowed to run in Open WebUI itself.
# Put this file into PIPELINES_DIR. Prefer the connection or the pipe function where you can: the
# Pipelines server shows sources only in streamed answers, and knows nothing of who asks but a name.

import json
import os
from collections.abc import Generator, Iterator, Mapping
from typing import Any
from urllib.parse import quote

import requests
from pydantic import BaseModel, Field

MOST_TURNS = 40


class Pipeline:
    class Valves(BaseModel):
        url: str = Field(default_factory=lambda: os.getenv("RAGCORE_URL", "http://rag-api:8000"))
        api_key: str = Field(default_factory=lambda: os.getenv("RAGCORE_API_KEY", ""))
        collections: str = Field(default_factory=lambda: os.getenv("RAGCORE_COLLECTIONS", ""))
        top_k: int = Field(default=0, ge=0, le=100)
        console_url: str = Field(default_factory=lambda: os.getenv("RAGCORE_PUBLIC_URL", ""))
        timeout_seconds: int = Field(default=120, ge=1)

    def __init__(self) -> None:
        self.type = "manifold"
        self.id = "ragcore"
        self.name = "ragcore: "
        self.valves = self.Valves()
        self.pipelines: list[dict[str, str]] = []

    async def on_startup(self) -> None:
        self.pipelines = self._offered()

    async def on_valves_updated(self) -> None:
        self.pipelines = self._offered()

    async def on_shutdown(self) -> None: ...

    def pipe(
        self, user_message: str, model_id: str, messages: list[dict[str, Any]], body: dict[str, Any]
    ) -> str | Generator[Any, None, None]:
        """Answer the last message: in pieces, with sources, when it is streamed."""
        turns = [
            {"role": each["role"], "content": each["content"]}
            for each in messages[:-1]
            if each.get("role") in ("user", "assistant") and isinstance(each.get("content"), str)
        ]
        asked: dict[str, Any] = {
            "question": user_message,
            "collection": model_id.rpartition(".")[2] or "default",
            "history": turns[-MOST_TURNS:],
            "user": str((body.get("user") or {}).get("email") or "")[:200] or None,
        }
        if self.valves.top_k:
            asked["top_k"] = self.valves.top_k
        if body.get("stream"):
            return self._streamed(asked)
        try:
            return str(self._post(asked, stream=False).json()["answer"])
        except requests.RequestException as error:
            return told(error)

    def _streamed(self, asked: Mapping[str, Any]) -> Generator[Any, None, None]:
        so_far = ""
        try:
            for name, data in events(self._post({**asked, "stream": True}, stream=True)):
                if name == "passages":
                    yield status(f"{len(data['passages'])} passages", done=False)
                elif name == "token":
                    so_far += data["text"]
                    yield data["text"]
                elif name == "error":
                    yield f"\n\n{data.get('detail', '')}"
                elif name == "done":
                    if data["answer"] != so_far:
                        yield f"\n\n{data['answer']}" if so_far else data["answer"]
                    for source in sources(data, self.valves.console_url):
                        yield {"event": {"type": "source", "data": source}}
                    yield status("", done=True)
        except requests.RequestException as error:
            yield told(error)

    def _post(self, asked: Mapping[str, Any], *, stream: bool) -> requests.Response:
        answer = requests.post(
            self.valves.url.rstrip("/") + "/query",
            json={name: value for name, value in asked.items() if value is not None},
            headers=self._headers(),
            stream=stream,
            timeout=(10, self.valves.timeout_seconds),
        )
        answer.raise_for_status()
        return answer

    def _offered(self) -> list[dict[str, str]]:
        """Return the collections: those of the valves, or all that the key sees."""
        names = [each.strip() for each in self.valves.collections.split(",") if each.strip()]
        if not names:
            try:
                url = self.valves.url.rstrip("/") + "/v1/models"
                answer = requests.get(url, headers=self._headers(), timeout=5)
                answer.raise_for_status()
                names = [each["id"].removeprefix("ragcore/") for each in answer.json()["data"]]
            except requests.RequestException as error:
                return [{"id": "default", "name": f"default ({told(error)})"[:120]}]
        return [{"id": name, "name": name} for name in names]

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.valves.api_key}"} if self.valves.api_key else {}


def events(answer: requests.Response) -> Iterator[tuple[str, Any]]:
    """Yield name and data of each server-sent event."""
    name = ""
    for line in answer.iter_lines(chunk_size=None):
        text = line.decode()
        if text.startswith("event:"):
            name = text[6:].strip()
        elif text.startswith("data:"):
            yield name, json.loads(text[5:])


def sources(answer: Mapping[str, Any], console_url: str) -> Iterator[dict[str, Any]]:
    """Yield a source for each marker up to the last: there `[n]` is the n-th source."""
    cited: dict[int, Any] = {}
    for citation in answer["citations"]:
        cited.setdefault(citation["marker"], citation)
    for marker in range(1, max(cited, default=0) + 1):
        found = cited.get(marker) or answer["passages"][marker - 1]
        page = found.get("page")
        title = " ".join((found.get("title") or found["document_id"]).split())[:200]
        name = f"{marker}. {title}" + ("" if page is None else f", p. {page}")
        about = {"source": name, "name": name, **({} if page is None else {"page": page - 1})}
        yield {
            "source": {"name": name, "url": link(found, console_url) or found.get("uri") or ""},
            "document": [found.get("quote") or found["text"]],
            "metadata": [about],
            "distances": [found["score"]],
        }


def link(found: Mapping[str, Any], console_url: str) -> str | None:
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


def status(description: str, *, done: bool) -> dict[str, Any]:
    return {"event": {"type": "status", "data": {"description": description, "done": done}}}


def told(error: requests.RequestException) -> str:
    """Say what went wrong, and what to do."""
    if error.response is None:
        return f"ragcore can't be reached ({type(error).__name__}). Is it running?"
    try:
        problem = error.response.json()
        return f"ragcore refused: {problem['code']}: {problem['detail']}"
    except (ValueError, KeyError):
        return f"ragcore answered with {error.response.status_code}"
