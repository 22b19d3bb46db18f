"""Filling a collection quickly: the vector index is dropped, and built when the rows are in."""

import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from ragcore.adapters.postgres.chunks import copy_chunks
from ragcore.adapters.postgres.migrate import migrate
from ragcore.embedded import embedded_servers
from ragcore.model import Chunk, Vectors

Connection = AsyncConnection[Any]


@asynccontextmanager
async def database(url: str | None) -> AsyncIterator[str]:
    """Give the migrated database at `url`, or one on a server that lives as long as the block."""
    if url is not None:
        await migrate(url)
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)  # the server runs as another user
        async with embedded_servers(Path(directory) / "data", valkey=False) as servers:
            await migrate(servers.database_url)
            yield servers.database_url


async def held(connection: Connection, collection: str) -> int:
    """Return how many chunks a collection holds."""
    cursor = await connection.execute(f'SELECT count(*) FROM vecs."{collection}"')
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def fill(
    connection: Connection,
    collection: str,
    chunks: Sequence[Chunk],
    vectors: Vectors,
    *,
    chunks_per_document: int,
) -> None:
    """Add documents of so many chunks each, with metadata `percent` and `mille`, and vacuum.

    `percent` (0…99) selects one chunk in a hundred, `mille` (0…999) one in a thousand.
    """
    index, definition = await _vector_index(connection, collection)
    await connection.execute(f'DROP INDEX vecs."{index}"')
    for start in range(0, len(chunks), 2000):
        await _copy(
            connection,
            collection,
            chunks[start : start + 2000],
            vectors[start : start + 2000],
            first=start // chunks_per_document,
            chunks_per_document=chunks_per_document,
        )
    await connection.execute("SET maintenance_work_mem = '512MB'")
    await connection.execute(definition.encode())
    await connection.execute(f'VACUUM ANALYZE vecs."{collection}"')
    await connection.execute(f'VACUUM ANALYZE ragcore."postings_{collection}"')
    await connection.execute("VACUUM ANALYZE ragcore.documents, ragcore.chunk_counts")


async def _copy(
    connection: Connection,
    collection: str,
    chunks: Sequence[Chunk],
    vectors: Vectors,
    *,
    first: int,
    chunks_per_document: int,
) -> None:
    async with connection.transaction():
        for offset in range(0, len(chunks), chunks_per_document):
            number = first + offset // chunks_per_document
            document_id = f"document-{number}"
            cursor = await connection.execute(
                "INSERT INTO ragcore.documents (collection, document_id, metadata)"
                " VALUES (%s, %s, %s) RETURNING document_no",
                (collection, document_id, Jsonb({"percent": number % 100, "mille": number % 1000})),
            )
            row = await cursor.fetchone()
            assert row is not None
            await copy_chunks(
                connection,
                collection,
                document_no=row[0],
                document_id=document_id,
                chunks=chunks[offset : offset + chunks_per_document],
                vectors=vectors[offset : offset + chunks_per_document],
            )


async def _vector_index(connection: Connection, collection: str) -> tuple[str, str]:
    cursor = await connection.execute(
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'vecs' AND tablename = %s"
        " AND indexdef LIKE '%%USING hnsw%%'",
        (collection,),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1]
