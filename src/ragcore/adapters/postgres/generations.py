"""The tables of a collection inside a transaction: who writes to which, and who waits for whom.

A collection has one table that answers, under its own name, and while it moves to another embedding
model or chunker, and for a while after, others beside it: its generations. Whoever writes chunks
*holds* the collection, so that no generation is begun, exchanged or dropped meanwhile; whoever does
that *takes* it, waits for the writers under way, and lets no new one pass. Both come before every
other lock of the transaction. Who only reads takes no part.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from ragcore.adapters.postgres import sql
from ragcore.model import GenerationState
from ragcore.steps.identity import checked_collection

SQL: Final = sql.load("generations.sql")

Connection = AsyncConnection[Any]

_TABLE: Final = re.compile(r"_(gen|old)\.[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class Table:
    """One generation's table of chunks."""

    collection: str
    generation: int
    name: str
    """In schema vecs, and what its counts go by; `ragcore."postings_<name>"` holds its words."""
    state: GenerationState | Literal["live"]
    embedding: Mapping[str, Any]
    """As it is stored: see layout.embedding_spec."""
    chunker: str
    job_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """All tables of a collection, as they are while it is held or taken."""

    live: Table | None
    """None: there is no such collection."""
    others: Sequence[Table] = ()
    """Those that answered before, the longest retired first, then the one that is filled."""

    @property
    def every(self) -> Sequence[Table]:
        return self.others if self.live is None else (self.live, *self.others)

    @property
    def shadow(self) -> Table | None:
        """The one that is filled, or is filled already, and does not answer yet."""
        return next((table for table in self.others if table.state != "retired"), None)

    @property
    def previous(self) -> Table | None:
        """The one that answered before; of several the last one."""
        retired = [table for table in self.others if table.state == "retired"]
        return retired[-1] if retired else None


async def hold(connection: Connection, collection: str) -> Tables:
    """Return the tables to write to; they stay what they are until the transaction ends."""
    await connection.execute(SQL["hold"], {"collection": collection})
    return await _tables(connection, collection)


async def take(connection: Connection, collection: str) -> Tables:
    """Return the tables, which nobody writes to through ragcore until the transaction ends."""
    await connection.execute(SQL["take"], {"collection": collection})
    return await _tables(connection, collection)


async def seen(connection: Connection, collection: str) -> Tables:
    """Return the tables as they are now, for who only looks."""
    return await _tables(connection, collection)


async def drop(connection: Connection, table: Table) -> None:
    """Drop a generation that does not answer, with all that is recorded of it; once it is taken."""
    assert table.state != "live"  # that goes with its collection only
    wanted = {"collection": table.collection, "generation": table.generation, "table": table.name}
    await connection.execute(SQL["drop_tables"].replace("{table}", checked_table(table.name)))
    await connection.execute(SQL["forget_counts"], wanted)
    await connection.execute(SQL["forget"], wanted)


def checked_table(name: str) -> str:
    """Return the name of a generation's table or of a collection, fit for SQL in double quotes."""
    return name if _TABLE.fullmatch(name) else checked_collection(name)


async def _tables(connection: Connection, collection: str) -> Tables:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["tables"], {"collection": collection})
        found = [
            Table(
                collection=collection,
                generation=row["generation"],
                name=row["table_name"],
                state=row["state"],
                embedding=row["embedding"],
                chunker=row["chunker"],
                job_id=row["job_id"],
            )
            for row in await cursor.fetchall()
        ]
    live = next((table for table in found if table.state == "live"), None)
    return Tables(live, tuple(table for table in found if table.state != "live"))
