"""An answer as OpenAI's clients take it: a message with its sources, whole or in pieces.

A plain client shows text and nothing else, so the sources are a list at its end. Open WebUI takes
them as events between the pieces, and shows what each marker stands for.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from sse_starlette import ServerSentEvent

from ragcore.model import Answer, AnswerEvent, AnswerPassages, AnswerText, Citation, Passage, Usage
from ragcore.steps.languages import detect
from ragcore_api.errors import openai_content
from ragcore_api.schemas.openai import ChatMessageOut, ChatOut, ChatUsageOut, ChoiceOut

_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "en": {"sources": "Sources", "page": "p.", "found": "Passages found: {}"},
    "ru": {"sources": "Источники", "page": "с.", "found": "Найдено фрагментов: {}"},
}
_SOURCES: Final = re.compile(
    rf"\n\n(?:{'|'.join(words['sources'] for words in _WORDS.values())}):\n- \["
)
_LONGEST_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Chat:
    """One chat completion: what all of its pieces have in common."""

    model: str
    language: str
    """Of the words around the answer: `ru`, or `en`."""
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def about(cls, question: str, *, model: str) -> "Chat":
        """Begin a completion in the language of its question."""
        return cls(model, "ru" if detect(question) == "ru" else "en")

    def whole(self, answer: Answer) -> ChatOut:
        """Make the completion of a finished answer."""
        content = answer.text + sources_of(answer, language=self.language)
        return ChatOut(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=[ChoiceOut(message=ChatMessageOut(content=content))],
            usage=usage_of(answer.usage),
            trace_id=answer.trace_id,
        )


class ChatStream:
    """One chat completion in pieces, as `data:` lines that end in `[DONE]`."""

    def __init__(self, chat: Chat, *, includes_usage: bool, is_open_webui: bool) -> None:
        self._chat = chat
        self._includes_usage = includes_usage
        self._is_open_webui = is_open_webui
        self._text = ""

    def tell(self, event: AnswerEvent) -> Iterator[ServerSentEvent]:
        """Yield what is sent when the answer comes this far."""
        if isinstance(event, AnswerPassages):
            if self._is_open_webui:
                yield _event("status", _found(len(event.passages), self._chat.language))
            yield self._piece({"role": "assistant", "content": ""})
        elif isinstance(event, AnswerText):
            self._text += event.text
            yield self._piece({"content": event.text})
        else:
            yield from self._end(event)

    def fail(self, status: HTTPStatus, code: str, detail: str) -> ServerSentEvent:
        """Return the last line of an answer that failed on its way."""
        return _line(openai_content(status, code=code, detail=detail).model_dump())

    def _end(self, answer: Answer) -> Iterator[ServerSentEvent]:
        if answer.text != self._text:
            # The language model failed midway and the answer is another. What was sent can't be
            # taken back here, so the answer follows it.
            yield self._piece({"content": f"\n\n{answer.text}" if self._text else answer.text})
        if self._is_open_webui:
            for source in open_webui_sources(answer, language=self._chat.language):
                yield _event("source", source)
        elif sources := sources_of(answer, language=self._chat.language):
            yield self._piece({"content": sources})
        yield self._piece({}, finish_reason="stop", trace_id=answer.trace_id)
        if self._includes_usage:
            yield self._line([], usage=usage_of(answer.usage).model_dump())
        yield ServerSentEvent("[DONE]", sep="\n")

    def _piece(
        self,
        delta: Mapping[str, str],
        *,
        finish_reason: str | None = None,
        trace_id: str | None = None,
    ) -> ServerSentEvent:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._line([choice], usage=None, trace_id=trace_id)

    def _line(
        self,
        choices: Iterable[Mapping[str, Any]],
        *,
        usage: Mapping[str, int] | None,
        trace_id: str | None = None,
    ) -> ServerSentEvent:
        chunk = {
            "id": self._chat.id,
            "object": "chat.completion.chunk",
            "created": self._chat.created,
            "model": self._chat.model,
            "choices": choices,
        }
        traced = {} if trace_id is None else {"trace_id": trace_id}
        return _line(chunk | traced | ({"usage": usage} if self._includes_usage else {}))


def _line(data: Mapping[str, Any]) -> ServerSentEvent:
    # Lines end in \n: many clients split the stream by hand, at blank lines made of just that.
    return ServerSentEvent(json.dumps(data), sep="\n")


def usage_of(usage: Usage) -> ChatUsageOut:
    """Count as OpenAI does."""
    return ChatUsageOut(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


# --- sources -------------------------------------------------------------------------------


def sources_of(answer: Answer, *, language: str) -> str:
    """Return the list of sources to be put after an answer: one line for each marker, in order.

    Empty when nothing is cited.
    """
    lines = [
        f"- [{marker}] {_name(citation.title or citation.document_id, citation.page, language)}"
        for marker, citation in _cited(answer).items()
    ]
    if not lines:
        return ""
    return "\n".join((f"\n\n{_WORDS[language]['sources']}:", *lines))


def without_sources(text: str) -> str:
    """Take the list of sources off an answer that comes back as part of a conversation."""
    return _SOURCES.split(text, maxsplit=1)[0]


def open_webui_sources(answer: Answer, *, language: str) -> Iterator[dict[str, Any]]:
    """Yield the data of Open WebUI's `source` events; nothing when nothing is cited.

    There `[n]` is the n-th source that was sent, and sources of the same name are one. So each has
    its number in its name, and passages between those that are cited are sent as well: gaps are
    left by a language model, whose markers are the numbers of the passages.
    """
    cited = _cited(answer)
    for marker in range(1, max(cited, default=0) + 1):
        citation = cited.get(marker)
        if citation is not None:
            yield _source(marker, citation, text=citation.quote, language=language)
        else:
            passage = answer.passages[marker - 1]
            yield _source(marker, passage, text=passage.text, language=language)


def _source(marker: int, found: Citation | Passage, *, text: str, language: str) -> dict[str, Any]:
    name = f"{marker}. {_name(found.title or found.document_id, found.page, language)}"
    page = {} if found.page is None else {"page": found.page - 1}  # counted from 0 there
    return {
        "source": {"name": name, "url": found.uri or ""},
        "document": [text],
        "metadata": [{"source": name, "name": name, **page}],
        "distances": [found.score],
    }


def _cited(answer: Answer) -> dict[int, Citation]:
    """Return the first citation of each marker, in order of the markers."""
    cited: dict[int, Citation] = {}
    for citation in answer.citations:
        cited.setdefault(citation.marker, citation)
    return dict(sorted(cited.items()))


def _name(title: str, page: int | None, language: str) -> str:
    """Name a source in one line."""
    name = " ".join(title.split())[:_LONGEST_NAME]
    return name if page is None else f"{name}, {_WORDS[language]['page']} {page}"


def _found(passages: int, language: str) -> dict[str, Any]:
    return {"description": _WORDS[language]["found"].format(passages), "done": True}


def _event(kind: str, data: Mapping[str, Any]) -> ServerSentEvent:
    return _line({"event": {"type": kind, "data": data}})
