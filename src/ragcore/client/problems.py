"""Answers that are errors → the errors of the library, so that callers handle one tree."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from ragcore.client.exchange import NoAnswer, Response
from ragcore.errors import (
    AccessDenied,
    Conflict,
    DocumentTooLarge,
    InvalidInput,
    NotFound,
    RagError,
    RateLimited,
    Rejected,
    StorageFull,
    Unauthenticated,
    Unavailable,
    UnsupportedFormat,
)

_BY_STATUS: Final[Mapping[int, type[RagError]]] = {
    401: Unauthenticated,
    403: AccessDenied,
    404: NotFound,
    409: Conflict,
    413: DocumentTooLarge,
    415: UnsupportedFormat,
    422: InvalidInput,
    429: RateLimited,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: StorageFull,
}
"""For answers without a code that is known here: of a proxy, or of a newer service."""

_EXCERPT: Final = 200


def error_of(heard: Response | NoAnswer) -> RagError:
    """Return the error that an answer tells of, or that there was none."""
    if isinstance(heard, NoAnswer):
        return unanswered(heard)
    told = _object(heard.body)
    error = _error(
        code=str(told.get("code") or ""),
        detail=str(told.get("detail") or _excerpt(heard)),
        status=heard.status,
        retry_after_seconds=retry_after_seconds(heard.headers),
    )
    request_id = told.get("request_id") or heard.headers.get("x-request-id")
    error.request_id = str(request_id) if request_id else None
    return error


def error_of_event(told: Mapping[str, Any]) -> RagError:
    """Return the error that the event `error` of a stream tells of."""
    status = told.get("status")
    error = _error(
        code=str(told.get("code") or ""),
        detail=str(told.get("detail") or "the service gave no reason"),
        status=status if isinstance(status, int) else 500,
        retry_after_seconds=None,
    )
    request_id = told.get("request_id")
    error.request_id = str(request_id) if request_id else None
    return error


def unanswered(heard: NoAnswer) -> Unavailable:
    """Return the error for a service that was not reached, or that fell silent."""
    reason = str(heard.error) or type(heard.error).__name__
    if not heard.was_sent:
        error = Unavailable(f"{heard.whom} can't be reached: {reason}")
    elif heard.is_timeout:
        error = Unavailable(f"{heard.whom} did not answer in time: {reason}")
    else:
        error = Unavailable(f"the connection to {heard.whom} broke: {reason}")
    error.__cause__ = heard.error
    return error


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the service asks to wait, None where it does not say."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _error(*, code: str, detail: str, status: int, retry_after_seconds: float | None) -> RagError:
    kind = _BY_CODE.get(code)
    if kind is None:
        kind = _BY_STATUS.get(status, Rejected if 300 <= status < 500 else RagError)
        detail = f"{detail} ({code or f'status {status}'})"
    if issubclass(kind, RateLimited):
        return kind(detail, retry_after_seconds=retry_after_seconds or 1.0)
    return kind(detail)


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _excerpt(heard: Response) -> str:
    """Say what was answered instead of a problem: most often a proxy's page."""
    if 300 <= heard.status < 400:
        return f"the address leads on to {heard.headers.get('location', '?')!r}; use that one"
    text = " ".join(heard.body.decode(errors="replace").split())
    return text[:_EXCERPT] or "the answer is empty"


def _family(kind: type[RagError]) -> Iterator[type[RagError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


_BY_CODE: Final[Mapping[str, type[RagError]]] = {kind.code: kind for kind in _family(RagError)}
"""Of two with the same code the more specific one, which comes later."""
