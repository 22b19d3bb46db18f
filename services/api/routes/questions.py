"""Questions: passages, and answers made of them."""

from collections.abc import AsyncGenerator, AsyncIterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from sse_starlette import EventSourceResponse, ServerSentEvent

from ragcore.errors import (
    CollectionMismatch,
    CollectionNotFound,
    InvalidFilter,
    InvalidInput,
    Unavailable,
)
from ragcore.model import (
    Answer,
    AnswerEvent,
    AnswerPassages,
    AnswerText,
    Message,
    SearchResult,
)
from ragcore_api.asking import asker_of
from ragcore_api.deps import Caller, QueryCaller, RagDep
from ragcore_api.errors import problem_content, problems
from ragcore_api.schemas.questions import (
    AnswerOut,
    CitationsEvent,
    PassagesEvent,
    QueryIn,
    SearchIn,
    SearchOut,
    TokenEvent,
)
from ragcore_api.schemas.values import Out
from ragcore_api.streams import event_schema, told
from ragcore_api.waiting import answered

router = APIRouter(tags=["questions"])

_PROBLEMS = problems(
    CollectionNotFound, InvalidInput, InvalidFilter, CollectionMismatch, Unavailable
)
_HISTORY_UNREAD: Final = "the history was not read: a search takes the question by itself"


@router.post(
    "/search",
    operation_id="search_passages",
    summary="Find passages",
    response_model=SearchOut,
    responses=_PROBLEMS,
)
async def search_passages(
    question: SearchIn, request: Request, rag: RagDep, caller: QueryCaller
) -> Response:
    """Find the passages that fit a question, best first; nothing is generated.

    Takes the body of `/query`, so that the same question can be looked at without its answer.
    """
    options = _options(question, rag.collection, caller) | {"generate": question.generate}
    searching = rag.search(question.question, **options)
    if question.generate and rag.runtime.search.asks_language_models:
        return await answered(request, searching, lambda result: _found(result, question))
    return _found(await searching, question)


@router.post(
    "/query",
    operation_id="answer_question",
    summary="Answer a question",
    response_model=AnswerOut,
    responses={
        200: {
            "description": "The answer; with `stream`, events that tell of it on its way.",
            "content": {
                "text/event-stream": {
                    "schema": event_schema(
                        "passages",
                        "token",
                        "citations",
                        "done",
                        "error",
                        description="Events in this order: `passages`, `token` (any number), "
                        "`citations`, `done` (the whole answer, as without `stream`); or, at any "
                        "point, `error` (the shape of any error), which is the last. The tokens "
                        "joined are the answer, unless the language model failed midway: then "
                        "`done` holds another, made of the passages' own sentences.",
                    )
                }
            },
        },
        **_PROBLEMS,
    },
)
async def answer_question(
    question: QueryIn, request: Request, rag: RagDep, caller: QueryCaller
) -> Response:
    """Answer a question from the documents, citing the passages used.

    Without a language model the answer is made of the passages' own best sentences. Where there
    is no answer, `no_answer_reason` tells why, and the text says so in the question's language.
    """
    options = _options(question, rag.collection, caller) | {
        "generate": question.generate,
        "history": [Message(turn.role, turn.content) for turn in question.history],
        "asker": asker_of(request, caller, user=question.user, session=question.session),
    }
    if question.stream:
        events = rag.ask_stream(question.question, **options)
        # The first event comes before the status: what can't be answered at all is an error.
        return await answered(
            request,
            anext(events),
            lambda first: EventSourceResponse(_sse(first, events, request)),
        )
    return await answered(
        request,
        rag.ask(question.question, **options),
        lambda answer: _sent(AnswerOut.of(answer)),
    )


def _found(result: SearchResult, question: SearchIn) -> Response:
    found = SearchOut.of(result)
    if question.history:
        found.warnings.append(_HISTORY_UNREAD)
    return _sent(found)


def _options(question: SearchIn, default: str, caller: Caller) -> dict[str, Any]:
    return {
        "collection": caller.require_collections(question.collection or default),
        "top_k": question.top_k,
        "mode": question.mode,
        "filters": question.filters,
        "explain": question.explain,
    }


def _sent(answer: Out) -> Response:
    """Write an answer down as it is: FastAPI would check once more what was checked when made."""
    return Response(answer.model_dump_json(), media_type="application/json")


# --- events ------------------------------------------------------------------------------------


def _sse(
    first: AnswerEvent,
    events: AsyncGenerator[AnswerEvent, None],
    request: Request,
) -> AsyncIterator[ServerSentEvent]:
    """Tell of an answer on its way."""

    def failed(status: HTTPStatus, code: str, detail: str) -> ServerSentEvent:
        return _event("error", problem_content(request, status, code=code, detail=detail))

    return told(
        first,
        events,
        request,
        tell=_events_of,
        fail=failed,
    )


def _events_of(event: AnswerEvent) -> list[ServerSentEvent]:
    if isinstance(event, AnswerPassages):
        return [_event("passages", PassagesEvent.of(event))]
    if isinstance(event, AnswerText):
        return [_event("token", TokenEvent.of(event))]
    assert isinstance(event, Answer)
    return [
        _event("citations", CitationsEvent.of(event)),
        _event("done", AnswerOut.of(event)),
    ]


def _event(name: str, data: Out) -> ServerSentEvent:
    return ServerSentEvent(data.model_dump_json(), event=name)
