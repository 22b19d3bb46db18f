"""API keys in a dictionary."""

from collections.abc import Sequence, Set
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from ragcore.errors import KeyNotFound
from ragcore.model import ApiKey, AuditEntry
from ragcore.testing.memory.audit import MemoryAudit


class MemoryKeys:
    """`ports.Keys` for tests of flows; changes are recorded in `audit`."""

    def __init__(self, audit: MemoryAudit | None = None) -> None:
        self.audit = audit or MemoryAudit()
        self.lookups = 0
        self._keys: dict[UUID, ApiKey] = {}
        self._ids: dict[bytes, UUID] = {}

    async def add(self, key: ApiKey, *, secret_hash: bytes, entry: AuditEntry) -> ApiKey:
        stored = replace(key, created_at=datetime.now(UTC))
        self._keys[key.key_id] = stored
        self._ids[secret_hash] = key.key_id
        await self.audit.record([entry])
        return stored

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        self.lookups += 1
        key_id = self._ids.get(secret_hash)
        return None if key_id is None else self._keys[key_id]

    async def list(self) -> Sequence[ApiKey]:
        return [*reversed(self._keys.values())]

    async def revoke(self, key_id: UUID, *, entry: AuditEntry) -> ApiKey:
        key = self._keys.get(key_id)
        if key is None:
            raise KeyNotFound(f"no API key has the id {str(key_id)!r}")
        if key.revoked_at is None:
            key = self._keys[key_id] = replace(key, revoked_at=datetime.now(UTC))
            await self.audit.record([entry])
        return key

    async def used(self, key_ids: Set[UUID]) -> None:
        for key_id in key_ids & self._keys.keys():
            self._keys[key_id] = replace(self._keys[key_id], last_used_at=datetime.now(UTC))
