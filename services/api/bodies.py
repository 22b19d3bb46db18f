"""JSON bodies of bounded size: the framework reads a whole body before it looks at it."""

from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragcore_api.errors import HTTP_CODES, problem


class BoundedBodies:
    """Refuse a body of more than `max_bytes` before it is read, or as soon as it turns out so.

    Paths of `uploads` are let through: their routes read piece by piece and count themselves.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, uploads: Collection[str]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._uploads = frozenset(uploads)
        self._detail = f"the body is over {max_bytes} bytes; only uploads may be larger"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._uploads:
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced) > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._detail)
            return message

        await self._app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
        answer = problem(Request(scope), status, code=HTTP_CODES[status], detail=self._detail)
        await answer(scope, receive, send)
