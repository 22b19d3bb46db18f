"""Who is let in, and that nothing of a refused request is read."""

from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ragcore.errors import StoreUnavailable
from ragcore.flows.keys import KeyRing
from ragcore.model import ApiKey
from ragcore.settings import AccessSettings, Settings
from ragcore.testing.memory.keys import MemoryKeys
from ragcore_api.auth import Authentication
from ragcore_api.guard import RequestIds, UnreadBodies
from ragcore_api.main import create_app

ADMIN = "a-configured-key-of-some-length"


async def _whoami(request: Request) -> JSONResponse:
    principal = request.state.principal
    return JSONResponse({"name": principal.name, "scopes": sorted(principal.scopes)})


PATHS = ("/", "/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json")


class _WithKeys:
    """Puts an open library, of which only keys are asked for, where the lifespan would."""

    def __init__(self, app: ASGIApp, keys: KeyRing) -> None:
        self._app = app
        self.runtime = self
        self.keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["rag"] = self
        await self._app(scope, receive, send)


@pytest.fixture
def ring() -> KeyRing:
    return KeyRing(MemoryKeys(), admin_key=ADMIN)


def _app(ring: KeyRing, *, needs_key: bool = True, open_metrics: bool = False) -> ASGIApp:
    app = Starlette(routes=[Route(path, _whoami, methods=["GET", "POST"]) for path in PATHS])
    app.add_middleware(Authentication, needs_key=needs_key, open_metrics=open_metrics)
    return RequestIds(UnreadBodies(_WithKeys(app, ring)))


def _client(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")


@pytest.fixture
def client(ring: KeyRing) -> httpx.AsyncClient:
    return _client(_app(ring))


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {ADMIN}"},
        {"Authorization": f"bearer  {ADMIN} "},
        {"X-API-Key": ADMIN},
        {"X-API-Key": ADMIN, "Authorization": f"Bearer {ADMIN}"},
        {"X-API-Key": ADMIN, "Authorization": "Basic cHJveHk6cGFzcw=="},
        {"X-API-Key": "", "Authorization": f"Bearer {ADMIN}"},
    ],
    ids=str,
)
async def test_a_good_key_is_let_in(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.get("/", headers=headers)
    assert answer.json() == {"name": "admin", "scopes": ["admin", "ingest", "query"]}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ADMIN[:-1]},
        {"X-API-Key": ADMIN + "x"},
        {"X-API-Key": ADMIN.upper()},
        {"Authorization": ADMIN},
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {ADMIN}"},
        {"Authorization": f"Bearer rk_{'x' * 43}"},
        {"X-API-Key": ADMIN, "Authorization": "Bearer another"},
        {"X-API-Key": "ключ".encode()},
    ],
    ids=str,
)
async def test_everything_else_is_refused(client: httpx.AsyncClient, headers: Any) -> None:
    answer = await client.get("/", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "unauthenticated"
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]


async def test_two_different_keys_in_one_header_are_refused(client: httpx.AsyncClient) -> None:
    headers = [("X-API-Key", ADMIN), ("X-API-Key", "another")]
    assert (await client.get("/", headers=headers)).status_code == 401


async def test_a_made_key_is_let_in_until_it_is_revoked(ring: KeyRing) -> None:
    client = _client(_app(ring))
    made = await ring.create("n8n", scopes={"query"}, actor="test")
    headers = {"X-API-Key": made.secret}
    assert (await client.get("/", headers=headers)).json() == {"name": "n8n", "scopes": ["query"]}
    await ring.revoke(made.key.key_id, actor="test")
    assert (await client.get("/", headers=headers)).status_code == 401
    await ring.aclose()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
async def test_health_needs_no_key(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).json() == {"name": "anonymous", "scopes": []}


@pytest.mark.parametrize(
    "path", ["/docs", "/openapi.json", "/metrics", "/missing", "/health", "/health/live/"]
)
async def test_all_else_does(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 401


async def test_metrics_take_an_administrator_of_everything(ring: KeyRing) -> None:
    client = _client(_app(ring))
    asks = await ring.create("asks", scopes={"query"}, actor="test")
    of_one = await ring.create("of one", scopes={"admin"}, collections={"a"}, actor="test")
    of_all = await ring.create("of all", scopes={"admin"}, actor="test")
    statuses = [
        (await client.get("/metrics", headers={"X-API-Key": made.secret})).status_code
        for made in (asks, of_one, of_all)
    ]
    assert statuses == [403, 403, 200]
    await ring.aclose()


async def test_metrics_can_be_opened(ring: KeyRing) -> None:
    client = _client(_app(ring, open_metrics=True))
    assert (await client.get("/metrics")).status_code == 200
    assert (await client.get("/")).status_code == 401


async def test_where_no_key_is_needed_none_is_looked_at(ring: KeyRing) -> None:
    client = _client(_app(ring, needs_key=False))
    answer = await client.get("/", headers={"Authorization": "Bearer a-placeholder"})
    assert answer.json()["name"] == "loopback"


async def test_while_the_keys_can_not_be_read_callers_are_told_to_come_back() -> None:
    client = _client(_app(KeyRing(_Away(), admin_key=ADMIN)))
    answer = await client.get("/", headers={"X-API-Key": "rk_" + "x" * 43})
    assert answer.status_code == 503
    assert answer.json()["code"] == "store_unavailable"
    assert int(answer.headers["Retry-After"]) > 0
    assert (await client.get("/", headers={"X-API-Key": ADMIN})).status_code == 200


@pytest.mark.parametrize(("require_key", "status"), [(False, 403), (True, 401)])
async def test_names_and_pages_are_looked_at_only_where_no_key_is_asked_for(
    require_key: bool, status: int
) -> None:
    client = _client(create_app(Settings(access=AccessSettings(require_key=require_key))))
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        assert (await client.get("/version", headers=headers)).status_code == status


class _Away(MemoryKeys):
    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        raise StoreUnavailable("away")


@pytest.mark.parametrize("length", [[(b"content-length", b"9")], [(b"transfer-encoding", b"c")]])
async def test_the_body_of_a_refused_request_is_not_read_and_the_line_is_closed(
    ring: KeyRing, length: list[tuple[bytes, bytes]]
) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("the body was read")

    scope = {"type": "http", "method": "POST", "path": "/", "headers": length}
    await _app(ring)(scope, receive, send)
    assert sent[0]["status"] == 401
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_a_refused_request_without_a_body_keeps_the_line(client: httpx.AsyncClient) -> None:
    assert "Connection" not in (await client.get("/")).headers
