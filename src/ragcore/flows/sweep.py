"""Jobs that nobody heard of, or that their worker left → rung again."""

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

from ragcore.ports import Catalog

log = logging.getLogger(__name__)

CRASH_PAUSE = timedelta(seconds=3)
"""What a job waits that lost its worker for the second time, doubled for the third …"""


class Bells(Protocol):
    """What the sweep asks of the doorbell."""

    async def ring(self, job_id: UUID) -> None: ...

    async def unheard(self) -> int:
        """Return how many rings no worker has heard yet."""
        ...


@dataclass(frozen=True, slots=True)
class Sweep:
    """Make sure that every waiting job will be heard of. Safe to repeat, and to kill at any line.

    Takes back the jobs whose lease ran out, and rings for waiting jobs as often as there are fewer
    unheard rings than jobs; one ring too many wakes a worker for nothing.
    """

    catalog: Catalog
    doorbell: Bells
    at_most: int = 100
    pause: timedelta = CRASH_PAUSE

    async def __call__(self) -> int:
        """Return how many rings were made. Raises StoreUnavailable, QueueUnavailable."""
        for job in await self.catalog.release_expired(pause=self.pause):
            log.warning("job %s was left by its worker; it waits again", job.job_id)
        waiting = await self.catalog.waiting(limit=self.at_most)
        if not waiting:
            return 0
        unheard = waiting[await self.doorbell.unheard() :]
        for job in unheard:
            await self.doorbell.ring(job.job_id)
        return len(unheard)
