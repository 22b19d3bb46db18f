"""An audit trail in a list."""

from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime

from ragcore.model import AuditEntry


class MemoryAudit:
    """`ports.Audit` for tests of flows."""

    def __init__(self) -> None:
        self.recorded: list[AuditEntry] = []

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        for number, entry in enumerate(entries, start=len(self.recorded) + 1):
            self.recorded.append(replace(entry, at=datetime.now(UTC), entry_no=number))

    async def entries(
        self,
        *,
        collections: Set[str] | None = None,
        action: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> Sequence[AuditEntry]:
        older = self.recorded if before is None else self.recorded[: before - 1]
        found = [
            entry
            for entry in reversed(older)
            if (collections is None or entry.collection in collections)
            and (action is None or entry.action == action)
        ]
        return found[:limit]
