"""Callbacks in PostgreSQL: deliveries owed, recorded with their jobs."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from psycopg.rows import dict_row

from ragcore.adapters.postgres import sql
from ragcore.adapters.postgres.catalog import job_of
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import Pool
from ragcore.ports import Callback

SQL: Final = sql.load("callbacks.sql")

_LONGEST_ERROR: Final = 1000


class PostgresCallbacks:
    """`ports.Callbacks` over a pool; every method is one statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def claim_due(self, *, lease: timedelta, limit: int = 20) -> Sequence[Callback]:
        with translated():
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                await cursor.execute(SQL["claim_due"], {"lease": lease, "limit": limit})
                rows = await cursor.fetchall()
        return [Callback(job_of(row), row["url"], row["tried"]) for row in rows]

    async def delivered(self, job_id: UUID) -> None:
        with translated():
            async with self._pool.connection() as connection:
                await connection.execute(SQL["delivered"], {"job_id": job_id})

    async def failed(self, job_id: UUID, *, error: str, after: timedelta | None) -> None:
        # What a receiver answered may hold anything; PostgreSQL stores no NUL.
        told = error[:_LONGEST_ERROR].replace("\0", " ")
        values = {"job_id": job_id, "error": told, "after": after}
        with translated():
            async with self._pool.connection() as connection:
                await connection.execute(SQL["failed"], values)
