"""What a worker does: answer the bell, and see that no job goes unheard."""

import asyncio
import logging
from dataclasses import dataclass
from uuid import UUID

from ragcore.errors import RagError
from ragcore.flows.sweep import Sweep
from ragcore.flows.work import Work
from ragcore.runtime import Runtime

SWEEP_SECONDS = 2.0
ORPHANS_SECONDS = 3600.0

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


async def keep_sweeping(runtime: Runtime, sweep: Sweep) -> None:
    """Sweep every two seconds, in one worker at a time, until cancelled."""
    from ragcore.adapters.postgres.turns import turn

    while True:
        try:
            async with turn(runtime.pool, "sweep") as ours:
                if ours and (rings := await sweep()):
                    log.info("rang for %d waiting jobs", rings)
        except RagError as error:
            log.warning("the sweep is put off: %s", error)
        await asyncio.sleep(SWEEP_SECONDS)


async def keep_deleting_orphans(runtime: Runtime) -> None:
    """Delete files that no version refers to, every hour, in one worker at a time."""
    from ragcore.adapters.postgres.turns import turn

    while True:
        try:
            async with turn(runtime.pool, "orphans") as ours:
                if ours and (deleted := await runtime.sweep_orphans()):
                    log.info("deleted %d orphaned files", deleted)
        except RagError as error:
            log.warning("orphaned files stay for now: %s", error)
        await asyncio.sleep(ORPHANS_SECONDS)
