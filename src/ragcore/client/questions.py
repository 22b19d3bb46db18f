"""Questions: passages, answers, and answers as they are written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ragcore.client.bodies import JsonBody
from ragcore.client.caller import Caller, given, names, object_in
from ragcore.client.calls import call, stream
from ragcore.client.events import Event, EventReader
from ragcore.client.exchange import Item, NoAnswer, Request, Steps, Stream, read
from ragcore.client.problems import error_of_event, unanswered
from ragcore.client.values import (
    AnswerCitations,
    answer_of,
    made,
    passages_of,
    search_result_of,
)
from ragcore.errors import Unavailable
from ragcore.model import (
    Answer,
    AnswerPassages,
    AnswerText,
    Message,
    SearchMode,
    SearchResult,
)

AnswerEvent = AnswerPassages | AnswerText | AnswerCitations | Answer
"""What is told of an answer on its way, in this order; the answer itself comes last, once."""

Filters = Mapping[str, Any]

_THINKING_SECONDS: Final = 600.0
"""How long a language model may be silent: without a GPU it reads the passages for minutes."""


class Questions(Caller):
    """Questions, over HTTP. They may be sent again: nothing is stored by one."""

    @call
    def search(
        self,
        question: str,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: Filters | None = None,
        explain: bool = False,
    ) -> Steps[SearchResult]:
        """Return the passages that fit a question, best first.

        Raises CollectionNotFound, InvalidFilter, InvalidInput, Unavailable.
        """
        wanted = _wanted(question, collection, top_k, mode, filters, explain)
        request = Request("POST", "/search", body=JsonBody(wanted), is_repeatable=True)
        return search_result_of((yield from self._told(request)))

    @call
    def ask(
        self,
        question: str,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: Filters | None = None,
        explain: bool = False,
        generate: bool = True,
        history: Sequence[Message] = (),
    ) -> Steps[Answer]:
        """Answer a question from the documents, with citations checked against them.

        With `generate` False no language model is called. `history` are the turns before the
        question, oldest first. Raises as `search` does.
        """
        wanted = _wanted(question, collection, top_k, mode, filters, explain)
        request = self._query(wanted, generate=generate, history=history)
        return answer_of((yield from self._told(request)))

    @stream
    def ask_stream(
        self,
        question: str,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: Filters | None = None,
        explain: bool = False,
        generate: bool = True,
        history: Sequence[Message] = (),
    ) -> Stream[AnswerEvent]:
        """Answer as `ask` does: first its passages, then its text in pieces, then its citations,
        last the whole answer.

        The answer's own text is what holds: it differs from the pieces joined where a language
        model failed midway. An answer that breaks off raises Unavailable and is not asked for
        again; whoever stops reading stops the language model.
        """
        wanted = _wanted(question, collection, top_k, mode, filters, explain)
        request = self._query(wanted | {"stream": True}, generate=generate, history=history)
        yield from self._send(replace(request, is_streamed=True))
        reader = EventReader()
        while piece := (yield from read()):
            if isinstance(piece, NoAnswer):
                raise unanswered(piece)
            for event in reader.feed(piece):
                told = _told(event)
                if told is not None:
                    yield Item(told)
                if isinstance(told, Answer):
                    return
        raise Unavailable("the answer broke off: the service is stopping; ask again")

    @call
    def feedback(self, trace_id: str, score: float, *, comment: str | None = None) -> Steps[None]:
        """Say what an answer was worth, 0…1, higher is better; a thumb is 0 or 1.

        `trace_id` is the answer's. Said again it takes the place of the first. Raises
        TraceNotFound, TracingOff where the service keeps no traces, InvalidInput.
        """
        said = given({"trace_id": trace_id, "score": score, "comment": comment})
        yield from self._send(Request("POST", "/feedback", body=JsonBody(said), is_repeatable=True))

    def _query(
        self, wanted: Mapping[str, Any], *, generate: bool, history: Sequence[Message]
    ) -> Request:
        turns = [{"role": turn.role, "content": turn.content} for turn in history]
        return Request(
            "POST",
            "/query",
            body=JsonBody({**wanted, "generate": generate, "history": turns}),
            is_repeatable=True,
            answer_seconds=max(self.timeout_seconds, _THINKING_SECONDS),
        )


def _wanted(
    question: str,
    collection: str | Sequence[str] | None,
    top_k: int | None,
    mode: SearchMode,
    filters: Filters | None,
    explain: bool,
) -> dict[str, Any]:
    return given(
        {
            "question": question,
            "collection": names(collection),
            "top_k": top_k,
            "mode": mode,
            "filters": None if filters is None else dict(filters),
            "explain": explain,
        }
    )


def _told(event: Event) -> AnswerEvent | None:
    """Return what an event tells, None for one of a newer service."""
    if event.name == "token":
        return AnswerText(str(object_in(event.data).get("text") or ""))
    if event.name == "passages":
        return AnswerPassages(passages_of(object_in(event.data).get("passages")))
    if event.name == "citations":
        return made(AnswerCitations, object_in(event.data))
    if event.name == "done":
        return answer_of(object_in(event.data))
    if event.name == "error":
        raise error_of_event(object_in(event.data))
    return None
