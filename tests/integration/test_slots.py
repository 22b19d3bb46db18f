"""Slots that processes share, in a real Valkey."""

import asyncio
import itertools
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest
import redis.asyncio

from ragcore.adapters.redis.slots import RedisSlots
from ragcore.embedded.machine import free_port

HOLDER = """
import asyncio, sys
from ragcore.adapters.redis.slots import RedisSlots

async def main():
    slots = RedisSlots(sys.argv[1], lease_seconds=0.6)
    await slots.acquire("m", most=1, is_question=False)
    print("held", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
async def processes(redis_url: str) -> AsyncIterator[tuple[RedisSlots, RedisSlots]]:
    """What two processes would have."""
    one, other = RedisSlots(redis_url), RedisSlots(redis_url)
    yield one, other
    await one.aclose()
    await other.aclose()


async def queued(redis_url: str, tickets: int) -> None:
    """Return when so many wait in the queue; the test never ends when they don't."""
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        while await client.zcard("ragcore:slots:{m}:waiting") != tickets:  # noqa: ASYNC110
            await asyncio.sleep(0.005)  # Redis tells nobody of it


def asked(slots: RedisSlots, *, is_question: bool = False) -> asyncio.Task[Callable[[], None]]:
    return asyncio.create_task(slots.acquire("m", most=1, is_question=is_question))


async def test_processes_share_a_limit(
    processes: tuple[RedisSlots, RedisSlots], redis_url: str
) -> None:
    one, other = processes
    give_back = await one.acquire("m", most=1, is_question=False)
    waiting = asked(other)
    await queued(redis_url, 1)
    give_back()
    await waiting  # told by a message


async def test_a_question_may_use_one_more_and_goes_first(
    processes: tuple[RedisSlots, RedisSlots], redis_url: str
) -> None:
    one, other = processes
    held = [await one.acquire("m", most=1, is_question=False)]
    document = asked(other)
    await queued(redis_url, 1)
    held.append(await one.acquire("m", most=1, is_question=True))
    question = asked(other, is_question=True)
    await queued(redis_url, 2)
    held.pop()()
    second = await question  # though the document came first
    await queued(redis_url, 1)
    assert not document.done()
    second()
    held.pop()()
    await document


async def test_who_came_first_goes_first(
    processes: tuple[RedisSlots, RedisSlots], redis_url: str
) -> None:
    one, _ = processes
    give_back = await one.acquire("m", most=1, is_question=False)
    order: list[int] = []

    async def wait(slots: RedisSlots, number: int) -> None:
        back = await slots.acquire("m", most=1, is_question=False)
        order.append(number)
        back()

    tasks = []
    for number, slots in zip(range(6), itertools.cycle(processes), strict=False):
        tasks.append(asyncio.create_task(wait(slots, number)))
        await queued(redis_url, number + 1)
    give_back()
    await asyncio.gather(*tasks)
    assert order == list(range(6))


async def test_never_more_than_the_limit_under_a_rush(redis_url: str) -> None:
    processes = [RedisSlots(redis_url) for _ in range(4)]
    held = most = 0

    async def work(slots: RedisSlots, number: int) -> None:
        nonlocal held, most
        back = await slots.acquire("m", most=3, is_question=number % 5 == 0)
        held += 1
        most = max(most, held)
        await asyncio.sleep(0.001)
        held -= 1
        back()

    await asyncio.gather(*(work(processes[n % 4], n) for n in range(200)))
    for slots in processes:
        await slots.aclose()
    assert most == 4  # three, and one for questions
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.zcard("ragcore:slots:{m}:held") == 0
        assert await client.zcard("ragcore:slots:{m}:waiting") == 0


async def test_a_killed_process_frees_its_slot_and_its_place(redis_url: str) -> None:
    holder = subprocess.Popen(  # noqa: ASYNC220  # it is waited for by what it prints
        [sys.executable, "-c", HOLDER, redis_url], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
    slots = RedisSlots(redis_url, lease_seconds=0.6)
    waiting = asked(slots)
    await queued(redis_url, 1)
    holder.send_signal(signal.SIGKILL)
    await waiting
    holder.wait()
    holder.stdout.close()
    await slots.aclose()


async def test_who_gives_up_waiting_leaves_the_queue(
    processes: tuple[RedisSlots, RedisSlots], redis_url: str
) -> None:
    one, other = processes
    give_back = await one.acquire("m", most=1, is_question=False)
    waiting = asked(other)
    await queued(redis_url, 1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    give_back()
    await asked(one)


async def test_what_is_held_stays_held_when_redis_is_emptied(redis_url: str) -> None:
    one, other = (RedisSlots(redis_url, lease_seconds=0.3) for _ in range(2))
    give_back = await one.acquire("m", most=1, is_question=False)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.flushall()
        while not await client.zcard("ragcore:slots:{m}:held"):  # noqa: ASYNC110  # Redis calls nobody
            await asyncio.sleep(0.01)
    waiting = asked(other)
    await queued(redis_url, 1)
    give_back()
    await waiting
    await one.aclose()
    await other.aclose()


async def test_without_redis_every_process_is_left_to_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    slots = RedisSlots(f"redis://127.0.0.1:{free_port(None)}")
    for _ in range(5):
        await slots.acquire("m", most=1, is_question=False)
    await slots.aclose()
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "by each process for itself" in warnings[0]
