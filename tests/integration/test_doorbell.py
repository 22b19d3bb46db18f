"""The doorbell over a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
import redis

from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.embedded.machine import free_port
from ragcore.errors import QueueUnavailable


@asynccontextmanager
async def doorbell_at(url: str) -> AsyncIterator[RedisDoorbell]:
    doorbell = RedisDoorbell(url)
    try:
        yield doorbell
    finally:
        await doorbell.aclose()


async def test_a_ring_is_heard_with_its_job(redis_url: str) -> None:
    job_ids = [uuid4() for _ in range(20)]
    heard: asyncio.Queue[UUID] = asyncio.Queue()
    async with (
        doorbell_at(redis_url) as ringing,
        doorbell_at(redis_url) as hearing,
        hearing.answered_by(heard.put, at_once=3, grace_seconds=5),
    ):
        for job_id in job_ids:
            await ringing.ring(job_id)
        assert {await heard.get() for _ in job_ids} == set(job_ids)


async def test_rings_are_counted_until_they_are_heard(redis_url: str) -> None:
    heard: asyncio.Queue[UUID] = asyncio.Queue()
    async with doorbell_at(redis_url) as doorbell:
        assert await doorbell.unheard() == 0
        await doorbell.ring(uuid4())
        await doorbell.ring(uuid4())
        assert await doorbell.unheard() == 2
        async with doorbell.answered_by(heard.put, at_once=1, grace_seconds=5):
            await heard.get()
            await heard.get()
        assert await doorbell.unheard() == 0


async def test_an_answer_that_fails_does_not_stop_the_next(redis_url: str) -> None:
    heard: asyncio.Queue[UUID] = asyncio.Queue()

    async def hear(job_id: UUID) -> None:
        await heard.put(job_id)
        raise ValueError("a bug")

    async with doorbell_at(redis_url) as doorbell:
        async with doorbell.answered_by(hear, at_once=1, grace_seconds=5):
            await doorbell.ring(uuid4())
            await doorbell.ring(uuid4())
            await heard.get()
            await heard.get()
        assert await doorbell.unheard() == 0


async def test_no_more_than_allowed_are_answered_at_once(redis_url: str) -> None:
    running = most = ended = 0
    done = asyncio.Event()

    async def hear(_: UUID) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        ended += 1
        if ended == 12:
            done.set()

    async with doorbell_at(redis_url) as doorbell:
        for _ in range(12):
            await doorbell.ring(uuid4())
        async with doorbell.answered_by(hear, at_once=2, grace_seconds=5):
            await done.wait()
    assert most == 2


async def test_work_in_hand_is_waited_for_at_the_end(redis_url: str) -> None:
    started, ended = asyncio.Event(), []

    async def hear(job_id: UUID) -> None:
        started.set()
        await asyncio.sleep(0.3)
        ended.append(job_id)

    async with doorbell_at(redis_url) as doorbell:
        async with doorbell.answered_by(hear, at_once=1, grace_seconds=60):
            await doorbell.ring(uuid4())
            await started.wait()
        assert len(ended) == 1


async def test_work_over_the_grace_period_is_cancelled_and_ends_in_its_own_time(
    redis_url: str,
) -> None:
    started, given_back = asyncio.Event(), asyncio.Event()

    async def hear(_: UUID) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.1)
            given_back.set()
            raise

    async with doorbell_at(redis_url) as doorbell:
        async with doorbell.answered_by(hear, at_once=1, grace_seconds=0.1):
            await doorbell.ring(uuid4())
            await started.wait()
        assert given_back.is_set()


async def test_a_redis_that_is_away_is_told_as_queue_unavailable() -> None:
    async with doorbell_at(f"redis://127.0.0.1:{free_port(None)}/0") as doorbell:
        with pytest.raises(QueueUnavailable, match="nothing is lost"):
            await doorbell.ring(uuid4())
        with pytest.raises(QueueUnavailable):
            await doorbell.unheard()


async def test_messages_hold_no_content(redis_url: str) -> None:
    job_id = uuid4()
    async with doorbell_at(redis_url) as doorbell:
        await doorbell.ring(job_id)
    with redis.Redis.from_url(redis_url) as client:
        (message,) = client.hgetall("dramatiq:ragcore.msgs").values()
    assert f'"kwargs":{{"job_id":"{job_id}"}}' in message.decode()
