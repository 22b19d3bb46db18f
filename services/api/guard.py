"""What stands before every route: request ids, and web pages of other sites kept out.

Without keys the service trusts whoever reaches it on loopback. A browser on the same machine does
so on behalf of any page it shows, by posting to 127.0.0.1 or by a name that resolves to it; so the
names in `Host` and `Origin` must be loopback's own.
"""

import logging
import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragcore_api.schemas.values import Problem

_LOOPBACK = re.compile(r"(https?://)?(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")

log = logging.getLogger(__name__)


class RequestIds:
    """Give every request an id, the caller's own when it has a sane one, and answer with it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class LoopbackOnly:
    """Refuse requests that were made under another name than loopback's."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = _foreign_name(Headers(scope=scope)) if scope["type"] == "http" else None
        if name is not None:
            log.warning("refused a request under the name %r", name)
            refusal = _refusal(name, scope.get("state", {}).get("request_id", ""))
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _foreign_name(headers: Headers) -> str | None:
    for header in ("host", "origin"):
        name = headers.get(header)
        if name is not None and not _LOOPBACK.fullmatch(name):
            return name
    return None


def _refusal(name: str, request_id: str) -> JSONResponse:
    content = Problem(
        type="urn:ragcore:problem:forbidden_origin",
        title="Forbidden",
        status=403,
        detail=f"{name[:200]!r} is not a name of this machine's loopback address; "
        "call the service at http://127.0.0.1, and not from a web page of another site",
        code="forbidden_origin",
        request_id=request_id,
    )
    return JSONResponse(content.model_dump(), 403, media_type="application/problem+json")
