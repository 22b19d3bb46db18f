"""Embeddings that were computed before, in PostgreSQL."""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import numpy as np
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres import generations
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.generations import Table, checked_table
from ragcore.adapters.postgres.layout import embedded_texts
from ragcore.adapters.postgres.pool import Pool
from ragcore.model import Vector
from ragcore.steps.fingerprints import text_hash

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


_AT_ONCE: Final = 1000

# What ragcore embedded itself: what a LlamaIndex node was embedded from, nobody can tell.
_TEXTS_OF_DOCUMENTS = """
SELECT t.metadata ->> 'text', t.context
FROM ragcore.documents d
JOIN vecs."{table}" t ON t.document_no = d.document_no AND NOT t.own_metadata
WHERE d.collection = %(collection)s AND d.document_id = ANY(%(document_ids)s)
"""
_SOME_TEXTS = """
SELECT t.metadata ->> 'text', t.context, t.chunk_no
FROM vecs."{table}" t
WHERE NOT t.own_metadata AND t.chunk_no > %(after)s
ORDER BY t.chunk_no
LIMIT %(limit)s
"""
# Few models: their names are found one after the other, by the index. Locked in one order, so that
# two deletions of the same texts queue.
_FORGET_TEXTS = """
WITH RECURSIVE models AS (
    (SELECT model_key FROM ragcore.embedding_cache ORDER BY model_key LIMIT 1)
    UNION ALL
    SELECT (SELECT c.model_key FROM ragcore.embedding_cache c
            WHERE c.model_key > m.model_key ORDER BY c.model_key LIMIT 1)
    FROM models m WHERE m.model_key IS NOT NULL
), locked AS MATERIALIZED (
    SELECT c.model_key, c.text_hash
    FROM models m
    CROSS JOIN unnest(%(hashes)s::bytea[]) AS gone (text_hash)
    JOIN ragcore.embedding_cache c ON c.model_key = m.model_key AND c.text_hash = gone.text_hash
    ORDER BY c.model_key, c.text_hash
    FOR UPDATE OF c
)
DELETE FROM ragcore.embedding_cache c USING locked
WHERE c.model_key = locked.model_key AND c.text_hash = locked.text_hash
"""


class PostgresCachedTexts:
    """`ports.CachedTexts` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def forget(self, collection: str, document_ids: Sequence[str] | None) -> int:
        with translated():
            async with self._pool.connection() as connection:
                tables = await generations.seen(connection, collection)
            deleted = 0
            for table in tables.every:
                if document_ids is None:
                    deleted += await self._forget_all(table)
                else:
                    deleted += await self._forget_documents(table, document_ids)
            return deleted

    async def _forget_documents(self, table: Table, document_ids: Sequence[str]) -> int:
        wanted = {"collection": table.collection, "document_ids": list(document_ids)}
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(_of(table, _TEXTS_OF_DOCUMENTS), wanted)
            hashes = sorted({each async for row in cursor for each in _hashes(*row)})
        return sum(
            [
                await self._forget_hashes(hashes[first : first + _AT_ONCE])
                for first in range(0, len(hashes), _AT_ONCE)
            ]
        )

    async def _forget_all(self, table: Table) -> int:
        deleted = 0
        async with aclosing(hashes_in(self._pool, table.name)) as pages:
            async for hashes in pages:
                deleted += await self._forget_hashes(hashes)
        return deleted

    async def _forget_hashes(self, hashes: Sequence[bytes]) -> int:
        async with self._pool.connection() as connection:
            return (await connection.execute(_FORGET_TEXTS, {"hashes": list(hashes)})).rowcount


async def hashes_in(pool: Pool, table: str) -> AsyncGenerator[Sequence[bytes], None]:
    """Yield what the vectors of a table's chunks are kept under, a page of chunks at a time."""
    query = _SOME_TEXTS.replace("{table}", checked_table(table))
    after = -1
    while True:
        async with pool.connection() as connection:
            cursor = await connection.execute(query, {"after": after, "limit": _AT_ONCE})
            rows = await cursor.fetchall()
        if not rows:
            return
        yield sorted({each for text, context, _ in rows for each in _hashes(text, context)})
        after = rows[-1][2]


def _hashes(text: str | None, context: str | None) -> Iterable[bytes]:
    return map(text_hash, embedded_texts(text or "", context))


def _of(table: Table, query: str) -> str:
    return query.replace("{table}", checked_table(table.name))
