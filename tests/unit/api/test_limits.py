from typing import Any
from uuid import uuid4

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ragcore.errors import RateLimited
from ragcore.model import Principal
from ragcore_api.auth import ANONYMOUS, LOOPBACK
from ragcore_api.limits import RateLimits

KEY = Principal("n8n", frozenset({"query"}), key_id=uuid4())


class _Counting:
    """Lets two requests through and remembers what it was asked."""

    def __init__(self) -> None:
        self.counted: list[tuple[str, int]] = []

    async def count(self, caller: str, *, per_minute: int) -> None:
        self.counted.append((caller, per_minute))
        if len(self.counted) > 2:
            raise RateLimited("too many", retry_after_seconds=17)


@pytest.fixture
def limits() -> _Counting:
    return _Counting()


def _client(limits: _Counting, principal: Principal, *, per_minute: int = 600) -> httpx.AsyncClient:
    async def answer(_: Any) -> PlainTextResponse:
        return PlainTextResponse("fine")

    routes = [Route("/", answer, methods=["GET", "POST"]), Route("/metrics", answer)]
    app = RateLimits(Starlette(routes=routes), per_minute=per_minute)

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"principal": principal, "limits": limits, "request_id": "r-1"}
        await app(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url="http://127.0.0.1")


async def test_a_key_over_its_limit_is_told_when_to_come_back(limits: _Counting) -> None:
    client = _client(limits, KEY)
    answers = [await client.post("/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].headers["Retry-After"] == "17"
    assert answers[2].json()["code"] == "rate_limited"
    assert answers[2].json()["request_id"] == "r-1"
    assert limits.counted[0] == (str(KEY.key_id), 600)


async def test_a_key_may_have_a_limit_of_its_own(limits: _Counting) -> None:
    own = Principal("n8n", KEY.scopes, key_id=KEY.key_id, requests_per_minute=7)
    await _client(limits, own).get("/")
    assert limits.counted == [(str(KEY.key_id), 7)]


async def test_nought_is_no_limit(limits: _Counting) -> None:
    free = Principal("n8n", KEY.scopes, key_id=KEY.key_id, requests_per_minute=0)
    await _client(limits, free).get("/")
    await _client(limits, KEY, per_minute=0).get("/")
    assert not limits.counted


@pytest.mark.parametrize("principal", [LOOPBACK, ANONYMOUS])
async def test_who_shows_no_key_is_not_counted(limits: _Counting, principal: Principal) -> None:
    await _client(limits, principal).get("/")
    assert not limits.counted


async def test_metrics_are_not_counted(limits: _Counting) -> None:
    await _client(limits, KEY).get("/metrics")
    assert not limits.counted
