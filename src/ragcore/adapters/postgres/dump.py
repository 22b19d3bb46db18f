"""The content of a database, written down in one snapshot and put back in one transaction.

By COPY in its text format: it needs no programs of PostgreSQL's, no superuser, and goes from any
supported version to any other. What can be made again is left out: postings and their counts, which
triggers keep, and the cache of embeddings.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

from psycopg import AsyncConnection, IsolationLevel, errors
from psycopg import sql as composing
from psycopg.rows import dict_row

from ragcore.adapters.postgres import generations, sql
from ragcore.adapters.postgres.collections import create_tables, drop_tables
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.layout import embedding_spec
from ragcore.adapters.postgres.migrate import migrate
from ragcore.adapters.postgres.pool import checked_url
from ragcore.errors import Conflict, InvalidInput
from ragcore.model import Collection

SQL: Final = sql.load("dump.sql")

# In an order that every reference allows.
_CATALOGUE: Final = (
    "ragcore.collections", "ragcore.documents", "ragcore.versions", "ragcore.jobs",
    "ragcore.sources", "ragcore.job_objects",
    "ragcore.callbacks", "ragcore.idempotency_keys", "ragcore.api_keys", "ragcore.audit",
)  # fmt: skip
_CHUNKS: Final = "vecs."

Connection = AsyncConnection[Any]


class Snapshot:
    """A database as it was at one moment, while it goes on changing."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def migrations(self) -> Mapping[str, str]:
        """Return the names of what made the tables, each with its checksum."""
        cursor = await self._connection.execute(SQL["migrations"])
        return dict(await cursor.fetchall())

    async def tables(self) -> Sequence[tuple[str, Sequence[str]]]:
        """Return the tables with their columns, in the order they are to be loaded."""
        cursor = await self._connection.execute("SELECT name FROM ragcore.collections ORDER BY 1")
        names = [*_CATALOGUE, *(f"{_CHUNKS}{name}" for (name,) in await cursor.fetchall())]
        return [(name, await _columns(self._connection, name)) for name in names]

    async def rows(self, table: str, columns: Sequence[str]) -> AsyncIterator[bytes]:
        """Yield a table's rows, a few at a time, each ending with a newline."""
        async with (
            self._connection.cursor() as cursor,
            cursor.copy(_copy("COPY {}({}) TO STDOUT", table, columns)) as copy,
        ):
            async for rows in copy:
                yield bytes(rows)

    async def versions(self) -> Sequence[tuple[UUID, str, str]]:
        """Return the versions whose files are needed, with their collection and document."""
        cursor = await self._connection.execute(SQL["versions_kept"])
        return await cursor.fetchall()


class Loading:
    """A database that is filled; nothing of it is seen before it is whole."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._collections: dict[str, Collection] = {}
        self._loaded: dict[str, Sequence[str]] = {}
        self._indexes: list[str] = []

    async def load(self, table: str, columns: Sequence[str], rows: bytes) -> None:
        """Add rows, whole ones, to a table. Raises InvalidInput for what does not fit in."""
        if table not in self._loaded:
            await self._prepare(table, columns)
        try:
            async with (
                self._connection.cursor() as cursor,
                cursor.copy(_copy("COPY {}({}) FROM STDIN", table, columns)) as copy,
            ):
                await copy.write(rows)
        except (errors.DataError, errors.IntegrityError) as error:
            raise InvalidInput(
                f"rows of {table!r} in the backup can't be loaded: {error}"
            ) from error

    async def finish(self) -> None:
        """Build what is quicker to build of the whole, and go on counting where it ended."""
        for definition in self._indexes:
            await self._connection.execute(definition.encode())
        for table in self._loaded:
            await self._count_on(table)
        await self._connection.execute(SQL["let_go"])

    @property
    def tables(self) -> Sequence[str]:
        """Those that rows were loaded into."""
        return list(self._loaded)

    async def _prepare(self, table: str, columns: Sequence[str]) -> None:
        if table.startswith(_CHUNKS):
            await self._make_collection(table.removeprefix(_CHUNKS))
        elif table not in _CATALOGUE:
            raise InvalidInput(f"the backup holds a table that is none of ours: {table[:100]!r}")
        if set(columns) != set(await _columns(self._connection, table)):
            raise InvalidInput(f"the backup's {table!r} has other columns than this release's")
        self._loaded[table] = columns

    async def _make_collection(self, name: str) -> None:
        if not self._collections:
            self._collections = await self._recorded_collections()
        if name not in self._collections:
            raise InvalidInput(f"the backup holds chunks of an unknown collection {name[:100]!r}")
        await create_tables(self._connection, self._collections.pop(name))
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute(SQL["vector_index"], {"table": _quoted(f"{_CHUNKS}{name}")})
        for index in await cursor.fetchall():
            # Built of the whole it takes a part of the time that it takes row by row.
            self._indexes.append(index["definition"])
            await self._connection.execute(f"DROP INDEX {index['name']}".encode())

    async def _recorded_collections(self) -> dict[str, Collection]:
        cursor = self._connection.cursor(row_factory=dict_row)
        await cursor.execute("SELECT * FROM ragcore.collections")
        return {
            row["name"]: Collection(row["name"], embedding_spec(row["embedding"]), row["chunker"])
            for row in await cursor.fetchall()
        }

    async def make_empty_collections(self) -> None:
        """Make the tables of collections that no chunk was loaded into."""
        names = await self._recorded_collections()
        for name in names.keys() - {table.removeprefix(_CHUNKS) for table in self._loaded}:
            await create_tables(self._connection, names[name])

    async def _count_on(self, table: str) -> None:
        cursor = await self._connection.execute(SQL["identities"], {"table": _quoted(table)})
        for (column,) in await cursor.fetchall():
            statement = composing.SQL(
                "SELECT setval(pg_get_serial_sequence({name}, {column}), max({field})) FROM {table}"
            ).format(
                name=composing.Literal(_quoted(table)),
                column=composing.Literal(column),
                field=composing.Identifier(column),
                table=_identifier(table),
            )
            await self._connection.execute(statement)


class PostgresDump:
    """Takes snapshots of a database, and fills an empty one."""

    def __init__(self, database_url: str) -> None:
        self._url = checked_url(database_url)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Snapshot]:
        """Look at the database as it is now, for as long as the block lasts.

        Writers are not held up. Raises StoreUnavailable.
        """
        with translated():
            async with await AsyncConnection.connect(self._url) as connection:
                await connection.set_isolation_level(IsolationLevel.REPEATABLE_READ)
                await connection.set_read_only(True)
                async with connection.transaction():
                    await _speak_plainly(connection)
                    yield Snapshot(connection)

    @asynccontextmanager
    async def loading(self, migrations: Mapping[str, str]) -> AsyncIterator[Loading]:
        """Fill an empty database, migrated first: all of it when the block ends well, or nothing.

        A kill at any line leaves it empty. Raises Conflict when it holds anything but collections
        without documents, InvalidInput when other migrations made what is to be loaded.
        """
        await migrate(self._url)
        with translated():
            async with await AsyncConnection.connect(self._url) as connection:
                async with connection.transaction():
                    await _speak_plainly(connection)
                    await _require_same_tables(connection, migrations)
                    await _require_empty(connection)
                    loading = Loading(connection)
                    yield loading
                    await loading.make_empty_collections()
                    await loading.finish()
                await connection.set_autocommit(True)
                for table in loading.tables:  # plans and scans of an index alone rest on it
                    statement = composing.SQL("VACUUM (ANALYZE) {}").format(_identifier(table))
                    await connection.execute(statement)


async def _speak_plainly(connection: Connection) -> None:
    """Have values written in one way, whatever the server, the role or the machine is set to."""
    await connection.execute(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC';"
        " SET LOCAL client_encoding = 'UTF8'; SET LOCAL extra_float_digits = 1;"
        " SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0"
    )


async def _require_same_tables(connection: Connection, migrations: Mapping[str, str]) -> None:
    cursor = await connection.execute(SQL["migrations"])
    ours = dict(await cursor.fetchall())
    if ours != migrations:
        newest = max(migrations, default="none")
        raise InvalidInput(
            f"the backup was made by another release of ragcore (its tables are those of {newest!r}"
            f", here they are those of {max(ours)!r}): restore it with that release, then update"
        )


async def _require_empty(connection: Connection) -> None:
    # From here on, whoever else uses this database waits with its changes until it is filled.
    await connection.execute(
        "LOCK TABLE ragcore.collections, ragcore.documents, ragcore.jobs, ragcore.api_keys,"
        " ragcore.audit IN EXCLUSIVE MODE"
    )
    cursor = await connection.execute(SQL["is_used"])
    row = await cursor.fetchone()
    if row is not None and row[0]:
        raise Conflict(
            "this database is in use: a backup is restored into an empty one (for the embedded "
            "one, into a new data directory)"
        )
    cursor = await connection.execute("SELECT name FROM ragcore.collections")
    for (name,) in await cursor.fetchall():
        for table in (await generations.take(connection, name)).others:
            await generations.drop(connection, table)
        await drop_tables(connection, name)
    await connection.execute("DELETE FROM ragcore.chunk_counts; DELETE FROM ragcore.collections")


async def _columns(connection: Connection, table: str) -> Sequence[str]:
    cursor = await connection.execute(SQL["columns"], {"table": _quoted(table)})
    return [name for (name,) in await cursor.fetchall()]


def _copy(statement: str, table: str, columns: Sequence[str]) -> composing.Composed:
    names = composing.SQL(", ").join(map(composing.Identifier, columns))
    return composing.SQL(statement).format(_identifier(table), names)


def _identifier(table: str) -> composing.Identifier:
    schema, _, name = table.partition(".")
    return composing.Identifier(schema, name)


def _quoted(table: str) -> str:
    """Return a table's name as `regclass` reads it."""
    schema, _, name = table.partition(".")
    escaped = name.replace('"', '""')
    return f'"{schema}"."{escaped}"'
