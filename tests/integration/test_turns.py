import asyncio

from ragcore.adapters.postgres.pool import open_pool
from ragcore.adapters.postgres.turns import turn


async def test_one_at_a_time_has_the_turn_and_the_next_one_after_it(database_url: str) -> None:
    async with open_pool(database_url, size=3) as pool:
        async with turn(pool, "sweep") as first, turn(pool, "sweep") as second:
            assert (first, second) == (True, False)
        async with turn(pool, "sweep") as third:
            assert third


async def test_different_turns_do_not_keep_one_another_out(database_url: str) -> None:
    async with (
        open_pool(database_url, size=2) as pool,
        turn(pool, "sweep") as sweep,
        turn(pool, "orphans") as orphans,
    ):
        assert sweep
        assert orphans


async def test_a_turn_ends_with_the_task_that_had_it(database_url: str) -> None:
    async with open_pool(database_url, size=2) as pool:
        held = asyncio.Event()

        async def hold() -> None:
            async with turn(pool, "sweep"):
                held.set()
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold())
        await held.wait()
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
        async with turn(pool, "sweep") as ours:
            assert ours
