"""Forgetting, over the stores in memory."""

from datetime import UTC, datetime, timedelta

from ragcore.testing.memory.audit import MemoryAudit
from ragcore.testing.memory.catalog import MemoryCatalog


class MemoryRetention:
    """`ports.Retention` of a `MemoryCatalog` and a `MemoryAudit`."""

    def __init__(self, catalog: MemoryCatalog, audit: MemoryAudit) -> None:
        self._catalog = catalog
        self._audit = audit

    async def forget_jobs(self, *, older_than: timedelta, limit: int = 1000) -> int:
        before = datetime.now(UTC) - older_than
        old = [
            job_id
            for job_id, task in self._catalog.tasks.items()
            if task.job.is_finished
            and task.job.finished_at is not None
            and task.job.finished_at < before
            and (task.callback is None or task.callback.is_settled)
        ][:limit]
        for job_id in old:
            del self._catalog.tasks[job_id]
        return len(old)

    async def forget_versions(self, *, limit: int = 1000) -> int:
        named = {task.version_id for task in self._catalog.tasks.values()}
        old = [
            (entry, version_id)
            for entry in self._catalog.entries.values()
            for version_id, version in entry.versions.items()
            if version.state in ("replaced", "superseded", "failed") and version_id not in named
        ][:limit]
        for entry, version_id in old:
            del entry.versions[version_id]
        for key, entry in list(self._catalog.entries.items()):
            if not entry.versions:
                del self._catalog.entries[key]
        return len(old)

    async def forget_idempotency_keys(self, *, limit: int = 1000) -> int:
        before = datetime.now(UTC) - timedelta(hours=24)
        keys = self._catalog.idempotency_keys
        old = [name for name, request in keys.items() if request.created_at < before][:limit]
        for name in old:
            del keys[name]
        return len(old)

    async def forget_audit(self, *, older_than: timedelta, limit: int = 1000) -> int:
        before = datetime.now(UTC) - older_than
        recorded = self._audit.recorded
        old = [entry for entry in recorded if entry.at is not None and entry.at < before][:limit]
        recorded[:] = [entry for entry in recorded if entry not in old]
        return len(old)
