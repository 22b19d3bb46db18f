"""What every operation is made with: a request, what becomes of it, and pages of a list."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import quote
from uuid import UUID

from ragcore.client.exchange import Item, Request, Response, Steps, Stream
from ragcore.client.retrying import Retries, sent
from ragcore.errors import InvalidInput, RagError
from ragcore.model import Job

T = TypeVar("T")

_PAGE: Final = 100
"""Most entries asked for at once."""

JobId = Job | UUID | str


class Caller:
    """Sends requests as the client is told to."""

    def __init__(
        self,
        *,
        retries: Retries,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.retries = retries
        self.timeout_seconds = timeout_seconds
        self._clock = clock

    def _send(self, request: Request, *, retries: Retries | None = None) -> Steps[Response]:
        return sent(request, retries or self.retries)

    def _told(
        self, request: Request, *, retries: Retries | None = None
    ) -> Steps[Mapping[str, Any]]:
        """Return the object that an answer tells in JSON."""
        answer = yield from self._send(request, retries=retries)
        return object_in(answer.body)

    def _pages(
        self,
        path: str,
        entries: str,
        make: Callable[[Any], T],
        *,
        query: Mapping[str, Any],
        limit: int | None,
        after: object,
    ) -> Stream[T]:
        """Yield the entries of a list in its order, asking for the next page when it is needed."""
        cursor, left = after, limit
        while left is None or left > 0:
            page = _PAGE if left is None else min(left, _PAGE)
            told = yield from self._told(get(path, **query, limit=page, cursor=cursor))
            found = told.get(entries) or []
            for entry in found[:page]:
                yield Item(make(entry))
            left = None if left is None else left - len(found)
            cursor = told.get("next_cursor")
            if cursor is None:
                return


def get(path: str, **query: object) -> Request:
    """Make a request that only looks something up; what is None is left out of the query."""
    return Request("GET", path, query=query_of(query), is_repeatable=True)


def query_of(values: Mapping[str, object]) -> dict[str, str]:
    return {name: _text(value) for name, value in given(values).items()}


def given(values: Mapping[str, T]) -> dict[str, Any]:
    """Leave out what is None: the service then does as it is configured."""
    return {name: value for name, value in values.items() if value is not None}


def segment(text: object) -> str:
    """Return a text as one segment of a path. Raises InvalidInput for one that is empty."""
    name = str(text)
    if name in ("", ".", ".."):
        raise InvalidInput(f"{name!r} names nothing")
    return quote(name, safe="~:")


def id_of(job: JobId) -> UUID:
    """Return the id of a job. Raises InvalidInput for a text that is none."""
    if isinstance(job, Job):
        return job.job_id
    try:
        return job if isinstance(job, UUID) else UUID(job)
    except ValueError as error:
        raise InvalidInput(f"{job!r} is not the id of a job") from error


def json_of(body: bytes | str) -> Any:
    """Return what is written in JSON. Raises RagError when it is something else."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RagError(f"the service's answer is not JSON: {error}") from error


def object_in(body: bytes | str) -> Mapping[str, Any]:
    """Return the object that is written in JSON. Raises RagError when it is something else."""
    value = json_of(body)
    if not isinstance(value, dict):
        raise RagError(f"the service answered {str(value)[:80]!r} where an object belongs")
    return value


def names(one_or_more: str | Iterable[str] | None) -> str | list[str] | None:
    """Return one name, or several as JSON takes them."""
    if one_or_more is None or isinstance(one_or_more, str):
        return one_or_more
    return list(one_or_more)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
