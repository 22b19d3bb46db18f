import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from ragcore_api.guard import CutOff, LoopbackOnly, RequestIds, SecurityHeaders, UnreadBodies


async def _request_id(request: Request) -> PlainTextResponse:
    return PlainTextResponse(request.state.request_id)


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/", _request_id)])
    app.add_middleware(LoopbackOnly)
    app.add_middleware(RequestIds)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8700")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:80", "localhost:8700", "[::1]:8700"])
async def test_loopback_names_are_let_through(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/", headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "10.0.0.1", ""]
)
async def test_other_names_are_refused(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.get("/", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden_origin"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1@evil.example"]
)
async def test_web_pages_of_other_sites_are_refused(client: httpx.AsyncClient, origin: str) -> None:
    answer = await client.get("/", headers={"Origin": origin})
    assert answer.status_code == 403


async def test_other_names_and_pages_can_be_let_through() -> None:
    app = Starlette(routes=[Route("/", _request_id)])
    app.add_middleware(LoopbackOnly, hosts=["Rag.Local"], origins=["https://app.example"])
    app.add_middleware(RequestIds)
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    for headers, status in (
        ({"Host": "rag.local:8700", "Origin": "http://RAG.local:8700"}, 200),
        ({"Origin": "https://app.example"}, 200),
        ({"Host": "app.example"}, 403),
        ({"Origin": "https://app.example.evil.example"}, 403),
        ({"Origin": "http://rag.local@evil.example"}, 403),
    ):
        assert (await client.get("/", headers=headers)).status_code == status, headers


@pytest.mark.parametrize(
    ("read", "status", "is_closed"),
    [(0, 403, True), (1, 413, True), (2, 422, False), (0, 202, False)],
)
async def test_the_line_is_closed_after_a_refusal_that_left_some_of_the_body(
    read: int, status: int, is_closed: bool
) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(read):
            await receive()
        await PlainTextResponse("", status_code=status)(scope, receive, send)

    async def body() -> AsyncIterator[bytes]:
        yield b"a piece"

    transport = httpx.ASGITransport(UnreadBodies(answer))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        answered = await client.post("/", content=body())
    assert (answered.headers.get("Connection") == "close") is is_closed


async def test_answers_are_nothing_but_data_to_a_browser() -> None:
    async def picture(_: Request) -> PlainTextResponse:
        return PlainTextResponse("png", headers={"Cache-Control": "private, max-age=60"})

    app = SecurityHeaders(Starlette(routes=[Route("/", picture), Route("/docs", _request_id)]))
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
    own, missing = await client.get("/"), await client.get("/missing")
    assert own.headers["Cache-Control"] == "private, max-age=60"
    assert missing.headers["Cache-Control"] == "no-store"
    for answer in (own, missing):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_streams_go_on_piece_by_piece() -> None:
    """The next piece is made only when the one before has gone through."""
    through: list[bytes] = []

    async def pieces() -> AsyncIterator[str]:
        for number in range(3):
            assert b"".join(through) == b"".join(b"%d" % n for n in range(number))
            yield str(number)

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(pieces())

    async def send(message: Any) -> None:
        through.append(message.get("body", b""))

    async def receive() -> Any:
        await asyncio.Event().wait()

    app = RequestIds(SecurityHeaders(Starlette(routes=[Route("/", stream)])))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await app(scope | {"asgi": {"spec_version": "2.4"}}, receive, send)
    assert b"".join(through) == b"012"


async def test_a_sane_request_id_is_kept(client: httpx.AsyncClient) -> None:
    answer = await client.get("/", headers={"X-Request-ID": "n8n-42.a_b"})
    assert answer.text == answer.headers["X-Request-ID"] == "n8n-42.a_b"


@pytest.mark.parametrize("given", ["", "x" * 101, "a b", "ü"])
async def test_another_request_id_is_replaced(client: httpx.AsyncClient, given: str) -> None:
    answer = await client.get("/", headers={"X-Request-ID": given.encode()})
    assert answer.text == answer.headers["X-Request-ID"]
    assert answer.text != given


async def test_request_ids_differ(client: httpx.AsyncClient) -> None:
    assert (await client.get("/")).text != (await client.get("/")).text


async def test_what_the_end_of_the_service_cuts_off_is_to_be_sent_again() -> None:
    begun = asyncio.Event()

    async def wait_for_ever(_: Request) -> PlainTextResponse:
        begun.set()
        await asyncio.Event().wait()
        return PlainTextResponse("never")

    app = Starlette(routes=[Route("/", wait_for_ever)])
    app.add_middleware(CutOff)
    serving: list[asyncio.Task[None]] = []

    async def as_a_server_does(scope: Any, receive: Any, send: Any) -> None:
        serving.append(asyncio.create_task(app(scope, receive, send)))
        await serving[0]

    transport = httpx.ASGITransport(as_a_server_does)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        asking = asyncio.create_task(client.get("/"))
        await begun.wait()
        serving[0].cancel()
        answer = await asking
    assert answer.status_code == 503
    assert answer.json()["code"] == "unavailable"
    assert int(answer.headers["Retry-After"]) > 0
