"""The two clients: the same operations, run by httpx with and without an event loop."""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, closing
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from ragcore import __version__
from ragcore.client.calls import Awaiting, Blocking
from ragcore.client.exchange import (
    Command,
    Heard,
    Item,
    NoAnswer,
    Pause,
    Read,
    Request,
    Response,
    Steps,
    Stream,
)
from ragcore.client.operations import Operations
from ragcore.client.retrying import Retries
from ragcore.errors import InvalidInput, NotConfigured

T = TypeVar("T")

URL: Final = "RAGCORE_URL"
API_KEY: Final = "RAGCORE_API_KEY"

_CONNECT_SECONDS: Final = 10.0
_IDLE_SECONDS: Final = 3.0
"""A connection that rested longer is not used again: services close theirs after five seconds, and
what is sent at that moment is lost."""
_KEY: Final = re.compile(r"[!-~]{1,500}")
_NEVER_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class Client(Operations, Blocking):
    """Calls the service while the caller waits; to be closed, or used by `with`.

    `url` is where the service answers, `RAGCORE_URL` unless given; `api_key` is RAGCORE_API_KEY's
    unless given. `timeout_seconds` is how long the service may be silent, not how long a call may
    take. May be used by several threads. Raises NotConfigured without a URL.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(retries=retries or Retries(), timeout_seconds=timeout_seconds)
        self.url = _checked_url(url)
        self._http = httpx.Client(
            base_url=self.url,
            headers=_headers(api_key),
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=_IDLE_SECONDS),
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        with closing(steps), closing(_Line(self._http)) as line:
            heard: Heard = None
            while True:
                try:
                    command = steps.send(heard)
                except StopIteration as end:
                    value: T = end.value
                    return value
                heard = line.do(command)

    def _iterate(self, stream: Stream[T]) -> Generator[T, None, None]:
        with closing(stream), closing(_Line(self._http)) as line:
            heard: Heard = None
            while True:
                try:
                    command = stream.send(heard)
                except StopIteration:
                    return
                if isinstance(command, Item):
                    heard = None
                    yield command.value
                else:
                    heard = line.do(command)


class AsyncClient(Operations, Awaiting):
    """Calls the service on the event loop; to be closed, or used by `async with`.

    Its arguments are those of `Client`. It belongs to the event loop that first uses it.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_seconds: float = 60.0,
        retries: Retries | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(retries=retries or Retries(), timeout_seconds=timeout_seconds)
        self.url = _checked_url(url)
        self._http = httpx.AsyncClient(
            base_url=self.url,
            headers=_headers(api_key),
            timeout=httpx.Timeout(timeout_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(keepalive_expiry=_IDLE_SECONDS),
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        with closing(steps):
            async with aclosing(_AsyncLine(self._http)) as line:
                heard: Heard = None
                while True:
                    try:
                        command = steps.send(heard)
                    except StopIteration as end:
                        value: T = end.value
                        return value
                    heard = await line.do(command)

    async def _iterate(self, stream: Stream[T]) -> AsyncGenerator[T, None]:
        with closing(stream):
            async with aclosing(_AsyncLine(self._http)) as line:
                heard: Heard = None
                while True:
                    try:
                        command = stream.send(heard)
                    except StopIteration:
                        return
                    if isinstance(command, Item):
                        heard = None
                        yield command.value
                    else:
                        heard = await line.do(command)


# --- settings ----------------------------------------------------------------------------------


def _checked_url(url: str | None) -> str:
    """Return where the service answers, without a slash at its end."""
    found = url or os.environ.get(URL)
    if not found:
        raise NotConfigured(f"where is the service? Set {URL}, http://127.0.0.1:8700 for example")
    parts = urlsplit(found)
    if parts.username is not None or parts.password is not None:
        raise InvalidInput(f"the URL of the service holds a password; set {API_KEY} instead")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput(f"{found!r} is no URL of a service, such as https://rag.example.org")
    return found.rstrip("/")


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"User-Agent": f"ragcore/{__version__}"}
    key = api_key or os.environ.get(API_KEY)
    if not key:
        return headers
    if not _KEY.fullmatch(key):
        raise InvalidInput(f"the API key ({API_KEY}) holds a space, a line break or other letters")
    # httpx hides this header in its own repr, unlike X-API-Key.
    return headers | {"Authorization": f"Bearer {key}"}


# --- one call's connection ---------------------------------------------------------------------


class _Line:
    """Does what the steps of one call ask for; holds at most one answer that is being read."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._answer: httpx.Response | None = None
        self._pieces: Iterator[bytes] = iter(())

    def do(self, command: Command) -> Heard:
        if isinstance(command, Pause):
            self.close()
            time.sleep(command.seconds)
            return None
        try:
            return self._read() if isinstance(command, Read) else self._send(command)
        except httpx.RequestError as error:
            self.close()
            return _no_answer(error, self._http)

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _send(self, asked: Request) -> Response:
        self.close()
        request = _built(self._http, asked)
        if asked.body is None:
            self._answer = self._http.send(request, stream=True)
        else:
            with closing(asked.body.pieces()) as pieces:
                request.stream = _Pieces(pieces)
                self._answer = self._http.send(request, stream=True)
        if asked.is_streamed and self._answer.is_success:
            self._pieces = self._answer.iter_bytes()
            return _heard(self._answer)
        body = self._answer.read()
        return _heard(self._answer, body)

    def _read(self) -> bytes:
        return next((piece for piece in self._pieces if piece), b"")


class _AsyncLine:
    """`_Line`, on an event loop."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._answer: httpx.Response | None = None
        self._pieces: AsyncIterator[bytes]

    async def do(self, command: Command) -> Heard:
        if isinstance(command, Pause):
            await self.aclose()
            await asyncio.sleep(command.seconds)
            return None
        try:
            return await (self._read() if isinstance(command, Read) else self._send(command))
        except httpx.RequestError as error:
            await self.aclose()
            return _no_answer(error, self._http)

    async def aclose(self) -> None:
        if self._answer is not None:
            await self._answer.aclose()
            self._answer = None

    async def _send(self, asked: Request) -> Response:
        await self.aclose()
        request = _built(self._http, asked)
        if asked.body is None:
            self._answer = await self._http.send(request, stream=True)
        else:
            with closing(asked.body.pieces()) as pieces:
                request.stream = _AsyncPieces(pieces)
                self._answer = await self._http.send(request, stream=True)
        if asked.is_streamed and self._answer.is_success:
            self._pieces = self._answer.aiter_bytes()
            return _heard(self._answer)
        body = await self._answer.aread()
        return _heard(self._answer, body)

    async def _read(self) -> bytes:
        async for piece in self._pieces:
            if piece:
                return piece
        return b""


class _Pieces(httpx.SyncByteStream):
    """A body, for httpx."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


class _AsyncPieces(httpx.AsyncByteStream):
    """A body, for httpx on an event loop: files are read by a thread."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (piece := await self._next()) is not None:
            yield piece

    async def _next(self) -> bytes | None:
        """Return the next piece. One that is being read is awaited also by who gives up: its
        generator can't be closed before."""
        reading = asyncio.ensure_future(asyncio.to_thread(next, self._pieces, None))
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            await asyncio.wait([reading])
            raise


def _built(http: httpx.Client | httpx.AsyncClient, asked: Request) -> httpx.Request:
    headers = dict(asked.headers)
    if asked.body is not None:
        headers["Content-Type"] = asked.body.content_type
        headers["Content-Length"] = str(asked.body.length)
    timeout = http.timeout
    if asked.answer_seconds is not None:
        timeout = httpx.Timeout(**{**timeout.as_dict(), "read": asked.answer_seconds})
    return http.build_request(
        asked.method, asked.path, params=asked.query, headers=headers, timeout=timeout
    )


def _heard(answer: httpx.Response, body: bytes = b"") -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status_code, headers, body)


def _no_answer(error: httpx.RequestError, http: httpx.Client | httpx.AsyncClient) -> NoAnswer:
    return NoAnswer(
        error,
        was_sent=not isinstance(error, _NEVER_SENT),
        is_timeout=isinstance(error, httpx.TimeoutException),
        whom=str(http.base_url).rstrip("/"),
    )
