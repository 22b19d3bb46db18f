"""What PostgreSQL forgets when it has been kept long enough."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from psycopg import AsyncConnection

from ragcore.adapters.postgres import sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import Pool

SQL: Final = sql.load("retention.sql")


class PostgresRetention:
    """`ports.Retention` over a pool; every method is one transaction that waits for nobody."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def forget_jobs(self, *, older_than: timedelta, limit: int = 1000) -> int:
        return await self._delete("forget_jobs", {"older_than": older_than, "limit": limit})

    async def forget_versions(self, *, limit: int = 1000) -> int:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                deleted = await connection.execute(SQL["forget_versions"], {"limit": limit})
                await _forget_empty_documents(connection, limit)
        return deleted.rowcount

    async def forget_idempotency_keys(self, *, limit: int = 1000) -> int:
        return await self._delete("forget_idempotency_keys", {"limit": limit})

    async def forget_audit(self, *, older_than: timedelta, limit: int = 1000) -> int:
        return await self._delete("forget_audit", {"older_than": older_than, "limit": limit})

    async def _delete(self, name: str, values: Mapping[str, Any]) -> int:
        with translated():
            async with self._pool.connection() as connection:
                return (await connection.execute(SQL[name], values)).rowcount


async def _forget_empty_documents(connection: AsyncConnection[Any], limit: int) -> None:
    """Delete documents that never answered and whose last version is gone."""
    locked = await connection.execute(SQL["lock_empty_documents"], {"limit": limit})
    numbers = [number for (number,) in await locked.fetchall()]
    await connection.execute(SQL["forget_empty_documents"], {"document_nos": numbers})
