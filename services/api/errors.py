"""Errors → `application/problem+json`, or under `/v1` what OpenAI's clients understand.

The one table from class to status.
"""

import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from ragcore.errors import (
    AccessDenied,
    Conflict,
    ConversionError,
    DocumentTooLarge,
    ForbiddenUrl,
    GenerationSwitched,
    InvalidInput,
    MissingExtra,
    NotFound,
    RagError,
    RateLimited,
    Rejected,
    StorageFull,
    TracingOff,
    Unauthenticated,
    Unavailable,
    UnfitModel,
    Unsupported,
    UnsupportedFormat,
)
from ragcore_api.schemas.values import OpenAIError, OpenAIErrorOut, Problem

STATUS: dict[type[RagError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Rejected: HTTPStatus.BAD_REQUEST,
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnsupportedFormat: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    DocumentTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ForbiddenUrl: HTTPStatus.FORBIDDEN,
    UnfitModel: HTTPStatus.UNPROCESSABLE_ENTITY,
    ConversionError: HTTPStatus.UNPROCESSABLE_ENTITY,
    Conflict: HTTPStatus.CONFLICT,
    AccessDenied: HTTPStatus.FORBIDDEN,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    Unsupported: HTTPStatus.INTERNAL_SERVER_ERROR,
    MissingExtra: HTTPStatus.NOT_IMPLEMENTED,
    TracingOff: HTTPStatus.CONFLICT,
    GenerationSwitched: HTTPStatus.SERVICE_UNAVAILABLE,  # for the blink of a switch
    RagError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""The nearest ancestor of an error decides."""

HTTP_CODES: dict[HTTPStatus, str] = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "body_too_large",
}
"""Codes of what the framework refuses by itself; listed in docs/reference/http.md."""

MEDIA_TYPE = "application/problem+json"
OPENAI_PREFIX: Final = "/v1/"
"""Of paths that are called by OpenAI's clients, which want errors in OpenAI's shape."""
_OPENAI_TYPES: Final = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}
INTERNAL: Final = "internal error; the log of the service has the details"
_RETRY_AFTER_SECONDS = 5

log = logging.getLogger(__name__)


def status_of(kind: type[RagError]) -> HTTPStatus:
    """Return the status of an error class: its own, or its nearest ancestor's."""
    return next(STATUS[ancestor] for ancestor in kind.__mro__ if ancestor in STATUS)


def problems(*kinds: type[RagError]) -> dict[int | str, dict[str, Any]]:
    """Document, for OpenAPI, the errors that a route may answer with."""
    documented: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        status = status_of(kind)
        codes = documented.get(status.value, {}).get("description", status.phrase + ":")
        documented[status.value] = {
            "description": f"{codes} `{kind.code}`",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return documented


def install(app: FastAPI) -> None:
    """Have every error answered in the same shape."""
    app.add_exception_handler(RagError, _answer_expected)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_bug)


def answer_of(request: Request, error: RagError) -> JSONResponse:
    """Make the answer to an expected error, with the headers that its status asks for."""
    status = status_of(type(error))
    wait = None
    if error.retryable:
        wait = getattr(error, "retry_after_seconds", None) or _RETRY_AFTER_SECONDS
    answer = problem(request, status, code=error.code, detail=str(error), retry_after_seconds=wait)
    if isinstance(error, Unauthenticated):
        answer.headers["WWW-Authenticate"] = "Bearer"
    return answer


def problem(
    request: Request,
    status: HTTPStatus,
    *,
    code: str,
    detail: str,
    retry_after_seconds: float | None = None,
    headers: Mapping[str, str] | None = None,
    param: str | None = None,
) -> JSONResponse:
    """Make an answer in the shape that the path's callers want.

    Details of a 5xx are for the log, except for what the caller may wait for, and what is not
    installed. `param` is the parameter at fault, which only OpenAI's shape has a place for.
    """
    if is_secret(status) and retry_after_seconds is None:
        detail = INTERNAL
    retry = {}
    if retry_after_seconds is not None:
        retry = {"Retry-After": str(max(1, ceil(retry_after_seconds)))}
    content: OpenAIErrorOut | Problem
    if request.url.path.startswith(OPENAI_PREFIX):
        content = openai_content(status, code=code, detail=detail, param=param)
    else:
        content = problem_content(request, status, code=code, detail=detail)
    return JSONResponse(
        content.model_dump(),
        status_code=status.value,
        media_type=MEDIA_TYPE if isinstance(content, Problem) else "application/json",
        headers={**(headers or {}), **retry},
    )


def is_secret(status: HTTPStatus) -> bool:
    """Whether what happened is for the log alone, as far as its status tells."""
    return status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED


def openai_content(
    status: HTTPStatus, *, code: str, detail: str, param: str | None = None
) -> OpenAIErrorOut:
    """Fill the shape that errors have under `/v1`."""
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    return OpenAIErrorOut(
        error=OpenAIError(
            message=_storable(detail),
            type=_OPENAI_TYPES.get(status, kind),
            param=None if param is None else _storable(param),
            code=code,
        )
    )


def problem_content(request: Request, status: HTTPStatus, *, code: str, detail: str) -> Problem:
    """Fill the shape that every error has."""
    return Problem(
        type=f"urn:ragcore:problem:{code}",
        title=status.phrase,
        status=status.value,
        detail=_storable(detail),
        code=code,
        request_id=getattr(request.state, "request_id", ""),
    )


def _storable(text: str) -> str:
    """Replace halves of surrogate pairs, which a request may hold and UTF-8 can't."""
    return text.encode(errors="replace").decode()


async def _answer_expected(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RagError)
    if status_of(type(error)) >= HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("%s %s: %s: %s", request.method, request.url.path, error.code, error)
    return answer_of(request, error)


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    complaints = [
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}" for each in error.errors()
    ]
    return problem(
        request,
        HTTPStatus.UNPROCESSABLE_ENTITY,
        code=InvalidInput.code,
        detail="; ".join(complaints),
        param=_parameter_at(error.errors()[0]["loc"]),
    )


def _parameter_at(place: tuple[str | int, ...]) -> str | None:
    """Name a parameter by where it stands: without `body`, which all of OpenAI's are in."""
    return ".".join(str(part) for part in place[1:]) or None


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    """What the framework refuses by itself: an unknown path, a wrong method, a broken body."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.BAD_REQUEST:  # it could not read the body: to us as wrong as any other
        return problem(
            request,
            HTTPStatus.UNPROCESSABLE_ENTITY,
            code=InvalidInput.code,
            detail=f"body: {error.detail}",
        )
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods_of(request))
    return problem(
        request,
        status,
        code=HTTP_CODES.get(status, status.name.lower()),
        detail=str(error.detail),
        headers=headers,
    )


def _methods_of(request: Request) -> Iterable[str]:
    """Yield the methods that some route of this path takes: the framework names those of one."""
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            yield method


async def _answer_bug(request: Request, error: Exception) -> JSONResponse:
    log.exception("%s %s failed", request.method, request.url.path, exc_info=error)
    answer = problem(request, HTTPStatus.INTERNAL_SERVER_ERROR, code=RagError.code, detail="")
    # Answered outside all middleware, the one that gives every other answer its id included.
    answer.headers["X-Request-ID"] = getattr(request.state, "request_id", "")
    return answer
