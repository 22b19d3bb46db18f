"""Taking turns between processes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import Pool


@asynccontextmanager
async def turn(pool: Pool, name: str) -> AsyncIterator[bool]:
    """Say whether it is this process's turn: one at a time has it, for as long as the block runs.

    Nobody waits. Held by a transaction, so that it works behind a pooler and a killed holder
    loses it with its connection. Raises StoreUnavailable.
    """
    with translated():
        async with pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 0))", [f"ragcore:{name}"]
            )
            row = await cursor.fetchone()
            yield bool(row and row[0])
