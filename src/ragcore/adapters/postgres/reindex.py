"""Generations of collections in PostgreSQL: filled beside the one that answers, then exchanged.

Why a switch is a renaming, and what waits for what meanwhile: docs/decisions/0008-reindex.md.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import errors
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from ragcore.adapters.postgres import chunks, generations, sql
from ragcore.adapters.postgres.catalog import fenced, job_of
from ragcore.adapters.postgres.collections import collection_of, create_tables, stored_embedding
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.generations import Table, Tables, checked_table
from ragcore.adapters.postgres.layout import embedding_spec
from ragcore.adapters.postgres.pool import Connection, Pool
from ragcore.errors import (
    Busy,
    CollectionMismatch,
    CollectionNotFound,
    Conflict,
    GenerationNotFound,
    LeaseLost,
    ReindexUnderWay,
    RollbackLoses,
)
from ragcore.model import Collection, Generation, Job, JobFailure, Passage, Vectors
from ragcore.ports import (
    Fingerprints,
    IndexedChunks,
    Lack,
    PendingDocument,
    PendingNode,
    ReindexLease,
    ReindexOrder,
)
from ragcore.steps.fingerprints import require_same
from ragcore.steps.identity import checked_collection

SQL: Final = sql.load("reindex.sql")

_TRIES: Final = 60
_PAUSE_SECONDS: Final = (0.02, 0.2)
"""Between two tries for the tables: readers that came meanwhile are let through."""


class PostgresGenerations:
    """`ports.Generations` over a pool; every method is one transaction."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # --- jobs ------------------------------------------------------------------------------

    async def start(
        self, order: ReindexOrder, *, submitted_by: str, request_id: str | None = None
    ) -> Job:
        checked_collection(order.collection)
        async with self._transaction() as connection:
            await connection.execute(SQL["wait_little"])
            tables = await generations.take(connection, order.collection)
            await self._make_room(connection, order, tables)
            values = {
                "job_id": uuid4(),
                "collection": order.collection,
                "arguments": Jsonb(_arguments(order)),
                "model": order.embedding.model,
                "chunker": order.chunker,
                "submitted_by": submitted_by,
                "request_id": request_id,
            }
            row = await _one(connection, SQL["insert_job"], values)
            assert row is not None
            await _add(connection, order, row["job_id"])
        return job_of(row)

    async def _make_room(self, connection: Connection, order: ReindexOrder, tables: Tables) -> None:
        """See that a generation of that order may be added, and drop what a dead job has left."""
        live = _live(order.collection, tables)
        if _is_as_ordered(live, order):
            raise Conflict(
                f"collection {order.collection!r} has the embedding model"
                f" {order.embedding.model!r} and the chunker {order.chunker!r} already"
            )
        if (shadow := tables.shadow) is None:
            return
        if shadow.state == "ready" or await _is_alive(connection, shadow.job_id):
            raise ReindexUnderWay(
                f"collection {order.collection!r} is being reindexed, or has been and waits to be"
                " switched: wait for that, switch, or discard it"
            )
        await generations.drop(connection, shadow)

    async def claim(
        self, *, owner: str, lease: timedelta, job_id: UUID | None = None
    ) -> ReindexLease | None:
        values = {"owner": owner, "lease": lease, "job_id": job_id}
        async with self._transaction() as connection:
            row = await _one(connection, SQL["claim"], values)
        if row is None:
            return None
        return ReindexLease(
            job=job_of(row),
            token=row["lease_token"],
            crashes=row["crashes"],
            request_id=row["request_id"],
            order=_order(row["arguments"]),
        )

    async def begin(self, lease: ReindexLease) -> Generation:
        order = lease.order
        async with self._transaction() as connection:
            tables = await generations.take(connection, order.collection)
            _live(order.collection, tables)
            await fenced(connection, SQL["hold_job"], lease, {})
            shadow = tables.shadow
            if shadow is None or shadow.job_id != lease.job.job_id:
                await self._make_room(connection, order, tables)
                await _add(connection, order, lease.job.job_id)
            else:
                await connection.execute(SQL["try_skipped_again"], _whose(shadow))
            return await _shadow(connection, order.collection)

    async def of(self, collection: str, *, counted: bool = True) -> Sequence[Generation]:
        query = SQL["generations" if counted else "uncounted_generations"]
        async with self._transaction() as connection:
            found = await _all(connection, query, {"collection": collection})
        return [_generation(row) for row in found]

    # --- filling ---------------------------------------------------------------------------

    async def pending(
        self, generation: Generation, *, after: str | None, limit: int
    ) -> Sequence[PendingDocument]:
        wanted = {
            "collection": generation.collection,
            "generation": generation.generation,
            "after": after,
            "limit": limit,
        }
        async with self._transaction() as connection:
            rows = await _all(connection, SQL["pending"], wanted)
        return [PendingDocument(**row) for row in rows]

    async def fill(
        self,
        lease: ReindexLease,
        generation: Generation,
        document: PendingDocument,
        content: IndexedChunks,
    ) -> bool:
        wanted = {"document_no": document.document_no}
        async with self._transaction() as connection:
            table = await self._held(connection, generation)
            await connection.execute(SQL["lock_document"], wanted)
            row = await _one(connection, SQL["version_in_place"], wanted)
            if row is None or row["version_id"] != document.version_id:
                return False
            await chunks.place(
                connection,
                table,
                document_no=document.document_no,
                document_id=document.document_id,
                version_id=document.version_id,
                content=content,
            )
            await fenced(connection, SQL["still_ours"], lease, {})
        return True

    async def skip(
        self,
        lease: ReindexLease,
        generation: Generation,
        document: PendingDocument,
        failure: JobFailure,
    ) -> None:
        async with self._transaction() as connection:
            table = await self._held(connection, generation)
            await connection.execute(SQL["lock_document"], {"document_no": document.document_no})
            values = _whose(table) | {
                "document_no": document.document_no,
                "version_id": document.version_id,
                "failure": Jsonb(asdict(failure)),
            }
            await connection.execute(SQL["skip"], values)
            await fenced(connection, SQL["still_ours"], lease, {})

    async def skipped(
        self, generation: Generation, *, limit: int = 100
    ) -> Sequence[tuple[str, JobFailure]]:
        wanted = {
            "collection": generation.collection,
            "generation": generation.generation,
            "limit": limit,
        }
        async with self._transaction() as connection:
            rows = await _all(connection, SQL["skipped"], wanted)
        return [(row["document_id"], JobFailure(**row["failure"])) for row in rows]

    async def pending_nodes(self, generation: Generation, *, limit: int) -> Sequence[PendingNode]:
        async with self._transaction() as connection:
            table = await self._held(connection, generation)
            await connection.execute(_of(table, "remove_gone_nodes"))
            rows = await _all(connection, _of(table, "pending_nodes"), {"limit": limit})
        return [PendingNode(row["id"], row["text"], row["mark"]) for row in rows]

    async def fill_nodes(
        self,
        lease: ReindexLease,
        generation: Generation,
        nodes: Sequence[PendingNode],
        vectors: Vectors | None,
    ) -> None:
        read = {
            "ids": [node.node_id for node in nodes],
            "marks": [node.mark for node in nodes],
        }
        async with self._transaction() as connection:
            table = await self._held(connection, generation)
            same = {row["id"] for row in await _all(connection, _of(table, "lock_nodes"), read)}
            await connection.execute(_of(table, "delete_nodes"), {"ids": sorted(same)})
            copied = [
                {"id": node.node_id, "vector": None if vectors is None else vectors[place]}
                for place, node in enumerate(nodes)
                if node.node_id in same
            ]
            async with connection.cursor() as cursor:
                await cursor.executemany(_of(table, "copy_nodes"), copied)
            await fenced(connection, SQL["still_ours"], lease, {})

    async def _held(self, connection: Connection, generation: Generation) -> Table:
        """Return the table to fill. Raises LeaseLost when it is gone, or answers already."""
        tables = await generations.hold(connection, generation.collection)
        for table in tables.others:
            if table.generation == generation.generation:
                return table
        raise LeaseLost(f"the reindex of collection {generation.collection!r} was given up")

    async def note(
        self,
        lease: ReindexLease,
        *,
        counts: Mapping[str, int],
        result: Mapping[str, Any],
        went_on: bool,
    ) -> None:
        values = {
            "counts": Jsonb(dict(counts)),
            "result": Jsonb(dict(result)),
            "went_on": went_on,
        }
        async with self._transaction() as connection:
            await fenced(connection, SQL["note"], lease, values)

    # --- switching -------------------------------------------------------------------------

    async def finish(self, lease: ReindexLease, generation: Generation) -> None:
        async with self._transaction() as connection:
            tables = await generations.take(connection, generation.collection)
            table = _found(tables, generation)
            await fenced(connection, SQL["finish"], lease, {"state": "ready"})
            await connection.execute(SQL["set_state"], _whose(table) | {"state": "ready"})

    async def switch(
        self, lease: ReindexLease, generation: Generation, fingerprints: Fingerprints
    ) -> Lack:
        async with self._transaction() as connection:
            tables = await generations.take(connection, generation.collection)
            table = _found(tables, generation)
            await fenced(connection, SQL["hold_job"], lease, {})
            nodes = await _nodes(connection, table)
            lack = await _lack(connection, table)
            is_accepted = lease.order.accept_loss and lack.documents == lack.failed
            if lack.nodes or (lack.documents and not is_accepted):
                return lack
            details = {"generation": table.generation, "lacking": lack.documents}
            values = _record("collection.switch", "reindex", table.collection, details)
            await connection.execute(SQL["record"], values)
            await fenced(connection, SQL["finish"], lease, {"state": "switched"})
            await _exchange(connection, tables, table, fingerprints, nodes=nodes)
        return lack

    async def switch_later(
        self,
        collection: str,
        *,
        accept_loss: bool,
        submitted_by: str,
        request_id: str | None = None,
    ) -> Job:
        async with self._transaction() as connection:
            await connection.execute(SQL["wait_little"])
            tables = await generations.take(connection, collection)
            live, shadow = _live(collection, tables), tables.shadow
            if shadow is None or shadow.state != "ready":
                raise GenerationNotFound(
                    f"collection {live.collection!r} has no filled generation to switch to: "
                    "start a reindex, or wait for the one that runs"
                )
            changed = {"switch": "auto", "accept_loss": accept_loss}
            details = {"generation": shadow.generation, "accept_loss": accept_loss}
            values = _record(
                "collection.switch", submitted_by, collection, details, request_id=request_id
            )
            await connection.execute(SQL["record"], values)
            wanted = {"job_id": shadow.job_id, "arguments": Jsonb(changed)}
            row = await _one(connection, SQL["queue_again"], wanted)
            if row is None:
                if await _is_alive(connection, shadow.job_id):
                    raise ReindexUnderWay(f"collection {collection!r} is being switched already")
                row = await _new_job(connection, shadow, changed, submitted_by, request_id)
        return job_of(row)

    async def roll_back(
        self,
        collection: str,
        fingerprints: Callable[[Generation], Fingerprints],
        *,
        accept_loss: bool,
        submitted_by: str,
        request_id: str | None = None,
    ) -> Collection:
        async with self._transaction() as connection:
            await connection.execute(SQL["wait_little"])
            tables = await generations.take(connection, collection)
            _live(collection, tables)
            if (table := tables.previous) is None:
                raise GenerationNotFound(
                    f"nothing is kept of what collection {collection!r} answered from before"
                )
            if tables.shadow is not None:
                raise ReindexUnderWay(
                    f"collection {collection!r} is being reindexed: cancel or discard that first"
                )
            nodes = await _nodes(connection, table)
            lack = await _lack(connection, table)
            if lack and not accept_loss:
                raise RollbackLoses(
                    f"{lack.documents} documents and {lack.nodes} nodes of collection"
                    f" {collection!r} are not in generation {table.generation} as they are now,"
                    " and would not be found: go back with `accept_loss`, then ingest them again"
                )
            details = {"generation": table.generation, **asdict(lack)}
            values = _record(
                "collection.rollback", submitted_by, collection, details, request_id=request_id
            )
            await connection.execute(SQL["record"], values)
            await _exchange(
                connection, tables, table, fingerprints(_as_generation(table)), nodes=nodes
            )
            row = await _one(connection, SQL["collection"], {"collection": collection})
        assert row is not None
        return collection_of(row)

    async def discard(
        self, collection: str, *, submitted_by: str, request_id: str | None = None
    ) -> None:
        async with self._transaction() as connection:
            await connection.execute(SQL["wait_little"])
            tables = await generations.take(connection, collection)
            _live(collection, tables)
            if (shadow := tables.shadow) is None:
                raise GenerationNotFound(f"collection {collection!r} is not being reindexed")
            details = {"generation": shadow.generation}
            values = _record(
                "collection.discard", submitted_by, collection, details, request_id=request_id
            )
            await connection.execute(SQL["record"], values)
            await connection.execute(SQL["cancel_job"], {"job_id": shadow.job_id})
            await generations.drop(connection, shadow)

    async def drop_outdated(self, *, kept: timedelta) -> int:
        async with self._transaction() as connection:
            found = await _all(connection, SQL["outdated"], {"kept": kept})
        dropped = 0
        for row in found:
            async with self._transaction() as connection:
                await connection.execute(SQL["wait_little"])
                tables = await generations.take(connection, row["collection"])
                still = {
                    (again["collection"], again["generation"])
                    for again in await _all(connection, SQL["outdated"], {"kept": kept})
                }
                for table in tables.others:
                    if (table.collection, table.generation) in still:
                        await generations.drop(connection, table)
                        dropped += 1
        return dropped

    async def sample(self, collection: str, *, limit: int) -> Sequence[Passage]:
        query = SQL["sample"].replace("{live}", checked_collection(collection))
        async with self._transaction() as connection:
            ids = [row["id"] for row in await _all(connection, query, {"limit": limit})]
        return await chunks.PostgresChunks(self._pool).passages(collection, ids)

    def chunks(self, generation: Generation) -> chunks.PostgresChunks:
        table = Table(
            collection=generation.collection,
            generation=generation.generation,
            name=_table_name(generation.generation),
            state=generation.state,
            embedding=stored_embedding(generation.embedding),
            chunker=generation.chunker,
        )
        return chunks.PostgresChunks(self._pool, instead=table)

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                yield connection


# --- the parts of a transaction ------------------------------------------------------------


async def _add(connection: Connection, order: ReindexOrder, job_id: UUID) -> None:
    """Make an empty generation of a collection that is taken."""
    number = await _draw_number(connection)
    name = _table_name(number)
    values = {
        "collection": order.collection,
        "generation": number,
        "table": name,
        "embedding": Jsonb(stored_embedding(order.embedding)),
        "chunker": order.chunker,
        "job_id": job_id,
    }
    await connection.execute(SQL["insert_generation"], values)
    await create_tables(connection, Collection(name, order.embedding, order.chunker))


async def _draw_number(connection: Connection) -> int:
    await connection.execute(SQL["number_in_turn"])
    row = await _one(connection, SQL["draw_number"], {})
    assert row is not None
    number: int = row["number"]
    return number


def _table_name(generation: int) -> str:
    """Name the table of a generation that does not answer, and was made by a reindex."""
    return f"_gen.{generation}"


async def _shadow(connection: Connection, collection: str) -> Generation:
    rows = await _all(connection, SQL["generations"], {"collection": collection})
    (found,) = (_generation(row) for row in rows if row["state"] != "retired")
    return found


async def _is_alive(connection: Connection, job_id: UUID | None) -> bool:
    row = await _one(connection, SQL["job"], {"job_id": job_id})
    return row is not None and row["status"] in ("queued", "running")


async def _new_job(
    connection: Connection,
    shadow: Table,
    changed: Mapping[str, Any],
    submitted_by: str,
    request_id: str | None,
) -> DictRow:
    order = ReindexOrder(
        shadow.collection, embedding_spec(shadow.embedding), shadow.chunker, **changed
    )
    values = {
        "job_id": uuid4(),
        "collection": shadow.collection,
        "arguments": Jsonb(_arguments(order)),
        "submitted_by": submitted_by,
        "request_id": request_id,
    }
    row = await _one(connection, SQL["insert_switch"], values)
    assert row is not None
    await connection.execute(SQL["set_job"], _whose(shadow) | {"job_id": row["job_id"]})
    return row


async def _lack(connection: Connection, table: Table) -> Lack:
    documents = await _one(connection, SQL["count_lack"], _whose(table))
    nodes = await _one(connection, _of(table, "count_nodes"), {})
    assert documents is not None and nodes is not None  # aggregates always answer
    return Lack(documents["documents"], documents["failed"], nodes["nodes"])


async def _nodes(connection: Connection, table: Table) -> str:
    """Return what differs once anybody has written nodes to what answers."""
    row = await _one(connection, _of(table, "state_of_nodes"), {})
    assert row is not None
    state: str = row["state"]
    return state


async def _exchange(
    connection: Connection, tables: Tables, table: Table, fingerprints: Fingerprints, *, nodes: str
) -> None:
    """Have `table` answer and keep what answered until now; the collection is taken.

    What takes its time comes before the tables are locked: searches go on until the last moment.
    So may stock clients, which know no generations: when they have written since `nodes` was read,
    what was counted is no longer true. Raises Busy.
    """
    assert tables.live is not None
    before, after = tables.live, table
    # The first generation of every collection has the same number.
    is_first = before.generation == 1
    parked = f"_old.{after.generation}" if is_first else _table_name(before.generation)
    await connection.execute(
        SQL["retire"], {"collection": before.collection, "parked": checked_table(parked)}
    )
    await connection.execute(SQL["keep_documents"], _whose(before))
    await connection.execute(SQL["leave_behind_versions"], _whose(after))
    await connection.execute(SQL["take_over_versions"], _whose(after) | asdict(fingerprints))
    await connection.execute(SQL["forget_documents"], _whose(after))
    # The first one is taken for what is configured; one that was gone back to is meant as it is.
    number = await _draw_number(connection) if after.generation == 1 else after.generation
    await _lock(connection, after)
    if await _nodes(connection, after) != nodes:
        raise Busy(f"somebody has just written nodes to collection {after.collection!r}: once more")
    exchange = _of(after, "exchange").replace("{parked}", parked)
    await connection.execute(exchange.replace("{number}", str(number)))


async def _lock(connection: Connection, table: Table) -> None:
    """Get both pairs of tables for this transaction alone, without making a reader fail."""
    await connection.execute(_of(table, "wait_for_vacuum"))
    for _ in range(_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(_of(table, "lock_tables"))
        except errors.LockNotAvailable:
            await asyncio.sleep(random.uniform(*_PAUSE_SECONDS))  # noqa: S311
        else:
            return
    raise Busy(
        f"something has been reading collection {table.collection!r} all the time (a backup,"
        " perhaps): it is switched when that is over"
    )


async def _one(connection: Connection, query: str, values: Mapping[str, Any]) -> DictRow | None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchone()


async def _all(connection: Connection, query: str, values: Mapping[str, Any]) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


def _of(table: Table, name: str) -> str:
    """Return a query about a generation's table and the one that answers."""
    mark = SQL["mark"]
    return (
        SQL[name]
        .replace("{mark}", mark.replace("{row}", "l"))
        .replace("{other_mark}", mark.replace("{row}", "s"))
        .replace("{live}", checked_collection(table.collection))
        .replace("{table}", checked_table(table.name))
    )


# --- rows to values ------------------------------------------------------------------------


def _live(collection: str, tables: Tables) -> Table:
    if tables.live is None:
        raise CollectionNotFound(f"there is no collection {collection!r}")
    return tables.live


def _found(tables: Tables, generation: Generation) -> Table:
    for table in tables.others:
        if table.generation == generation.generation:
            return table
    raise LeaseLost(f"the reindex of collection {generation.collection!r} was given up")


def _is_as_ordered(live: Table, order: ReindexOrder) -> bool:
    now = Collection(live.collection, embedding_spec(live.embedding), live.chunker)
    try:
        require_same(now, embedding=order.embedding, chunker=order.chunker)
    except CollectionMismatch:
        return False
    return True


def _whose(table: Table) -> dict[str, Any]:
    return {"collection": table.collection, "generation": table.generation}


def _record(
    action: str,
    submitted_by: str,
    collection: str,
    details: Mapping[str, Any],
    *,
    request_id: str | None = None,
) -> Mapping[str, Any]:
    return {
        "action": action,
        "submitted_by": submitted_by,
        "collection": collection,
        "target": collection,
        "request_id": request_id,
        "details": Jsonb(dict(details)),
    }


def _arguments(order: ReindexOrder) -> dict[str, Any]:
    return {**asdict(order), "embedding": stored_embedding(order.embedding)}


def _order(arguments: Mapping[str, Any]) -> ReindexOrder:
    return ReindexOrder(
        **{
            **arguments,
            "embedding": embedding_spec(arguments["embedding"]),
            "questions": tuple(arguments["questions"]),
        }
    )


def _generation(row: Mapping[str, Any]) -> Generation:
    return Generation(
        collection=row["collection"],
        generation=row["generation"],
        state=row["state"],
        embedding=embedding_spec(row["embedding"]),
        chunker=row["chunker"],
        job_id=row["job_id"],
        documents=row["documents"],
        missing=row["in_place"] - row["documents"],
        created_at=row["created_at"],
        retired_at=row["retired_at"],
    )


def _as_generation(table: Table) -> Generation:
    assert table.state != "live"
    return Generation(
        collection=table.collection,
        generation=table.generation,
        state=table.state,
        embedding=embedding_spec(table.embedding),
        chunker=table.chunker,
        job_id=table.job_id,
    )
