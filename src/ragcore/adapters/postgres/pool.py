"""A pool of PostgreSQL connections that read and write vectors in binary."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary

from pgvector.psycopg.vector import register_vector_info
from psycopg import AsyncConnection, ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.types import TypeInfo
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool
from pydantic_core import from_json

from ragcore.adapters.postgres import session
from ragcore.adapters.postgres.errors import translated
from ragcore.errors import NotConfigured, UnsupportedServer

Connection = AsyncConnection[Any]
Pool = AsyncConnectionPool[Connection]

LEAST_SERVER: Final = 15
LEAST_PGVECTOR: Final = (0, 7)
ITERATIVE_PGVECTOR: Final = (0, 8)
"""From here on an index scan goes on until a filter has let enough rows through."""


@dataclass(frozen=True, slots=True)
class Server:
    """What a database offers."""

    version: int
    """Major version of PostgreSQL."""
    pgvector: tuple[int, ...] | None
    """Version of the extension, None where it is not created."""
    schema: str | None
    """Where the extension lives: `public`, or `extensions` on Supabase."""
    keeps_sessions: bool = False
    """Whether a connection talks to one server process throughout: no pooler stands between that
    could give its next transaction to another one."""

    @property
    def scans_iteratively(self) -> bool:
        return self.pgvector is not None and self.pgvector >= ITERATIVE_PGVECTOR


@asynccontextmanager
async def open_pool(database_url: str, *, size: int) -> AsyncIterator[Pool]:
    """Open at most `size` connections to a migrated database, and close them at the end.

    Safe behind a transaction pooler: only without one are statements prepared and settings made
    for the session. Raises NotConfigured, UnsupportedServer, or StoreUnavailable when nobody
    answers.
    """
    with translated():
        server, vector = await _look_at(checked_url(database_url))

    async def configure(connection: Connection) -> None:
        connection.prepare_threshold = _ON_REQUEST if server.keeps_sessions else None
        if server.keeps_sessions:
            await connection.execute(*session.of_session(server))
        register_vector_info(connection, vector)
        set_json_loads(from_json, connection)  # of numbers without a limit, like json.loads

    pool: Pool = AsyncConnectionPool(
        database_url,
        min_size=min(2, size),
        max_size=size,
        open=False,
        configure=configure,
        check=_check_when_idle,
        kwargs={"autocommit": True},  # a single statement needs no BEGIN and COMMIT around it
        timeout=30.0,
        name="ragcore",
    )
    async with pool:
        yield pool


_ON_REQUEST: Final = 2**31 - 1
"""After so many runs the driver would prepare a statement by itself: it does when asked to."""

_SURE_SECONDS: Final = 1.0
"""A connection that worked so recently is not asked again whether it does."""

_worked_at: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()


async def _check_when_idle(connection: Connection) -> None:
    """Ask a connection that has rested whether it still works: it costs a round trip.

    One that broke within the second fails its next statement with StoreUnavailable, which may be
    repeated, and is replaced.
    """
    now = monotonic()
    if now - _worked_at.get(connection, -inf) > _SURE_SECONDS:
        await AsyncConnectionPool.check_connection(connection)
        _worked_at[connection] = now


def checked_url(database_url: str) -> str:
    """Return an address that can be read. Raises NotConfigured, which holds nothing of it."""
    try:
        conninfo_to_dict(database_url)
    except ProgrammingError:
        # The driver's complaint quotes the address, its password included.
        raise NotConfigured(
            "RAGCORE_DATABASE_URL is no address of a PostgreSQL server: write "
            "postgresql://user:password@host:5432/database, with special characters "
            "percent-encoded"
        ) from None
    return database_url


async def describe_server(connection: Connection) -> Server:
    """Return the versions of PostgreSQL and pgvector behind a connection.

    A pooler can't tell a client the process that will serve it, so it makes a number up when the
    connection starts; without one the number is that of the process that answers.
    """
    cursor = await connection.execute(
        "SELECT pg_backend_pid(), extversion, nspname FROM (VALUES (1)) one (row)"
        " LEFT JOIN (pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace)"
        " ON extname = 'vector'"
    )
    row = await cursor.fetchone()
    assert row is not None
    process_id, extension, schema = row
    return Server(
        version=connection.info.server_version // 10000,
        pgvector=_numbers(extension) if extension else None,
        schema=schema,
        keeps_sessions=process_id == connection.info.backend_pid,
    )


def require_supported(server: Server) -> None:
    """Raise UnsupportedServer when PostgreSQL or pgvector is too old, naming what is needed."""
    if server.version < LEAST_SERVER:
        raise UnsupportedServer(
            f"PostgreSQL {server.version} is too old: use {LEAST_SERVER} or later"
        )
    if server.pgvector is not None and server.pgvector < LEAST_PGVECTOR:
        raise UnsupportedServer(
            f"pgvector {_dotted(server.pgvector)} is too old: install"
            f" {_dotted(LEAST_PGVECTOR)} or later and run `ALTER EXTENSION vector UPDATE`"
        )


async def _look_at(database_url: str) -> tuple[Server, TypeInfo]:
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        server = await describe_server(connection)
        require_supported(server)
        if server.schema is None:
            raise UnsupportedServer(
                "The extension `vector` is not in this database: run ragcore's migrations, or"
                " `CREATE EXTENSION vector` as an administrator"
            )
        info = await TypeInfo.fetch(connection, f'"{server.schema}".vector')
        assert info is not None  # the extension's own type, in the extension's own schema
        return server, info


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
