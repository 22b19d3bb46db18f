"""The driver's errors, told in ragcore's words."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import errors

from ragcore.errors import StoreUnavailable

_PASSING: Final = (psycopg.OperationalError, psycopg.InterfaceError)
"""What may be over when the same call is made again: no connection, a full disk, a deadlock."""

_LASTING: Final = (errors.ProgramLimitExceeded,)
"""Operational by their class, yet the same call fails for ever."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise StoreUnavailable, retryable, where the driver reports what may pass.

    Programming errors (a wrong statement, a violated constraint) go through as they are.
    """
    try:
        yield
    except _LASTING:
        raise
    except _PASSING as error:
        raise StoreUnavailable(
            f"PostgreSQL did not do what was asked ({type(error).__name__}: {_first_line(error)});"
            " try again, and see `ragcore doctor` if it lasts"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no details"
