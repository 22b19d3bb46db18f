import asyncio
from collections.abc import AsyncIterator

import pytest

from ragcore.adapters.redis.limits import RedisLimits
from ragcore.errors import RateLimited


@pytest.fixture
async def limits(redis_url: str) -> AsyncIterator[RedisLimits]:
    opened = RedisLimits(redis_url)
    yield opened
    await opened.aclose()


async def test_requests_are_counted_for_all_processes_together(
    limits: RedisLimits, redis_url: str
) -> None:
    other = RedisLimits(redis_url)
    await limits.count("n8n", per_minute=2)
    await other.count("n8n", per_minute=2)
    for each in (limits, other):
        with pytest.raises(RateLimited) as refusal:
            await each.count("n8n", per_minute=2)
        assert 1 <= refusal.value.retry_after_seconds <= 60
    await other.aclose()


async def test_many_requests_at_once_pass_up_to_the_limit(limits: RedisLimits) -> None:
    counts = (limits.count("n8n", per_minute=30) for _ in range(60))
    results = await asyncio.gather(*counts, return_exceptions=True)
    assert results.count(None) == 30
    assert sum(isinstance(result, RateLimited) for result in results) == 30


async def test_of_a_high_limit_several_are_taken_at_once_and_none_too_many(
    limits: RedisLimits, redis_url: str
) -> None:
    other = RedisLimits(redis_url)
    for _ in range(900):
        await limits.count("n8n", per_minute=1800)
        await other.count("n8n", per_minute=1800)
    for each in (limits, other):
        with pytest.raises(RateLimited):
            await each.count("n8n", per_minute=1800)
    await other.aclose()


async def test_callers_do_not_share_a_limit(limits: RedisLimits) -> None:
    await limits.count("n8n", per_minute=1)
    await limits.count("anna", per_minute=1)


async def test_a_higher_limit_holds_at_once(limits: RedisLimits) -> None:
    await limits.count("n8n", per_minute=1)
    with pytest.raises(RateLimited):
        await limits.count("n8n", per_minute=1)
    await limits.count("n8n", per_minute=2)


async def test_a_redis_that_says_nothing_is_asked_once_and_holds_nobody_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = 0

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        limits = RedisLimits(f"redis://127.0.0.1:{port}/0")
        await limits.count("n8n", per_minute=1)
        once = asked
        for _ in range(5):
            await limits.count("n8n", per_minute=1)
        assert asked == once
        await limits.aclose()
    assert caplog.text.count("not limited while Redis does not answer") == 1
