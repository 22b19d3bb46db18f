"""What a worker does: answer the bell, and see that no job goes unheard."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from ragcore.errors import RagError
from ragcore.flows.work import Work

if TYPE_CHECKING:
    from ragcore.adapters.postgres.pool import Pool

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """Run the best waiting job, whichever the bell was rung for."""

    work: Work

    async def __call__(self, rung_for: UUID) -> None:
        """Return when the job has ended or none waits; the sweep rings again for what failed."""
        try:
            job = await self.work.next()
        except RagError as error:
            log.warning("no job could be claimed: %s", error)
            return
        if job is None:
            log.debug("rung for %s, which somebody else has taken", rung_for)
        else:
            log.info(
                "job %s: %s %s",
                job.job_id,
                job.status,
                job.outcome or (job.error and job.error.code) or "",
            )


async def keep_doing(
    chore: Callable[[], Awaitable[int]], *, named: str, every_seconds: float, pool: "Pool"
) -> None:
    """Do a chore again and again, in one worker at a time, until cancelled.

    It returns how much it did. Whatever goes wrong in one round is logged, and the next one comes:
    without its sweeps a queue would stand still unnoticed.
    """
    from ragcore.adapters.postgres.turns import turn

    while True:
        try:
            async with turn(pool, named) as ours:
                if ours and (done := await chore()):
                    log.info("%s: %d", named, done)
        except RagError as error:
            log.warning("%s: put off: %s", named, error)
        except Exception:
            log.exception("%s: failed on a programming error", named)
        await asyncio.sleep(every_seconds)
