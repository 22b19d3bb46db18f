"""The audit trail in PostgreSQL."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, Final

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from ragcore.adapters.postgres import sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import Pool
from ragcore.model import AuditEntry

SQL: Final = sql.load("audit.sql")


class PostgresAudit:
    """`ports.Audit` over a pool."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        values = [
            {
                "action": entry.action,
                "actor": entry.actor,
                "collection": entry.collection,
                "target": entry.target,
                "request_id": entry.request_id,
                "details": Jsonb(dict(entry.details)),
            }
            for entry in entries
        ]
        with translated():
            async with self._pool.connection() as connection, connection.cursor() as cursor:
                await cursor.executemany(SQL["record"], values)

    async def entries(
        self,
        *,
        collections: Set[str] | None = None,
        action: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> Sequence[AuditEntry]:
        values = {
            "collections": None if collections is None else sorted(collections),
            "action": action,
            "limit": limit,
            "before": before,
        }
        with translated():
            async with (
                self._pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                await cursor.execute(SQL["entries"], values)
                return [_entry(row) for row in await cursor.fetchall()]


def _entry(row: Mapping[str, Any]) -> AuditEntry:
    return AuditEntry(
        action=row["action"],
        actor=row["actor"],
        collection=row["collection"],
        target=row["target"],
        request_id=row["request_id"],
        details=row["details"],
        at=row["at"],
        entry_no=row["entry_no"],
    )
