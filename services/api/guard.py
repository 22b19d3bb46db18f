"""What stands around and before every route, whoever calls.

Without keys the service trusts whoever reaches it on loopback. A browser on the same machine does
so on behalf of any page it shows, by posting to 127.0.0.1 or by a name that resolves to it; so the
names in `Host` and `Origin` must be loopback's own.
"""

import asyncio
import logging
import re
from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Final
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragcore.errors import RagError, Unavailable
from ragcore.logs import about
from ragcore_api.errors import answer_of, problem

_LOOPBACK: Final = re.compile(r"localhost|127(\.\d{1,3}){3}|\[::1\]", re.IGNORECASE)
_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:/@\[\]]+)(:\d{1,5})?")
_ORIGIN: Final = re.compile(rf"https?://{_HOST.pattern}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")

# Answers are data. What a document holds must not run as a page of this service, even when a
# browser shows it: nothing loads, nothing runs, nothing frames it.
_DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'; sandbox"
_DOCS_POLICY: Final = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net; "
    "style-src 'self' 'unsafe-inline' https://cdn.jsdelivr.net https://fonts.googleapis.com; "
    "font-src https://fonts.gstatic.com; img-src 'self' data: https://fastapi.tiangolo.com "
    "https://cdn.redoc.ly; worker-src blob:; frame-ancestors 'none'"
)
_DOCS_PATHS: Final = frozenset({"/docs", "/redoc"})

_HEADERS: Final[Mapping[str, str]] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": _DATA_POLICY,
    "Cache-Control": "no-store",
}
"""Of every answer, where its route says nothing else."""

# As a server takes them, made once: this is done for every request.
_OF_DATA: Final = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
_OF_DOCS: Final = [
    (name, _DOCS_POLICY.encode() if name == b"content-security-policy" else value)
    for name, value in _OF_DATA
]

log = logging.getLogger(__name__)


class RequestIds:
    """Give every request an id, the caller's own when it has a sane one.

    It is answered with, and every line logged on behalf of the request carries it.
    """

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

        with about(request_id=request_id):
            await self._app(scope, receive, send_with_id)


class SecurityHeaders:
    """Tell browsers to treat every answer as nothing but data."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = _OF_DOCS if scope["path"] in _DOCS_PATHS else _OF_DATA

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message["headers"]
                names = {name for name, _ in given}
                message["headers"] = [*given, *(each for each in wanted if each[0] not in names)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class CutOff:
    """Answer 503 to what the end of the service cuts off: the server would say 500, for good.

    Whoever is told that the service is away sends the request again.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except asyncio.CancelledError:
            if has_begun:
                raise
            log.warning("cut off %s %s: the service stops", scope["method"], scope["path"])
            error = Unavailable("the service is stopping; send the request again")
            await refuse(error, scope, receive, send)


class UnreadBodies:
    """Close the connection after a refusal that did not wait for the whole body.

    The server would otherwise go on reading, and dropping, the rest of an upload.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        is_read = False

        async def receive_to_the_end() -> Message:
            nonlocal is_read
            message = await receive()
            is_read = not message.get("more_body", False)
            return message

        async def send_and_hang_up(message: Message) -> None:
            is_refusal = message["type"] == "http.response.start" and message["status"] >= 400
            if is_refusal and not is_read:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive_to_the_end, send_and_hang_up)


def _has_body(sent: Headers) -> bool:
    return sent.get("content-length", "0") != "0" or "transfer-encoding" in sent


class LoopbackOnly:
    """Refuse requests that were made under another name than loopback's, or one of `hosts`.

    Pages of the `origins` may call, too. Stands guard only while no key is asked for: a page can't
    make a browser send a key that it doesn't know.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] = (), origins: Collection[str] = ()
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = self._foreign_name(Headers(scope=scope)) if scope["type"] == "http" else None
        if name is not None:
            log.warning("refused a request under the name %r", name)
            await _refuse_name(name, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _foreign_name(self, headers: Headers) -> str | None:
        host, origin = headers.get("host"), headers.get("origin")
        if host is not None and not self._is_own(_HOST.fullmatch(host)):
            return host
        if origin is None or origin in self._origins or self._is_own(_ORIGIN.fullmatch(origin)):
            return None
        return origin

    def _is_own(self, found: re.Match[str] | None) -> bool:
        if found is None:
            return False
        name = found["name"].lower()
        return name in self._hosts or _LOOPBACK.fullmatch(name) is not None


async def refuse(error: RagError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with an error instead of calling the application; nothing of the body is read."""
    await answer_of(Request(scope), error)(scope, receive, send)


async def _refuse_name(name: str, scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem(
        Request(scope),
        HTTPStatus.FORBIDDEN,
        code="forbidden_origin",
        detail=f"{name[:200]!r} is not a name of this machine's loopback address; "
        "call the service at http://127.0.0.1, and not from a web page of another site",
    )
    await answer(scope, receive, send)
