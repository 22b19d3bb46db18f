"""Questions: passages, and answers made of them."""

import logging
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
    RagError,
    Unavailable,
)
from ragcore.model import Answer, AnswerEvent, AnswerPassages, AnswerText
from ragcore_api.deps import Caller, QueryCaller, RagDep
from ragcore_api.errors import problem_content, problems, status_of
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

router = APIRouter(tags=["questions"])
log = logging.getLogger(__name__)

_PROBLEMS = problems(
    CollectionNotFound, InvalidInput, InvalidFilter, CollectionMismatch, Unavailable
)
_HISTORY_UNREAD: Final = "the history was not read: the question was taken by itself"


@router.post(
    "/search",
    operation_id="search_passages",
    summary="Find passages",
    response_model=SearchOut,
    responses=_PROBLEMS,
)
async def search_passages(question: SearchIn, rag: RagDep, caller: QueryCaller) -> Response:
    """Find the passages that fit a question, best first; nothing is generated.

    Takes the body of `/query`, so that the same question can be looked at without its answer.
    """
    result = await rag.search(question.question, **_options(question, rag.collection, caller))
    return _sent(_warned(SearchOut.of(result), question))


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
                    "schema": {
                        "type": "string",
                        "description": "Events in this order: `passages`, `token` (any number), "
                        "`citations`, `done` (the whole answer, as without `stream`); or, at any "
                        "point, `error` (the shape of any error), which is the last.",
                    }
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
    options = _options(question, rag.collection, caller) | {"generate": question.generate}
    if question.stream:
        events = rag.ask_stream(question.question, **options)
        # The first event comes before the status: what can't be answered at all is an error.
        first = await anext(events)
        return EventSourceResponse(_sse(first, events, question, request))
    return _sent(_warned(AnswerOut.of(await rag.ask(question.question, **options)), question))


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


def _warned(answer: "SearchOut | AnswerOut", question: SearchIn) -> "SearchOut | AnswerOut":
    if question.history:
        answer.warnings.append(_HISTORY_UNREAD)
    return answer


# --- events ------------------------------------------------------------------------------------


async def _sse(
    first: AnswerEvent,
    events: AsyncGenerator[AnswerEvent, None],
    question: QueryIn,
    request: Request,
) -> AsyncIterator[ServerSentEvent]:
    """Tell of an answer on its way. A caller that hangs up stops the work."""
    try:
        for event in _events_of(first, question):
            yield event
        async for told in events:
            for event in _events_of(told, question):
                yield event
    except RagError as error:
        log.error("%s %s: %s: %s", request.method, request.url.path, error.code, error)
        yield _failed(request, status_of(type(error)), error.code, str(error))
    except Exception:
        # The edge: the status has been sent, so nobody behind can answer with one.
        log.exception("%s %s failed", request.method, request.url.path)
        detail = "internal error; the log of the service has the details"
        yield _failed(request, HTTPStatus.INTERNAL_SERVER_ERROR, RagError.code, detail)
    finally:
        await events.aclose()


def _events_of(told: AnswerEvent, question: QueryIn) -> list[ServerSentEvent]:
    if isinstance(told, AnswerPassages):
        return [_event("passages", PassagesEvent.of(told))]
    if isinstance(told, AnswerText):
        return [_event("token", TokenEvent.of(told))]
    assert isinstance(told, Answer)
    whole = _warned(AnswerOut.of(told), question)
    return [_event("citations", CitationsEvent.of(told)), _event("done", whole)]


def _failed(request: Request, status: HTTPStatus, code: str, detail: str) -> ServerSentEvent:
    return _event("error", problem_content(request, status, code=code, detail=detail))


def _event(name: str, data: Out) -> ServerSentEvent:
    return ServerSentEvent(data.model_dump_json(), event=name)
