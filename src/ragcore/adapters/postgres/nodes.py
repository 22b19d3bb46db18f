"""LlamaIndex nodes in PostgreSQL: added, read and deleted beside the chunks of ingested documents.

A row's words and counts follow by the table's triggers. Locks are taken in one order everywhere:
the catalogue's documents, by their numbers, then the rows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres import catalog, generations, sql
from ragcore.adapters.postgres.chunks import PostgresChunks
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.filters import document_condition, own_condition
from ragcore.adapters.postgres.layout import own_text, passage
from ragcore.errors import CollectionMismatch, CollectionNotFound, InvalidInput, StoreUnavailable
from ragcore.model import Candidates, Filter, Passage, Vector
from ragcore.steps.identity import checked_collection
from ragcore.steps.languages import detect, text_search_config

SQL: Final = sql.load("nodes.sql")

Connection = AsyncConnection[Any]

_COPIED_TYPES: Final = ("text", "vector", "jsonb", "int8", "text", "text", "text", "text")
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One row that carries its own metadata, as a node or a stock client wrote it."""

    node_id: str
    document_id: str | None
    """The node's source document; None for a node without one."""
    text: str
    metadata: Mapping[str, Any]
    """The row's `metadata` column: the node's own metadata beside keys of the layout."""
    vector: Sequence[float] | None = None
    context: str | None = None
    """What is embedded before the text; searched, not shown."""


StoredNode = NodeRow | Passage
"""A node's own row, or a chunk of an ingested document."""


class PostgresNodes:
    """The nodes of one collection over a pool; every method is one transaction."""

    def __init__(
        self,
        pool: AsyncConnectionPool[Any],
        collection: str,
        *,
        chunks: PostgresChunks | None = None,
        prepare: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`prepare` opens the collection, made on first use; without it the table must be there."""
        self.collection = checked_collection(collection)
        self._pool = pool
        self._chunks = chunks or PostgresChunks(pool)
        self._prepare = prepare

    async def add(self, rows: Sequence[NodeRow]) -> None:
        """Store nodes, in place of those with the same ids; readers see the old or the new ones.

        Safe to repeat, and a kill leaves all of them or none. A node whose document is in the
        catalogue goes when that document is ingested again or deleted. Raises CollectionMismatch
        (other dimension), InvalidInput, StoreUnavailable.
        """
        newest = {row.node_id: row for row in rows}
        if not newest:
            return
        vectors = _vectors(list(newest.values()))
        languages = await asyncio.to_thread(_languages, list(newest.values()))
        if self._prepare is not None:
            await self._prepare()
            self._prepare = None
        for attempt in range(_ATTEMPTS):
            try:
                await self._replace(newest, vectors, languages, in_turn=attempt > 0)
            except errors.UniqueViolation:
                continue  # another writer added one of these ids: now it is there to be replaced
            return
        raise StoreUnavailable(
            f"other writers keep adding the same nodes to {self.collection!r}: try again"
        )

    async def delete_document(self, document_id: str) -> int:
        """Remove every row of a document, and the document from the catalogue; return the rows.

        Its running jobs are cancelled; its files go with the next sweep. Safe to repeat.
        """
        async with self._transaction() as connection:
            tables = await generations.hold(connection, self.collection)
            numbers = await self._lock(connection, [document_id], ())
            wanted = {
                "document_nos": list(numbers.values()),
                "document_id": document_id,
                "named": Jsonb({"doc_id": document_id}),
            }
            deleted = await connection.execute(self._sql("delete_rows_of"), wanted)
            for table in tables.others:
                await connection.execute(_of(table, "delete_rows_of"), wanted)
            await _forget(connection, list(numbers.values()))
        return deleted.rowcount

    async def delete(self, node_ids: Sequence[str] | None, filters: Filter | None) -> int:
        """Remove the nodes of these ids that match; return how many. None leaves that open.

        A document of the catalogue that loses chunks so is rebuilt when it is ingested again.
        """
        condition, values = self._condition(node_ids, filters)
        async with self._transaction() as connection:
            await generations.hold(connection, self.collection)
            ingested = await self._ingested(connection, condition, values)
            await self._lock(connection, (), ingested.values())
            await self._mark_altered(connection, ingested.values())
            deleted = await connection.execute(self._sql("delete_nodes", condition), values)
        return deleted.rowcount

    async def clear(self) -> int:
        """Remove all nodes, and all documents of the collection; return how many nodes."""
        async with self._transaction() as connection:
            tables = await generations.hold(connection, self.collection)
            found = await _rows(connection, self._sql("lock_all_documents"), {})
            deleted = await connection.execute(self._sql("delete_nodes", "true"))
            for table in tables.others:
                await connection.execute(_of(table, "delete_nodes").replace("{condition}", "true"))
            await _forget(connection, [row["document_no"] for row in found])
        return deleted.rowcount

    async def get(
        self, node_ids: Sequence[str] | None, filters: Filter | None = None
    ) -> list[StoredNode]:
        """Return the nodes of these ids that match, in order of documents, not of the ids."""
        condition, values = self._condition(node_ids, filters)
        async with self._transaction() as connection:
            rows = await _rows(connection, self._sql("nodes", condition), values)
        return [_stored(self.collection, row) for row in rows]

    async def vectors(self, node_ids: Sequence[str]) -> Mapping[str, Vector]:
        """Return the vector of each node of these ids that is there."""
        condition, values = self._condition(node_ids, None)
        async with self._transaction() as connection:
            rows = await _rows(connection, self._sql("vectors", condition), values)
        return {row["id"]: np.asarray(row["vec"], np.float32) for row in rows}

    async def candidates(
        self,
        *,
        vector: Vector | None,
        text: str | None,
        filters: Filter | None,
        node_ids: Sequence[str] | None,
        vector_limit: int,
        keyword_limit: int,
    ) -> Candidates:
        """Do what `ChunkStore.candidates` does, among the nodes of these ids where given."""
        return await self._chunks.candidates(
            self.collection,
            vector=vector,
            text=text,
            filters=filters,
            vector_limit=vector_limit,
            keyword_limit=keyword_limit,
            chunk_ids=node_ids,
        )

    # --- parts of a transaction ------------------------------------------------------------

    async def _replace(
        self,
        rows: Mapping[str, NodeRow],
        vectors: Sequence[Vector],
        languages: Sequence[str | None],
        *,
        in_turn: bool,
    ) -> None:
        """Delete and copy. `in_turn` waits for writers that met a conflict too, for no others."""
        condition, values = self._condition(list(rows), None)
        sources = [row.document_id for row in rows.values() if row.document_id is not None]
        async with self._transaction() as connection:
            await generations.hold(connection, self.collection)
            if in_turn:
                await connection.execute(self._sql("lock_writers"))
            replaced = await self._ingested(connection, condition, values)
            numbers = await self._lock(connection, sources, replaced.values())
            await self._mark_altered(connection, replaced.values())
            await connection.execute(self._sql("delete_nodes", condition), values)
            async with (
                connection.cursor() as cursor,
                cursor.copy(self._sql("copy_nodes")) as copy,
            ):
                copy.set_types(_COPIED_TYPES)
                for row, vector, language in zip(rows.values(), vectors, languages, strict=True):
                    document_no = replaced.get(row.node_id, numbers.get(row.document_id or ""))
                    await copy.write_row(
                        (
                            row.node_id,
                            vector,
                            Jsonb(row.metadata),
                            document_no,
                            row.document_id,
                            language,
                            text_search_config(language),
                            row.context,
                        )
                    )

    async def _ingested(
        self, connection: Connection, condition: str, values: Mapping[str, Any]
    ) -> Mapping[str, int]:
        """Return the number of the document in the catalogue for each row that has one."""
        found = await _rows(connection, self._sql("ingested_among", condition), values)
        return {row["id"]: row["document_no"] for row in found}

    async def _lock(
        self, connection: Connection, document_ids: Iterable[str], document_nos: Iterable[int]
    ) -> Mapping[str, int]:
        """Lock those of the documents that are in the catalogue; return their numbers by id."""
        wanted = {"document_ids": list(document_ids), "document_nos": list(document_nos)}
        found = await _rows(connection, self._sql("lock_documents"), wanted)
        return {row["document_id"]: row["document_no"] for row in found}

    async def _mark_altered(self, connection: Connection, document_nos: Iterable[int]) -> None:
        await connection.execute(SQL["mark_altered"], {"document_nos": list(document_nos)})

    def _condition(
        self, node_ids: Sequence[str] | None, filters: Filter | None
    ) -> tuple[str, Mapping[str, Any]]:
        """Return the condition on a row `t`, and its parameters."""
        parts, values = [], {}
        if node_ids is not None:
            parts.append("t.id = ANY(%(node_ids)s)")
            values["node_ids"] = list(node_ids)
        if filters is not None:
            of_document, document_values = document_condition(filters)
            of_row, row_values = own_condition(filters)
            matches = self._sql("matches").replace("{of_document}", of_document)
            parts.append(matches.replace("{of_row}", of_row))
            values |= {**document_values, **row_values}
        return " AND ".join(parts) or "true", values

    def _sql(self, name: str, condition: str = "true") -> str:
        return SQL[name].replace("{collection}", self.collection).replace("{condition}", condition)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                try:
                    yield connection
                except errors.UndefinedTable as error:
                    raise CollectionNotFound(
                        f"there is no collection {self.collection!r}: ingest a document into it, "
                        "or add a node through `rag.vector_store()`"
                    ) from error
                except errors.DataException as error:
                    raise CollectionMismatch(
                        f"collection {self.collection!r} does not take these vectors ({error}): "
                        "use the embedding model that it was made with"
                    ) from error


def _of(table: generations.Table, name: str) -> str:
    return SQL[name].replace("{collection}", generations.checked_table(table.name))


async def _forget(connection: Connection, document_nos: Sequence[int]) -> None:
    """Take documents whose rows are gone out of the catalogue."""
    wanted = {"document_nos": list(document_nos)}
    for name in ("cancel_jobs_of", "delete_versions", "delete_documents"):
        await connection.execute(catalog.SQL[name], wanted)


async def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row, binary=True) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


def _stored(collection: str, row: Mapping[str, Any]) -> StoredNode:
    if not row["own_metadata"]:
        return passage(collection, row)
    return NodeRow(
        node_id=row["id"],
        document_id=row["document_id"] or None,
        text=own_text(row["stored"]),
        metadata=row["stored"],
    )


def _vectors(rows: Sequence[NodeRow]) -> list[Vector]:
    vectors = [np.asarray(row.vector, np.float32) for row in rows]
    for row, vector in zip(rows, vectors, strict=True):
        if vector.ndim != 1 or not np.isfinite(vector).all():
            raise InvalidInput(f"node {row.node_id!r} has no usable vector: embed it again")
    return vectors


def _languages(rows: Sequence[NodeRow]) -> list[str | None]:
    return [detect(row.text, hint=_hint(row)) for row in rows]


def _hint(row: NodeRow) -> str | None:
    language = row.metadata.get("language")
    return language if isinstance(language, str) and len(language) == 2 else None
