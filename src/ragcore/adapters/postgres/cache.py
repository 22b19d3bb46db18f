"""Embeddings that were computed before, in PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres.errors import translated
from ragcore.model import Vector

# Entries are only ever read or written whole and under their content's hash, so a lost or repeated
# write is harmless; that is why none of this waits for the disk.
_GET = """
SELECT text_hash, vector FROM ragcore.embedding_cache
WHERE model_key = %s AND text_hash = ANY(%s)
"""
# In order of the hash: two writers of overlapping texts queue, and never deadlock.
_PUT = """
INSERT INTO ragcore.embedding_cache (model_key, text_hash, vector)
SELECT %s, text_hash, vector FROM unnest(%s::bytea[], %s::bytea[]) AS new (text_hash, vector)
ORDER BY text_hash
ON CONFLICT DO NOTHING
"""
_USED = """
UPDATE ragcore.embedding_cache SET used_at = now()
WHERE model_key = %s AND text_hash IN (
    SELECT text_hash FROM ragcore.embedding_cache
    WHERE model_key = %s AND text_hash = ANY(%s) AND used_at < now() - interval '1 day'
    FOR UPDATE SKIP LOCKED
)
"""
_FORGET = "DELETE FROM ragcore.embedding_cache WHERE used_at < now() - make_interval(days => %s)"


class PostgresEmbeddingCache:
    """`ports.EmbeddingCache` over a pool."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    async def get(self, model_key: str, hashes: Sequence[bytes]) -> Mapping[bytes, Vector]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")
                cursor = await connection.execute(_GET, (model_key, list(hashes)), binary=True)
                found = {bytes(key): _vector(value) for key, value in await cursor.fetchall()}
                if found:
                    await connection.execute(_USED, (model_key, model_key, list(found)))
                return found

    async def put(self, model_key: str, vectors: Mapping[bytes, Vector]) -> None:
        values = [np.ascontiguousarray(vector, "<f4").tobytes() for vector in vectors.values()]
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute("SET LOCAL synchronous_commit = off")
                await connection.execute(_PUT, (model_key, list(vectors), values), binary=True)

    async def forget_unused(self, *, days: int) -> int:
        """Delete entries that nobody asked for in so many days and return how many there were."""
        with translated():
            async with self._pool.connection() as connection:
                deleted: int = (await connection.execute(_FORGET, (days,))).rowcount
                return deleted


def _vector(value: bytes) -> Vector:
    return np.frombuffer(value, "<f4").astype(np.float32)
