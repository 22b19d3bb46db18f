"""The worker process: open everything, answer the bell, stop when told to."""

import asyncio
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from ragcore.errors import RagError
from ragcore.flows.sweep import Sweep
from ragcore.runtime import Runtime, open_doorbell, open_runtime
from ragcore.settings import Settings
from ragcore_worker.tasks import Answer, keep_doing

GRACE_SECONDS = 10.0
"""How long jobs in hand may go on after SIGTERM; then they are given back to the queue."""

SWEEP_SECONDS = 2.0
TIDY_SECONDS = 3600.0
CACHE_DAYS = 90
"""Vectors that nobody asked for in so long are computed again when they are wanted."""

log = logging.getLogger(__name__)


def main() -> None:
    """Work until SIGTERM or SIGINT. Exits with 1 and one line when it can't start."""
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    logging.getLogger("dramatiq").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(settings))
    except RagError as error:
        log.error("%s: %s", error.code, error)
        sys.exit(1)


async def serve(settings: Settings) -> None:
    """Answer the bell until told to stop; killed at any line, its jobs go to others."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with (
        open_doorbell(settings) as doorbell,
        open_runtime(settings, doorbell=doorbell) as runtime,
        doorbell.answered_by(
            Answer(runtime.work),
            at_once=settings.conversion.processes + 1,  # one embeds while others are read
            grace_seconds=GRACE_SECONDS,
        ),
    ):
        chores = [
            asyncio.create_task(
                keep_doing(chore, named=name, every_seconds=seconds, pool=runtime.pool)
            )
            for name, chore, seconds in (
                ("jobs rung for again", Sweep(runtime.catalog, doorbell), SWEEP_SECONDS),
                ("orphaned files deleted", runtime.sweep_orphans, TIDY_SECONDS),
                ("cached vectors forgotten", _forgetting(runtime), TIDY_SECONDS),
            )
        ]
        log.info("worker is ready")
        await stop.wait()
        log.info("worker is stopping")
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)


def _forgetting(runtime: Runtime) -> Callable[[], Awaitable[int]]:
    return lambda: runtime.cache.forget_unused(days=CACHE_DAYS)
