"""Bringing a database up to date: plain SQL files, in order, once each."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from psycopg import AsyncConnection, errors, sql

from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import checked_url, describe_server, require_supported
from ragcore.errors import UnsupportedServer

Connection = AsyncConnection[Any]

_LOCK: Final = 0x72616763  # any constant of our own: migrations of one database take turns

_SCHEMAS: Final = ("ragcore", "vecs")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of `migrations/`: never edited once it was released."""

    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations() -> list[Migration]:
    """Return every migration of this release, in the order they are applied."""
    folder = files("ragcore.adapters.postgres").joinpath("migrations")
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".sql")), key=lambda f: f.name)
    return [Migration(file.name, file.read_text(encoding="utf-8")) for file in found]


async def migrate(database_url: str) -> None:
    """Create or update ragcore's tables. Safe to repeat, and from several processes at once.

    One transaction under an advisory lock: a kill at any line leaves the database as it was. Needs
    no superuser where the extension `vector` is already there. Raises NotConfigured,
    UnsupportedServer, StoreUnavailable.
    """
    with translated():
        async with (
            await AsyncConnection.connect(checked_url(database_url)) as connection,
            connection.transaction(),
        ):
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            await _provide_extension(connection)
            for schema in _SCHEMAS:
                await _provide_schema(connection, schema)
            await _apply(connection, migrations())


async def _provide_extension(connection: Connection) -> None:
    server = await describe_server(connection)
    require_supported(server)
    if server.pgvector is not None:
        return
    try:
        # Supabase keeps extensions in a schema of their own; elsewhere they go where they like.
        if await _schema_exists(connection, "extensions"):
            await connection.execute("CREATE EXTENSION vector WITH SCHEMA extensions")
        else:
            await connection.execute("CREATE EXTENSION vector")
    except errors.InsufficientPrivilege as error:
        raise UnsupportedServer(
            f"This role may not create the extension `vector` in {connection.info.dbname!r}:"
            " run `CREATE EXTENSION vector` there as an administrator, then try again"
        ) from error
    except (errors.UndefinedFile, errors.FeatureNotSupported) as error:
        raise UnsupportedServer(
            "pgvector is not installed on this PostgreSQL server: install it (0.8 or later is"
            " best), then try again"
        ) from error
    require_supported(await describe_server(connection))


async def _provide_schema(connection: Connection, name: str) -> None:
    # IF NOT EXISTS would ask for the right to create schemas even when there is nothing to do.
    if not await _schema_exists(connection, name):
        await connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))


async def _schema_exists(connection: Connection, name: str) -> bool:
    cursor = await connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,))
    return await cursor.fetchone() is not None


async def _apply(connection: Connection, released: list[Migration]) -> None:
    applied = await _applied(connection)
    known = {migration.name for migration in released}
    if unknown := sorted(applied.keys() - known):
        raise UnsupportedServer(
            f"This database was migrated by a newer ragcore ({unknown[-1]!r} is not known here):"
            " update ragcore"
        )
    for migration in released:
        checksum = applied.get(migration.name)
        if checksum is None:
            await connection.execute(migration.text.encode())
            await connection.execute(
                "INSERT INTO ragcore.migrations (name, checksum) VALUES (%s, %s)",
                (migration.name, migration.checksum),
            )
        elif checksum != migration.checksum:
            raise UnsupportedServer(
                f"{migration.name!r} is not the file that was applied to this database: install"
                " a released ragcore, or start from a new database"
            )


async def _applied(connection: Connection) -> dict[str, str]:
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS ragcore.migrations ("
        " name text PRIMARY KEY, checksum text NOT NULL,"
        " applied_at timestamptz NOT NULL DEFAULT now())"
    )
    cursor = await connection.execute("SELECT name, checksum FROM ragcore.migrations")
    return dict(await cursor.fetchall())
