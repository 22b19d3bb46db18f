import asyncio

import pytest

from ragcore.errors import Busy
from ragcore_api.turnstile import Turnstile


async def test_only_so_many_work_and_only_so_many_more_wait() -> None:
    turnstile, go_on = Turnstile(at_once=2, waiting=1), asyncio.Event()
    working = 0

    async def work() -> None:
        nonlocal working
        async with turnstile.admission(), turnstile.turn():
            working += 1
            await go_on.wait()

    tasks = [asyncio.create_task(work()) for _ in range(4)]
    with pytest.raises(Busy):
        await tasks[3]
    assert working == 2
    go_on.set()
    await asyncio.gather(*tasks[:3])
    assert working == 3


async def test_a_place_is_free_again_after_a_failure() -> None:
    turnstile = Turnstile(at_once=1, waiting=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with turnstile.admission(), turnstile.turn():
                raise ZeroDivisionError
