"""What a worker does: answer the bell, and see that no job goes unheard."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

from ragcore.errors import RagError, StorageFull
from ragcore.flows.work import Work
from ragcore.logs import about
from ragcore.model import Job

if TYPE_CHECKING:
    from ragcore.adapters.postgres.pool import Pool

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Answer:
    """Run waiting jobs, the best first, whichever of them the bell was rung for."""

    work: Work
    require_room: Callable[[], None] = lambda: None
    """Raises StorageFull: then jobs are left waiting, which costs them no attempt."""
    on_end: Callable[[Job], None] = lambda job: None
    """Told of each job that ended, or waits for another attempt."""
    busy: int = field(default=0, init=False)
    """How many rings are being answered now."""
    in_hand: int = field(default=0, init=False)
    """How many jobs are worked on now."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Once it is set, nothing more is claimed."""

    async def __call__(self, rung_for: UUID) -> None:
        """Return when no job waits that could be claimed; the sweep rings again for what failed."""
        self.busy += 1
        try:
            while await self.take():
                pass
        finally:
            self.busy -= 1

    async def take(self, *, at_most_bytes: int | None = None) -> bool:
        """Run the best waiting job; False when there is none that can be run now."""
        if self.stopping.is_set():
            return False
        self.in_hand += 1
        try:
            self.require_room()
            job = await self.work.next(at_most_bytes=at_most_bytes)
        except StorageFull as error:
            log.warning("jobs are left waiting: %s", error)
            return False
        except RagError as error:
            log.warning("no job could be claimed: %s", error)
            return False
        finally:
            self.in_hand -= 1
        if job is None:
            return False
        self._tell(job)
        return True

    def _tell(self, job: Job) -> None:
        self.on_end(job)
        result = job.outcome or (job.error and job.error.code) or ""
        with about(job_id=str(job.job_id), document_id=job.document_id, collection=job.collection):
            log.info("job %s: %s %s", job.job_id, job.status, result)


async def keep_small_lane(
    answer: Answer, *, slots: int, at_most_bytes: int, every_seconds: float = _LOOK_SECONDS
) -> None:
    """Run small jobs, one at a time, while all `slots` of the worker are taken, until it stops.

    So a small document waits for other small ones at most, however many large ones came before it.
    """
    while not answer.stopping.is_set():
        try:
            if answer.busy >= slots and await answer.take(at_most_bytes=at_most_bytes):
                continue
        except Exception:
            log.exception("a small document met a programming error")
        with suppress(TimeoutError):
            await asyncio.wait_for(answer.stopping.wait(), every_seconds)


async def keep_doing(
    chore: Callable[[], Awaitable[int]], *, named: str, every_seconds: float, pool: "Pool | None"
) -> None:
    """Do a chore again and again until cancelled, with a pool in one worker at a time.

    It returns how much it did. Whatever goes wrong in one round is logged, and the next one comes:
    without its sweeps a queue would stand still unnoticed.
    """
    while True:
        try:
            done = await (chore() if pool is None else _in_turn(chore, named, pool))
            if done:
                log.info("%s: %d", named, done)
        except RagError as error:
            log.warning("%s: put off: %s", named, error)
        except Exception:
            log.exception("%s: failed on a programming error", named)
        await asyncio.sleep(every_seconds)


async def _in_turn(chore: Callable[[], Awaitable[int]], named: str, pool: "Pool") -> int:
    from ragcore.adapters.postgres.turns import turn

    async with turn(pool, named) as ours:
        return await chore() if ours else 0
