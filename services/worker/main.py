"""The worker process: open everything, answer the bell, stop when told to."""

import asyncio
import logging
import signal
import sys

from ragcore.errors import RagError
from ragcore.flows.sweep import Sweep
from ragcore.runtime import open_doorbell, open_runtime
from ragcore.settings import Settings
from ragcore_worker.tasks import Answer, keep_deleting_orphans, keep_sweeping

GRACE_SECONDS = 10.0
"""How long jobs in hand may go on after SIGTERM; then they are given back to the queue."""

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
            asyncio.create_task(keep_sweeping(runtime, Sweep(runtime.catalog, doorbell))),
            asyncio.create_task(keep_deleting_orphans(runtime)),
        ]
        log.info("worker is ready")
        await stop.wait()
        log.info("worker is stopping")
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
