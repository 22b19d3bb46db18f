import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ragcore_api.guard import LoopbackOnly, RequestIds


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
