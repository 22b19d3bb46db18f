import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.errors import QueueUnavailable
from ragcore.settings import Settings
from ragcore_worker.main import serve
from ragcore_worker.tasks import keep_doing


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=2) as pool:
        yield pool


async def test_a_round_that_fails_does_not_end_the_chore(
    pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = iter([QueueUnavailable("Redis is away"), ZeroDivisionError("a bug"), None])
    came_again = asyncio.Event()

    async def chore() -> int:
        failure = next(rounds, None)
        if failure is not None:
            raise failure
        came_again.set()
        return 7

    task = asyncio.create_task(keep_doing(chore, named="chore", every_seconds=0, pool=pool))
    await came_again.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "chore: put off: Redis is away" in caplog.text
    assert "a bug" in caplog.text


async def test_a_worker_waits_for_a_database_that_is_away(
    redis_url: str, data_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings(
        database_url="postgresql://nobody:hidden@127.0.0.1:9/nowhere",
        redis_url=redis_url,
        data_dir=data_dir,
    )
    worker = asyncio.create_task(serve(settings))
    while "no work before this is back: store_unavailable" not in caplog.text:
        assert not worker.done()
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
    await worker
    assert "hidden" not in caplog.text
