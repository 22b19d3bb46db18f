"""Collections in PostgreSQL: the fingerprints they were made with, and their tables."""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres import generations, sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.layout import embedding_spec
from ragcore.adapters.postgres.pool import describe_server
from ragcore.errors import CollectionMismatch, CollectionNotFound, InvalidInput
from ragcore.model import Collection, DeletionReceipt, EmbeddingSpec
from ragcore.steps.fingerprints import require_same
from ragcore.steps.identity import checked_collection

__all__ = [
    "PostgresCollections",
    "collection_of",
    "create_tables",
    "drop_tables",
    "stored_embedding",
]

SQL: Final = sql.load("collections.sql")
TABLES: Final = sql.load("collection.sql")

Connection = AsyncConnection[Any]

_MOST_DIMENSIONS: Final = 2000  # of an HNSW index over `vector`
_MOST_INLINE_DIMENSIONS: Final = 1536  # 6 kB: a row must fit its page of 8 kB


class PostgresCollections:
    """`ports.Collections` over a pool; every method is one transaction."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    async def open(
        self,
        name: str,
        *,
        embedding: EmbeddingSpec,
        chunker: str,
        create: bool = True,
        language: str | None = None,
        strict: bool = False,
    ) -> Collection:
        checked_collection(name)
        async with self._transaction() as connection:
            found = await _find(connection, name)
            if found is None and create:
                wanted = Collection(name, embedding, chunker, language=language, strict=strict)
                found = await _create(connection, wanted)
        if found is None:
            raise _not_found(name)
        if found.generation == 1:  # nobody has decided that it be otherwise
            require_same(found, embedding=embedding, chunker=chunker)
        return found

    async def get(self, name: str) -> Collection:
        async with self._transaction() as connection:
            found = await _find(connection, name)
        if found is None:
            raise _not_found(name)
        return found

    async def list(self) -> Sequence[tuple[Collection, int, int]]:
        async with self._transaction() as connection:
            rows = await _rows(connection, SQL["collections"], {})
        return [(collection_of(row), row["documents"], row["chunks"]) for row in rows]

    async def delete(self, name: str) -> tuple[DeletionReceipt, Sequence[UUID]]:
        async with self._transaction() as connection:
            tables = await generations.take(connection, name)
            locked = await _rows(connection, SQL["lock_collection"], {"name": name})
            if not locked:
                raise _not_found(name)
            documents = await _rows(connection, SQL["documents_of"], {"name": name})
            versions = await _rows(connection, SQL["versions_of"], {"name": name})
            counted = await _rows(connection, SQL["count_chunks"].replace("{collection}", name), {})
            await connection.execute(SQL["cancel_jobs_of"], {"name": name})
            for table in tables.others:
                await generations.drop(connection, table)
            await connection.execute(SQL["delete_collection"], {"name": name})
            await drop_tables(connection, name)
        receipt = DeletionReceipt(
            collection=name,
            document_ids=tuple(row["document_id"] for row in documents),
            chunks=counted[0]["chunks"],
            versions=len(versions),
            blobs=0,
        )
        return receipt, tuple(row["version_id"] for row in versions)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                yield connection


async def drop_tables(connection: Connection, name: str) -> None:
    """Drop a collection's tables in the caller's transaction, if they are there."""
    counts = {"name": checked_collection(name)}
    await connection.execute(_of(name, TABLES["drop_tables"]))
    await connection.execute(SQL["delete_counts"], counts)


async def _find(connection: Connection, name: str) -> Collection | None:
    rows = await _rows(connection, SQL["collection"], {"name": name})
    return collection_of(rows[0]) if rows else None


async def _create(connection: Connection, wanted: Collection) -> Collection:
    """Make the collection, or return the one that another process has just made."""
    _require_indexable(wanted.embedding)
    # Waits for another process that is making the same one, so it is there or not for certain.
    await connection.execute(SQL["lock_name"], {"name": wanted.name})
    if (found := await _find(connection, wanted.name)) is not None:
        return found
    rows = await _rows(connection, SQL["insert_collection"], _values(wanted))
    await create_tables(connection, wanted)
    return collection_of(rows[0])


async def create_tables(connection: Connection, wanted: Collection) -> None:
    """Make the tables of a collection that is recorded and has none yet."""
    server = await describe_server(connection)
    assert server.schema is not None  # the pool does not open without the extension
    filled = (
        _of(wanted.name, TABLES["create_tables"])
        .replace("{dimension}", str(wanted.embedding.dimension))
        .replace("{vectors}", server.schema)
        .replace("{tag}", "C" + hashlib.sha256(wanted.name.encode()).hexdigest()[:11])
    )
    try:
        await connection.execute(filled)
    except errors.DuplicateTable as error:
        raise CollectionMismatch(
            f"There is a table vecs.{wanted.name!r} that ragcore did not make: choose another name"
            " for the collection, or move the table away"
        ) from error
    if wanted.embedding.dimension <= _MOST_INLINE_DIMENSIONS:
        await connection.execute(_of(wanted.name, TABLES["store_vectors_inline"]))


def _require_indexable(embedding: EmbeddingSpec) -> None:
    if not 1 <= embedding.dimension <= _MOST_DIMENSIONS:
        raise InvalidInput(
            f"Vectors of {embedding.dimension!r} dimensions can't be indexed: choose an embedding"
            f" model with at most {_MOST_DIMENSIONS}"
        )


def _of(name: str, query: str) -> str:
    return query.replace("{collection}", name)


async def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


def stored_embedding(embedding: EmbeddingSpec) -> dict[str, Any]:
    """Return what is stored of a model, for layout.embedding_spec to read."""
    languages = embedding.languages
    return asdict(embedding) | {"languages": None if languages is None else sorted(languages)}


def _values(collection: Collection) -> Mapping[str, Any]:
    return {
        "name": collection.name,
        "embedding": Jsonb(stored_embedding(collection.embedding)),
        "chunker": collection.chunker,
        "language": collection.language,
        "strict": collection.strict,
    }


def collection_of(row: Mapping[str, Any]) -> Collection:
    """Make a collection of its row."""
    return Collection(
        name=row["name"],
        embedding=embedding_spec(row["embedding"]),
        chunker=row["chunker"],
        language=row["language"],
        strict=row["strict"],
        generation=row["generation"],
        created_at=row["created_at"],
    )


def _not_found(name: str) -> CollectionNotFound:
    return CollectionNotFound(
        f"There is no collection {name!r}: ingest a document into it, or list the collections"
    )
