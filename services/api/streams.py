"""An answer on its way, told as server-sent events."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from http import HTTPStatus
from typing import Any

from fastapi import Request
from sse_starlette import ServerSentEvent

from ragcore.errors import RagError
from ragcore.model import AnswerEvent
from ragcore_api.errors import INTERNAL, status_of

log = logging.getLogger(__name__)


def event_schema(*names: str, description: str) -> dict[str, Any]:
    """Return the schema of one server-sent event of a stream that tells these, data in JSON."""
    return {
        "type": "object",
        "description": description,
        "required": ["event", "data"],
        "properties": {
            "event": {"type": "string", "enum": list(names)},
            "data": {"type": "string", "description": "A JSON document."},
        },
    }


async def told(
    first: AnswerEvent,
    events: AsyncGenerator[AnswerEvent, None],
    request: Request,
    *,
    tell: Callable[[AnswerEvent], Iterable[ServerSentEvent]],
    fail: Callable[[HTTPStatus, str, str], ServerSentEvent],
) -> AsyncIterator[ServerSentEvent]:
    """Yield what `tell` makes of each event; a caller that hangs up stops the work.

    What goes wrong on the way is logged, and is the last event: `fail` makes it of a status, a
    public code, and a detail that may be told.
    """
    try:
        for sent in tell(first):
            yield sent
        async for event in events:
            for sent in tell(event):
                yield sent
    except RagError as error:
        log.error("%s %s: %s: %s", request.method, request.url.path, error.code, error)
        yield fail(status_of(type(error)), error.code, str(error))
    except Exception:
        # The edge: the status has been sent, so nobody behind can answer with one.
        log.exception("%s %s failed", request.method, request.url.path)
        yield fail(HTTPStatus.INTERNAL_SERVER_ERROR, RagError.code, INTERNAL)
    finally:
        await events.aclose()
