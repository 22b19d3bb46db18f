"""How PostgreSQL is to search: set for one transaction, or for as long as a session lasts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from ragcore.adapters.postgres import sql

if TYPE_CHECKING:
    from ragcore.adapters.postgres.pool import Server

SQL: Final = sql.load("session.sql")

LEAST_EF_SEARCH: Final = 64
"""How many neighbours the vector index keeps in view: of the ten nearest among 100,000 it then
finds .998."""
_MOST_EF_SEARCH: Final = 1000  # pgvector takes no more

_Statement = tuple[str, Mapping[str, Any]]


def of_session(server: "Server") -> _Statement:
    """Return what a connection that keeps its session is told once."""
    return _all(server, ef_search=LEAST_EF_SEARCH, is_local=False)


def of_search(server: "Server", *, vector_limit: int) -> _Statement | None:
    """Return what goes before a search that wants so many neighbours, in its transaction.

    None where the session says it all.
    """
    ef_search = min(_MOST_EF_SEARCH, max(LEAST_EF_SEARCH, 2 * vector_limit))
    if not server.keeps_sessions:
        return _all(server, ef_search=ef_search, is_local=True)
    if ef_search == LEAST_EF_SEARCH:
        return None
    return SQL["wider_view"], {"ef_search": str(ef_search)}


def _all(server: "Server", *, ef_search: int, is_local: bool) -> _Statement:
    assert server.schema is not None  # no pool opens without the extension
    statement = (
        SQL["settings"]
        .replace("{iterating}", SQL["iterating"] if server.scans_iteratively else "")
        .replace("{vectors}", _quoted(server.schema))
    )
    return statement, {"ef_search": str(ef_search), "is_local": is_local}


def _quoted(schema: str) -> str:
    """Return the name of a schema as an identifier inside a string of SQL."""
    identifier = '"' + schema.replace('"', '""') + '"'
    return identifier.replace("'", "''").replace("%", "%%")
