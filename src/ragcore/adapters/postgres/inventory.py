"""What PostgreSQL holds, compared with itself and with the blob store; and put right."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg import errors
from psycopg.rows import DictRow, dict_row

from ragcore.adapters.postgres import sql
from ragcore.adapters.postgres.cache import hashes_in
from ragcore.adapters.postgres.catalog import enqueue, hold_collections, source_of
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.generations import checked_table
from ragcore.adapters.postgres.pool import Connection, Pool
from ragcore.errors import CollectionNotFound
from ragcore.model import Drift, DriftKind, Job, PageMarks
from ragcore.ports import ListedFiles, StandingVersion, Submission

SQL: Final = sql.load("inventory.sql")

_AT_ONCE: Final = 1000
_EXAMPLES: Final = 5


class PostgresInventory:
    """`ports.Inventory` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    @asynccontextmanager
    async def files(self) -> AsyncIterator[ListedFiles]:
        async with self._transaction() as connection:
            await connection.execute(SQL["create_listed"])
            yield _Listed(connection)

    async def tables(self) -> Sequence[str]:
        async with self._transaction() as connection:
            return [row["name"] for row in await _rows(connection, SQL["tables"], {})]

    async def orphaned_chunks(self, table: str, *, repair: bool) -> Drift:
        return await self._examined("orphaned_chunks", table, "delete_orphaned_chunks", repair)

    async def orphaned_words(self, table: str, *, repair: bool) -> Drift:
        return await self._examined("orphaned_words", table, "delete_orphaned_words", repair)

    async def missing_words(self, table: str, *, repair: bool) -> Drift:
        return await self._examined("missing_words", table, "write_missing_words", repair)

    async def miscounted(self, table: str, *, repair: bool) -> Drift:
        wanted = {"table": table}
        try:
            async with self._transaction() as connection:
                if repair:
                    await connection.execute(SQL["take_counting_turn"], wanted)
                found = await _rows(connection, _of(table, "miscounted"), wanted)
                repaired = 0
                if repair and found:
                    added = await connection.execute(_of(table, "add_missing_counts"), wanted)
                    repaired = added.rowcount
        except errors.UndefinedTable:
            return Drift("miscounted_collections", 0)
        told = [
            f"{table}, {row['language']}, {row['config']}: "
            f"{int(row['chunks']):+d} chunks, {int(row['words']):+d} words"
            for row in found[:_EXAMPLES]
        ]
        return Drift("miscounted_collections", len(found), min(repaired, len(found)), told)

    async def miscounted_documents(
        self, *, limit: int, after: UUID | None
    ) -> Sequence[StandingVersion]:
        while True:
            page = await self._page({"limit": _AT_ONCE, "after": after})
            if not page:
                return ()
            wrong = await self._miscounted_among(page)
            if wrong:
                return wrong[:limit]
            after = page[-1].version_id

    async def stranded_versions(self, *, repair: bool) -> Drift:
        async with self._transaction() as connection:
            found = await _rows(connection, SQL["stranded_versions"], {"examples": _EXAMPLES})
            repaired = 0
            if repair and found:
                repaired = (await connection.execute(SQL["fail_stranded_versions"])).rowcount
        return _drift("stranded_versions", found, repaired)

    async def unused_vectors(self, *, older_than_seconds: float, repair: bool) -> Drift:
        wanted = {"older_than": older_than_seconds}
        async with self._transaction() as connection:
            await connection.execute(SQL["create_used"])
            for table in await self.tables():
                async with aclosing(hashes_in(self._pool, table)) as pages:
                    async for hashes in pages:
                        await connection.execute(SQL["add_used"], {"hashes": list(hashes)})
            (counted,) = await _rows(connection, SQL["unused_vectors"], wanted)
            repaired = 0
            if repair:
                deleted = await connection.execute(SQL["forget_unused_vectors"], wanted)
                repaired = deleted.rowcount
        return Drift("unused_vectors", max(counted["found"], repaired), repaired)

    async def queue_again(self, submission: Submission, *, instead_of: UUID) -> Job | None:
        wanted = {"collection": submission.collection, "document_id": submission.document_id}
        async with self._transaction() as connection:
            try:
                await hold_collections(connection, {submission.collection})
            except CollectionNotFound:
                return None
            locked = await _rows(connection, SQL["lock_document"], wanted)
            if not locked or locked[0]["version_id"] != instead_of:
                return None
            if locked[0]["last_sequence"] != locked[0]["sequence"]:
                return None  # something newer is on its way, and puts right what is wrong
            return await enqueue(connection, submission, job_id=uuid4())

    async def bucket_prefixes(self) -> Sequence[tuple[str, str]]:
        async with self._transaction() as connection:
            rows = await _rows(connection, SQL["bucket_prefixes"], {})
        return [(row["collection"], row["bucket"]) for row in rows]

    async def _examined(self, kind: DriftKind, table: str, repair_by: str, repair: bool) -> Drift:
        """Count what a query finds, and have a statement put it right, some rows at a time."""
        try:
            async with self._transaction() as connection:
                found = await _rows(connection, _of(table, kind), {"examples": _EXAMPLES})
            repaired = 0
            while repair and found:
                async with self._transaction() as connection:
                    done = await connection.execute(_of(table, repair_by), {"limit": _AT_ONCE})
                if not done.rowcount:
                    break
                repaired += done.rowcount
        except errors.UndefinedTable:  # dropped or exchanged just now
            return Drift(kind, 0)
        return _drift(kind, found, repaired, place=f"{table}/")

    async def _page(self, wanted: Mapping[str, Any]) -> Sequence[StandingVersion]:
        async with self._transaction() as connection:
            return [
                _standing(row) for row in await _rows(connection, SQL["current_versions"], wanted)
            ]

    async def _miscounted_among(self, page: Sequence[StandingVersion]) -> Sequence[StandingVersion]:
        by_collection: dict[str, list[UUID]] = defaultdict(list)
        for each in page:
            by_collection[each.collection].append(each.version_id)
        wrong: set[UUID] = set()
        for collection, version_ids in by_collection.items():
            try:
                async with self._transaction() as connection:
                    query = _of(collection, "count_chunks")
                    rows = await _rows(connection, query, {"version_ids": version_ids})
            except errors.UndefinedTable:
                continue  # deleted just now
            wrong |= {row["version_id"] for row in rows}
        return [each for each in page if each.version_id in wrong]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                yield connection


class _Listed:
    """`ports.ListedFiles` in a temporary table, which goes with the transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, files: Sequence[tuple[UUID, str, float]]) -> None:
        version_ids, names, ages = zip(*files, strict=True) if files else ((), (), ())
        values = {"version_ids": list(version_ids), "names": list(names), "ages": list(ages)}
        await self._connection.execute(SQL["add_listed"], values)

    async def orphaned(
        self, *, older_than_seconds: float, limit: int, after: UUID | None
    ) -> Sequence[UUID]:
        wanted = {"older_than": older_than_seconds, "limit": limit, "after": after}
        rows = await _rows(self._connection, _standing_in("orphaned_files"), wanted)
        return [row["version_id"] for row in rows]

    async def lacking(
        self, *, names: Sequence[str], limit: int, after: UUID | None
    ) -> Sequence[StandingVersion]:
        wanted = {"names": list(names), "limit": limit, "after": after}
        rows = await _rows(self._connection, _standing_in("lacking"), wanted)
        return [_standing(row) for row in rows]


def _drift(kind: DriftKind, found: Sequence[DictRow], repaired: int, place: str = "") -> Drift:
    """Make a drift of rows that have an example and how many there are in all."""
    count = max(found[0]["found"], repaired) if found else 0
    return Drift(kind, count, repaired, [f"{place}{row['example']}" for row in found])


def _of(table: str, name: str) -> str:
    query = SQL[name]
    for part in ("wordless", "miscounted"):
        query = query.replace(f"{{{part}}}", SQL[part])
    return query.replace("{table}", checked_table(table))


def _standing_in(name: str) -> str:
    return SQL[name].replace("{standing}", SQL["standing"])


async def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


def _standing(row: Mapping[str, Any]) -> StandingVersion:
    return StandingVersion(
        collection=row["collection"],
        document_id=row["document_id"],
        version_id=row["version_id"],
        is_in_place=bool(row["is_in_place"]),
        sha256=bytes(row["sha256"]),
        filename=row["filename"],
        mime_type=row["mime_type"],
        title=row["title"],
        uri=row["uri"],
        source=source_of(row),
        marks=None if row["marks"] is None else PageMarks(**row["marks"]),
    )
