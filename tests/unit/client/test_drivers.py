"""The two drivers, over transports that are no network."""

import asyncio
import io
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing

import httpx
import pytest

from ragcore.client import AsyncClient, Client
from ragcore.errors import Unavailable
from ragcore.model import AnswerText

URL = "http://service"
TOKENS = 'event: token\ndata: {"text": "a"}\n\n' * 2


class Endless(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream of tokens that says when it is closed."""

    is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield TOKENS.encode()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            yield TOKENS.encode()

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


def test_who_leaves_a_stream_hangs_up() -> None:
    endless = Endless()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=endless))
    with Client(URL, transport=transport) as rag, closing(rag.ask_stream("x")) as events:
        assert next(events) == AnswerText("a")
        assert not endless.is_closed
        events.close()
        assert endless.is_closed


async def test_who_leaves_a_stream_on_an_event_loop_hangs_up() -> None:
    endless = Endless()
    transport = httpx.MockTransport(lambda request: httpx.Response(200, stream=endless))
    async with AsyncClient(URL, transport=transport) as rag:
        async with aclosing(rag.ask_stream("x")) as events:
            assert await anext(events) == AnswerText("a")
            assert not endless.is_closed
        assert endless.is_closed


@pytest.mark.parametrize("error", [httpx.ConnectTimeout, httpx.ConnectError, httpx.PoolTimeout])
def test_what_never_left_is_told_apart(error: type[httpx.TransportError]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("x", request=request)

    with Client(URL, transport=httpx.MockTransport(fail)) as rag:
        with pytest.raises(Unavailable, match="http://service can't be reached: x") as raised:
            rag.live()
        assert isinstance(raised.value.__cause__, error)


@pytest.mark.parametrize(
    ("error", "told"),
    [(httpx.ReadTimeout, "did not answer in time"), (httpx.RemoteProtocolError, "broke")],
)
def test_what_may_have_arrived_is_told_apart(error: type[httpx.TransportError], told: str) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("x", request=request)

    transport = httpx.MockTransport(fail)
    with Client(URL, transport=transport) as rag, pytest.raises(Unavailable, match=told):
        rag.create_key("n", scopes=["query"])


class SlowFile(io.BytesIO):
    """A file whose reads are held, in the thread that reads."""

    def __init__(self) -> None:
        super().__init__(b"x" * 100)
        self.is_reading = threading.Event()
        self.may_go_on = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        self.is_reading.set()
        self.may_go_on.wait()
        return super().read(size)


class Taking(httpx.AsyncBaseTransport):
    """Takes a body and answers nothing."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for _ in request.stream:
            pass
        raise AssertionError("all of it was sent")


async def test_an_upload_that_is_given_up_while_its_file_is_read_ends_in_order() -> None:
    file = SlowFile()
    async with AsyncClient(URL, transport=Taking()) as rag:
        upload = asyncio.create_task(rag.ingest(file))
        await asyncio.to_thread(file.is_reading.wait)
        upload.cancel()
        await asyncio.sleep(0)  # the cancellation reaches it while the thread still reads
        file.may_go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await upload


def test_importing_the_client_is_cheap() -> None:
    heavy = ("llama_index", "fastapi", "pydantic", "docling", "psycopg", "redis")
    code = f"import sys, ragcore.client; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
