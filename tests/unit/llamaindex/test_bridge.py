"""The sync bridge: one resource per loop, opened once, never waiting for itself."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ragcore.llamaindex import bridge
from ragcore.llamaindex.bridge import Bridged


class Desk:
    """Something that belongs to the loop it was opened on, as a connection pool does."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.is_open = True

    async def work(self) -> "Desk":
        assert self.is_open
        assert asyncio.get_running_loop() is self.loop
        await asyncio.sleep(0)
        return self


class Desks:
    def __init__(self) -> None:
        self.opened: list[Desk] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Desk]:
        desk = Desk()
        self.opened.append(desk)
        yield desk
        desk.is_open = False


def test_a_sync_call_works_without_a_loop_and_opens_once() -> None:
    desks = Desks()
    bridged = Bridged.opened_by(desks.open)
    first = bridged.call_sync(Desk.work)
    assert bridged.call_sync(Desk.work) is first
    assert desks.opened == [first]
    bridged.close()
    assert not first.is_open


async def test_the_home_loop_uses_the_object_it_gave() -> None:
    desks, home = Desks(), Desk()
    bridged = Bridged.opened_by(desks.open, home=home)
    assert await bridged.call(Desk.work) is home
    assert desks.opened == []


async def test_a_sync_call_inside_a_running_loop_uses_the_bridges_own() -> None:
    desks, home = Desks(), Desk()
    bridged = Bridged.opened_by(desks.open, home=home)
    desk = bridged.call_sync(Desk.work)
    assert desk is not home
    assert desk.loop is not home.loop
    await bridged.aclose()
    assert not desk.is_open
    assert home.is_open


def test_an_async_call_on_another_loop_is_carried_over() -> None:
    desks = Desks()
    bridged = Bridged.opened_by(desks.open)
    first = asyncio.run(bridged.call(Desk.work))
    assert asyncio.run(bridged.call(Desk.work)) is first
    bridged.close()


def test_it_opens_again_after_it_was_closed() -> None:
    desks = Desks()
    bridged = Bridged.opened_by(desks.open)
    bridged.call_sync(Desk.work)
    bridged.close()
    bridged.close()
    assert bridged.call_sync(Desk.work) is desks.opened[1]
    bridged.close()


def test_many_threads_share_one_opening() -> None:
    desks = Desks()
    bridged = Bridged.opened_by(desks.open)
    threads = [threading.Thread(target=bridged.call_sync, args=(Desk.work,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(desks.opened) == 1
    bridged.close()


def test_a_failure_to_open_reaches_the_caller_and_is_tried_again() -> None:
    attempts = []

    @asynccontextmanager
    async def open_() -> AsyncIterator[str]:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("away")
        yield "open"

    async def use(value: str) -> str:
        return value

    bridged = Bridged.opened_by(open_)
    with pytest.raises(OSError, match="away"):
        bridged.call_sync(use)
    assert bridged.call_sync(use) == "open"
    bridged.close()


def test_errors_of_the_work_reach_the_caller() -> None:
    async def fail(_: str) -> None:
        raise LookupError("not here")

    with pytest.raises(LookupError, match="not here"):
        Bridged.shared("x").call_sync(fail)


def test_waiting_for_itself_is_refused() -> None:
    async def outer(_: str) -> None:
        bridge.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="async twin"):
        Bridged.shared("x").call_sync(outer)


def test_a_part_shares_the_life_of_the_whole() -> None:
    desks = Desks()
    whole = Bridged.opened_by(desks.open)

    async def twice(work: object) -> object:
        assert callable(work)
        return await work()

    part = whole.part(lambda desk: desk.work)
    assert part.call_sync(twice) is desks.opened[0]
    whole.close()
    assert not desks.opened[0].is_open
