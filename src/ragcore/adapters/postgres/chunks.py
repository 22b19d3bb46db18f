"""Chunks in PostgreSQL: written with their document, read by search.

Words (`ragcore."postings_…"`) and counts follow every write by the table's own triggers, in the
writer's transaction: see migrations/0002_chunks.sql. The columns are described in collection.sql.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres import generations, session, sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.generations import Table, Tables, checked_table
from ragcore.adapters.postgres.layout import (
    context_of,
    embedding_spec,
    passage,
    stored_metadata,
)
from ragcore.adapters.postgres.pool import Server, describe_server
from ragcore.adapters.postgres.search import Search
from ragcore.errors import CollectionMismatch, CollectionNotFound
from ragcore.model import Candidates, Chunk, Filter, Passage, Vector, Vectors
from ragcore.ports import IndexedChunks, IndexedVersion
from ragcore.steps.identity import checked_collection
from ragcore.steps.languages import text_search_config

__all__ = ["PostgresChunks", "copy_chunks", "delete_document_chunks", "passage"]

SQL: Final = sql.load("queries.sql")

Connection = AsyncConnection[Any]

_COPIED_TYPES: Final = (
    "text", "vector", "jsonb", "int8", "text", "int4", "int4", "text", "text", "text", "bool",
)  # fmt: skip


# --- inside the caller's transaction -------------------------------------------------------


async def replace_document(
    connection: Connection,
    tables: Tables,
    *,
    document_no: int,
    document_id: str,
    version_id: UUID,
    version: IndexedVersion,
) -> None:
    """Put a version in the place of a document's chunks, in every generation it was made for.

    In the others the document is left out, to be taken over later. The document is locked and the
    collection is held.
    """
    made = {version.generation: IndexedChunks(version.chunks, version.vectors), **version.beside}
    for table in tables.every:
        await place(
            connection,
            table,
            document_no=document_no,
            document_id=document_id,
            version_id=version_id,
            content=made.get(table.generation),
        )


async def place(
    connection: Connection,
    table: Table,
    *,
    document_no: int,
    document_id: str,
    version_id: UUID,
    content: IndexedChunks | None,
) -> None:
    """Replace a document's chunks in one generation, and say there which version it holds."""
    await delete_document_chunks(connection, table.name, [document_no])
    whose = {
        "collection": table.collection,
        "generation": table.generation,
        "document_no": document_no,
    }
    if content is None:
        await connection.execute(generations.SQL["lacking_document"], whose)
        return
    count = await copy_chunks(
        connection,
        table.name,
        document_no=document_no,
        document_id=document_id,
        chunks=content.chunks,
        vectors=content.vectors,
    )
    if table.state != "live":
        held = whose | {"version_id": version_id, "chunks": count}
        await connection.execute(generations.SQL["held_document"], held)


async def delete_documents(
    connection: Connection, tables: Tables, *, document_nos: Sequence[int], ids: Sequence[str]
) -> int:
    """Delete all rows of documents from every generation; return how many answered."""
    answered = 0
    for table in tables.every:
        deleted = await delete_nodes_of(connection, table.name, ids)
        deleted += await delete_document_chunks(connection, table.name, document_nos)
        answered += deleted if table.state == "live" else 0
    return answered


async def delete_document_chunks(
    connection: Connection, table: str, document_nos: Sequence[int]
) -> int:
    """Delete the chunks of documents and their words; return how many chunks there were."""
    query = _of(table, "delete_document_chunks")
    return (await connection.execute(query, {"document_nos": list(document_nos)})).rowcount


async def delete_nodes_of(connection: Connection, table: str, document_ids: Sequence[str]) -> int:
    """Delete what LlamaIndex users added to these documents; return how many rows there were."""
    query = _of(table, "delete_nodes_of")
    named = [Jsonb({"doc_id": document_id}) for document_id in document_ids]
    wanted = {"document_ids": list(document_ids), "named": named}
    return (await connection.execute(query, wanted)).rowcount


async def copy_chunks(
    connection: Connection,
    table: str,
    *,
    document_no: int,
    document_id: str,
    chunks: Sequence[Chunk],
    vectors: Vectors,
) -> int:
    """Add a document's chunks with their vectors and words; return how many there are.

    `table` is the collection's name, or that of another generation's table. Delete the old ones
    first: the ids are the same. Raises CollectionMismatch when the vectors have another dimension
    than the table.
    """
    if not chunks:
        return 0
    try:
        async with (
            connection.cursor() as cursor,
            cursor.copy(_of(table, "copy_chunks")) as copy,
        ):
            copy.set_types(_COPIED_TYPES)
            for chunk, vector in zip(chunks, vectors, strict=True):
                await copy.write_row(_row(chunk, vector, document_no, document_id))
    except errors.DataException as error:
        raise _mismatch(table, vectors.shape[1]) from error
    return len(chunks)


def _row(chunk: Chunk, vector: Vector, document_no: int, document_id: str) -> tuple[Any, ...]:
    return (
        chunk.chunk_id,
        vector,
        Jsonb(stored_metadata(chunk, document_id)),
        document_no,
        document_id,
        chunk.ordinal,
        chunk.tokens,
        chunk.language,
        text_search_config(chunk.language),
        context_of(chunk),
        False,
    )


async def rows_of(search: Search, connection: Connection, server: Server) -> list[DictRow]:
    """Run a search in one round trip, and return its rows for `search.candidates`."""
    settings = session.of_search(server, vector_limit=search.vector_limit)
    cursor = connection.cursor(row_factory=dict_row)
    if settings is None:
        await cursor.execute(*search.statement(), prepare=search.has_one_plan)
        return await cursor.fetchall()
    # Settings and statement leave together, and are, up to the end of the pipeline, one
    # transaction, which is how long the settings hold.
    async with connection.pipeline():
        await connection.execute(*settings)
        await cursor.execute(*search.statement())
    return await cursor.fetchall()


# --- the port ------------------------------------------------------------------------------


class PostgresChunks:
    """`ports.ChunkStore` over a pool."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        *,
        exact_rows: int = 2000,
        postings: int = 30_000,
        instead: Table | None = None,
    ) -> None:
        """Bound the work of a search.

        `instead`: a generation that searches of its collection look into, whatever answers there.

        `exact_rows`: filters that match at most so many chunks are scanned exactly. `postings`:
        so many are read to propose chunks, the rarest words' first; words more frequent than that
        are only looked up. Among 100,000 chunks the ten best of NPL's long questions are then 97 %
        those of the full ranking (benchmarks/hybrid_100k.py).
        """
        self._pool = pool
        self._exact_rows = exact_rows
        self._postings = postings
        self._instead = instead
        self._server: Server | None = None
        self._sizes: dict[str, int] = {}  # chunks of a collection when it was last searched

    async def candidates(
        self,
        collection: str,
        *,
        vector: Vector | None,
        text: str | None,
        filters: Filter | None = None,
        vector_limit: int = 50,
        keyword_limit: int = 50,
        chunk_ids: Sequence[str] | None = None,
    ) -> Candidates:
        """Do what the port says; `chunk_ids` narrows the search to those chunks."""
        search = Search(
            collection=checked_collection(collection),
            table=None if self._instead is None else checked_table(self._instead.name),
            vector=vector,
            text=text,
            filters=filters,
            vector_limit=vector_limit,
            keyword_limit=keyword_limit,
            exact_rows=self._exact_rows,
            postings=self._postings,
            chunk_ids=chunk_ids,
            is_of_many=self._sizes.get(collection, 0) > self._exact_rows,
        )
        found = await self._run(search)
        self._sizes[collection] = found[0]["total_chunks"]
        if search.is_short(found):
            # Dead rows in the vector index, a filter far away from the question, rare words alone:
            # look at every row rather than return too little.
            found = await self._run(search.exhaustive())
        proposed = search.candidates(found)
        if self._instead is None:
            return proposed
        return replace(
            proposed,
            embedding=embedding_spec(self._instead.embedding),
            generation=self._instead.generation,
        )

    async def passages(self, collection: str, chunk_ids: Sequence[str]) -> Sequence[Passage]:
        rows = await self._rows(collection, "passages", {"chunk_ids": list(chunk_ids)})
        return [passage(collection, row) for row in rows]

    async def document_chunks(
        self, collection: str, document_id: str, *, first: int = 0, limit: int | None = None
    ) -> Sequence[Passage]:
        wanted = {"document_id": document_id, "first": first, "limit": limit}
        rows = await self._rows(collection, "document_chunks", wanted)
        return [passage(collection, row) for row in rows]

    async def neighbours(
        self, collection: str, chunk_ids: Sequence[str], *, radius: int = 1
    ) -> Mapping[str, Sequence[Passage]]:
        wanted = {"chunk_ids": list(chunk_ids), "radius": radius}
        found: dict[str, list[Passage]] = {}
        for row in await self._rows(collection, "neighbours", wanted):
            found.setdefault(row["asked"], []).append(passage(collection, row))
        return found

    async def _run(self, search: Search) -> list[DictRow]:
        try:
            async with self._connection(search.collection) as connection:
                return await rows_of(search, connection, await self._described(connection))
        except errors.DataException as error:
            if search.vector is None:
                raise
            raise _mismatch(search.collection, len(search.vector)) from error

    async def _described(self, connection: Connection) -> Server:
        """Return what the server offers, asked once."""
        if self._server is None:
            self._server = await describe_server(connection)
        return self._server

    async def _rows(self, collection: str, name: str, values: Mapping[str, Any]) -> list[DictRow]:
        query = _of(collection, name)
        async with self._connection(collection) as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(query, values)
            return await cursor.fetchall()

    @asynccontextmanager
    async def _connection(self, collection: str) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection:
                try:
                    yield connection
                except errors.UndefinedTable as error:
                    raise CollectionNotFound(
                        f"There is no collection {collection!r}: ingest a document into it, or"
                        " list the collections"
                    ) from error


def _of(table: str, name: str) -> str:
    return SQL[name].replace("{collection}", checked_table(table))


def _mismatch(collection: str, dimension: int) -> CollectionMismatch:
    return CollectionMismatch(
        f"Collection {collection!r} does not take vectors of {dimension!r} dimensions:"
        " configure the embedding model that it was made with, or use another collection"
    )
