"""API keys in PostgreSQL."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, Final
from uuid import UUID

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ragcore.adapters.postgres import sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import Pool
from ragcore.errors import KeyNotFound
from ragcore.model import ApiKey, AuditEntry

SQL: Final = sql.load("keys.sql")


class PostgresKeys:
    """`ports.Keys` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def add(self, key: ApiKey, *, secret_hash: bytes, entry: AuditEntry) -> ApiKey:
        values = {
            "key_id": key.key_id,
            "name": key.name,
            "secret_hash": secret_hash,
            "scopes": sorted(key.scopes),
            "collections": None if key.collections is None else sorted(key.collections),
            "requests_per_minute": key.requests_per_minute,
            "expires_at": key.expires_at,
        }
        (row,) = await self._rows("insert_key", values | _recorded(entry))
        return _key(row)

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        rows = await self._rows("key_by_hash", {"secret_hash": secret_hash})
        return _key(rows[0]) if rows else None

    async def list(self) -> Sequence[ApiKey]:
        return [_key(row) for row in await self._rows("keys", {})]

    async def revoke(self, key_id: UUID, *, entry: AuditEntry) -> ApiKey:
        rows = await self._rows("revoke_key", {"key_id": key_id} | _recorded(entry))
        # Revoked before, maybe a moment ago by another, or never there.
        rows = rows or await self._rows("key", {"key_id": key_id})
        if not rows:
            raise KeyNotFound(f"no API key has the id {str(key_id)!r}; list them to see their ids")
        return _key(rows[0])

    async def used(self, key_ids: Set[UUID]) -> None:
        with translated():
            async with self._pool.connection() as connection:
                await connection.execute(SQL["used"], {"key_ids": list(key_ids)})

    async def _rows(self, query: str, values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        with translated():
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                await cursor.execute(SQL[query], values)
                return await cursor.fetchall()


def _recorded(entry: AuditEntry) -> dict[str, Any]:
    return {
        "action": entry.action,
        "actor": entry.actor,
        "target": entry.target,
        "request_id": entry.request_id,
        "details": Jsonb(dict(entry.details)),
    }


def _key(row: Mapping[str, Any]) -> ApiKey:
    collections = row["collections"]
    return ApiKey(
        key_id=row["key_id"],
        name=row["name"],
        scopes=frozenset(row["scopes"]),
        collections=None if collections is None else frozenset(collections),
        requests_per_minute=row["requests_per_minute"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        revoked_at=row["revoked_at"],
    )
