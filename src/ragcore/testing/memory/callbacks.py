"""Deliveries owed, beside the catalogue in memory."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

from ragcore.ports import Callback
from ragcore.testing.memory.catalog import MemoryCatalog


class MemoryCallbacks:
    """`ports.Callbacks` of the jobs of a `MemoryCatalog`."""

    def __init__(self, catalog: MemoryCatalog) -> None:
        self._catalog = catalog

    async def claim_due(self, *, lease: timedelta, limit: int = 20) -> Sequence[Callback]:
        now = datetime.now(UTC)
        due = [
            (task.job, owed)
            for task in self._catalog.tasks.values()
            if (owed := task.callback) is not None
            and task.job.is_finished
            and not owed.is_settled
            and owed.run_after <= now
        ]
        claimed = []
        for job, owed in sorted(due, key=lambda each: each[1].run_after)[:limit]:
            claimed.append(Callback(job, owed.url, owed.attempts))
            owed.run_after, owed.attempts = now + lease, owed.attempts + 1
        return claimed

    async def delivered(self, job_id: UUID) -> None:
        task = self._catalog.tasks.get(job_id)
        if task is not None and task.callback is not None and task.job.is_finished:
            task.callback.is_settled, task.callback.error = True, None

    async def failed(self, job_id: UUID, *, error: str, after: timedelta | None) -> None:
        task = self._catalog.tasks.get(job_id)
        if task is None or (owed := task.callback) is None or owed.is_settled:
            return
        owed.error = error
        owed.is_settled = after is None
        owed.run_after = datetime.now(UTC) + (after or timedelta())
