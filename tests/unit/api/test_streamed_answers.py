"""What a stream says when an answer fails half-way: the status has been sent."""

import json
from collections.abc import AsyncGenerator

import pytest
from fastapi import Request

from ragcore.errors import ModelUnavailable
from ragcore.model import AnswerEvent, AnswerPassages, AnswerText
from ragcore_api.routes.questions import _sse

REQUEST = Request(
    {"type": "http", "method": "POST", "path": "/query", "headers": [], "server": ("test", 80),
     "scheme": "http", "query_string": b"", "state": {"request_id": "r-1"}}
)  # fmt: skip


@pytest.mark.parametrize(
    ("error", "status", "code", "detail"),
    [
        (ModelUnavailable("the model is away"), 503, "model_unavailable", "the model is away"),
        (ZeroDivisionError("secret"), 500, "internal", "internal error"),
    ],
)
async def test_a_failure_is_the_last_event(
    error: Exception, status: int, code: str, detail: str
) -> None:
    closed = False

    async def failing() -> AsyncGenerator[AnswerEvent, None]:
        nonlocal closed
        try:
            yield AnswerText("The last ")
            raise error
        finally:
            closed = True

    events = [e async for e in _sse(AnswerPassages(()), failing(), REQUEST)]
    assert [event.event for event in events] == ["passages", "token", "error"]
    problem = json.loads(events[-1].data)
    assert (problem["status"], problem["code"], problem["request_id"]) == (status, code, "r-1")
    assert problem["detail"].startswith(detail)
    assert closed
