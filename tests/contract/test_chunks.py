from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from pooling import pooler
from ragcore.adapters.postgres.chunks import (
    PostgresChunks,
    copy_chunks,
    delete_document_chunks,
)
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.model import Chunk, Document, EmbeddingSpec, Vectors
from ragcore.testing.contracts.chunks import COLLECTION, DIMENSION, ChunkStoreContract
from ragcore.testing.memory.chunks import MemoryChunks

SPEC = EmbeddingSpec(model="test:four", dimension=DIMENSION, max_tokens=100)


class InMemory:
    def __init__(self) -> None:
        self.store = MemoryChunks(COLLECTION)

    async def replace(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        self.store.replace(document, chunks, vectors)


class InPostgres:
    def __init__(self, pool: AsyncConnectionPool[Any], **options: Any) -> None:
        self._pool = pool
        self.store = PostgresChunks(pool, **options)

    async def replace(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(
                "INSERT INTO ragcore.documents (collection, document_id, title, uri, mime_type,"
                " language, metadata, extracted, created_at)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (collection, document_id) DO UPDATE SET title = excluded.title"
                " RETURNING document_no",
                (
                    document.collection,
                    document.document_id,
                    document.title,
                    document.uri,
                    document.mime_type,
                    document.language,
                    Jsonb(document.metadata),
                    Jsonb(document.extracted),
                    document.created_at,
                ),
            )
            row = await cursor.fetchone()
            assert row is not None
            await delete_document_chunks(connection, document.collection, [row[0]])
            written = await copy_chunks(
                connection,
                document.collection,
                document_no=row[0],
                document_id=document.document_id,
                chunks=chunks,
                vectors=vectors,
            )
            assert written == len(chunks)


class TestMemoryChunks(ChunkStoreContract):
    @pytest.fixture
    def chunks(self) -> InMemory:
        return InMemory()


class TestPostgresChunks(ChunkStoreContract):
    @pytest.fixture
    async def chunks(self, database_url: str) -> AsyncIterator[InPostgres]:
        async with open_pool(database_url, size=2) as pool:
            await PostgresCollections(pool).open(COLLECTION, embedding=SPEC, chunker="test")
            yield InPostgres(pool)


class TestPostgresChunksThroughTheIndex(ChunkStoreContract):
    """The same promises where nothing is scanned exactly and frequent words are only looked up."""

    @pytest.fixture
    async def chunks(self, database_url: str) -> AsyncIterator[InPostgres]:
        async with open_pool(database_url, size=2) as pool:
            await PostgresCollections(pool).open(COLLECTION, embedding=SPEC, chunker="test")
            yield InPostgres(pool, exact_rows=0, postings=1)


class TestPostgresChunksBehindAPooler(ChunkStoreContract):
    """The same promises where nothing may be kept in a session."""

    @pytest.fixture
    async def chunks(self, database_url: str) -> AsyncIterator[InPostgres]:
        async with pooler(database_url) as url, open_pool(url, size=2) as pool:
            await PostgresCollections(pool).open(COLLECTION, embedding=SPEC, chunker="test")
            yield InPostgres(pool, exact_rows=0, postings=1)
