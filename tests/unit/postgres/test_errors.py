import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from ragcore.adapters.postgres.errors import translated
from ragcore.errors import DocumentNotFound, StoreUnavailable


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("connection refused\nIs the server running?"),
        psycopg.InterfaceError("the connection is closed"),
        errors.AdminShutdown("terminating connection"),
        errors.DeadlockDetected("deadlock detected"),
        errors.SerializationFailure("could not serialize"),
        errors.DiskFull("no space left"),
        PoolTimeout("couldn't get a connection"),
    ],
)
def test_what_may_pass_is_told_as_unavailable(error: Exception) -> None:
    with pytest.raises(StoreUnavailable) as caught, translated():
        raise error
    assert caught.value.retryable
    assert caught.value.__cause__ is error
    assert str(error).splitlines()[0] in str(caught.value)
    assert "Is the server running" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        errors.UndefinedTable("no such table"),
        errors.UniqueViolation("duplicate key"),
        errors.ProgramLimitExceeded("string is too long for tsvector"),
        DocumentNotFound("no document 'd'"),
        ValueError("ours"),
    ],
)
def test_mistakes_go_through_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, translated():
        raise error
    assert caught.value is error
