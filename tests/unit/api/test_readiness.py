"""States of dependencies, told without waiting for those that hang."""

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from ragcore.errors import ModelMissing, QueueUnavailable, StoreUnavailable
from ragcore_api.readiness import Readiness, can_answer
from ragcore_api.routes import health


async def fine() -> None:
    await asyncio.sleep(0)


async def hanging() -> None:
    await asyncio.Event().wait()


def failing(error: Exception) -> Any:
    async def check() -> None:
        raise error

    return check


async def test_each_dependency_is_told_by_its_state() -> None:
    readiness = Readiness(
        {"database": fine, "queue": failing(QueueUnavailable("away")), "disk": hanging},
        time_limit_seconds=0.01,
    )
    assert await readiness() == {"database": "ok", "queue": "queue_unavailable", "disk": "timeout"}


async def test_many_probes_ask_once() -> None:
    asked = 0

    async def counting() -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)

    readiness = Readiness({"database": counting})
    await asyncio.gather(*(readiness() for _ in range(20)))
    assert asked == 1


async def test_a_failure_after_the_time_limit_is_nobodys() -> None:
    async def late() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise StoreUnavailable("given up at last")

    readiness = Readiness({"database": late}, time_limit_seconds=0.01)
    assert await readiness() == {"database": "timeout"}
    while readiness._late:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)


async def test_a_language_model_that_is_missing_is_named() -> None:
    readiness = Readiness({"language_model": failing(ModelMissing("pull it", model="saiga"))})
    state = "model_missing: saiga, run `ragcore models pull saiga`"
    assert await readiness() == {"language_model": state}
    assert can_answer({"database": "ok", "language_model": state})


def test_questions_need_the_database_and_the_model_alone() -> None:
    assert can_answer({"database": "ok", "embedding_model": "ok", "queue": "timeout"})
    assert not can_answer({"database": "timeout", "embedding_model": "ok"})
    assert not can_answer({"database": "ok", "embedding_model": "model_unavailable"})


@pytest.mark.parametrize(
    ("broken", "status", "word"),
    [(None, 200, "ok"), ("queue", 200, "degraded"), ("database", 503, "unavailable")],
)
async def test_only_what_questions_need_makes_it_unready(
    broken: str | None, status: int, word: str
) -> None:
    checks: dict[str, Any] = {"database": fine, "queue": fine}
    if broken:
        checks[broken] = failing(StoreUnavailable("away"))
    app = FastAPI()
    app.include_router(health.router)
    readiness = Readiness(checks)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"readiness": readiness}}, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/health/ready")
    assert (answer.status_code, answer.json()["status"]) == (status, word)
    assert answer.json()["dependencies"].keys() == {"database", "queue"}
