"""Where a command finds the documents: here, or behind the address of a service."""

import os
from typing import TYPE_CHECKING, Final

from ragcore.cli import session

if TYPE_CHECKING:
    from ragcore.cli.library import Library

URL: Final = "RAGCORE_URL"

COMMANDS: Final = frozenset(
    {
        "ingest",
        "search",
        "ask",
        "docs",
        "collections",
        "reindex",
        "jobs",
        "keys",
        "audit",
        "refresh",
    }
)
"""Those that go to a service; all others are about this machine."""


def library() -> "Library":
    """Return the service's library where `--url` or RAGCORE_URL names one, else this machine's.

    Opens nothing.
    """
    if url := os.environ.get(URL):
        from ragcore.cli.remote import RemoteLibrary

        session.log_to_stderr(os.environ.get("RAGCORE_LOG_LEVEL") or "warning")
        return RemoteLibrary(url)
    from ragcore.cli.local import LocalLibrary

    return LocalLibrary()
