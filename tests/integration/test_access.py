"""Keys, limits and web pages as callers of the running API meet them."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from conftest import TestServer, server_directory
from ragcore.embedded import EmbeddedServers
from ragcore.errors import NotConfigured
from ragcore.settings import Settings
from ragcore_api.main import create_app
from serving import serving

ADMIN = "the-first-key-of-a-new-stack"
PAGE = "https://app.example"
NOWHERE = "redis://127.0.0.1:9/0"
"""No server listens on the discard port."""


@dataclass
class Api:
    """The API with keys, and one client that shows none."""

    url: str
    database_url: str
    data_dir: Path
    http: httpx.Client

    def key(self, *scopes: str, **options: Any) -> dict[str, Any]:
        """Make a key: its fields, with the secret and the headers that show it."""
        wanted = {"name": "test", "scopes": scopes or ["query"]} | options
        answer = self.http.post("/keys", json=wanted, headers=shown(ADMIN))
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made | {"headers": shown(made["secret"])}


def shown(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture(scope="module")
def database(postgres_server: TestServer, migrated_template: str) -> Iterator[str]:
    with postgres_server.database(template=migrated_template) as url:
        yield url


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with server_directory() as directory:
        yield directory / "data"


def _settings(database: str, redis_url: str, data_dir: Path, **access: Any) -> Settings:
    return Settings(
        database_url=database,
        redis_url=redis_url,
        data_dir=data_dir,
        access={"admin_key": ADMIN, "cors_origins": [PAGE], **access},
    )


@pytest.fixture(scope="module")
def api(embedded: EmbeddedServers, database: str, data_dir: Path) -> Iterator[Api]:
    with (
        serving(_settings(database, embedded.redis_url, data_dir)) as url,
        httpx.Client(base_url=url) as http,
    ):
        yield Api(url, database, data_dir, http)


# --- keys ----------------------------------------------------------------------------------


def test_nothing_is_told_without_a_key(api: Api) -> None:
    answer = api.http.get("/documents")
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthenticated"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_unknown_key_is_refused(api: Api) -> None:
    assert api.http.get("/documents", headers=shown("rk_" + "x" * 43)).status_code == 401


def test_a_key_is_shown_once_and_listed_without_its_secret(api: Api) -> None:
    made = api.key("query", name="n8n", collections=["reports"])
    listed = api.http.get("/keys", headers=shown(ADMIN))
    assert made["secret"] not in listed.text
    entry = next(key for key in listed.json()["keys"] if key["key_id"] == made["key_id"])
    assert entry["name"] == "n8n"
    assert entry["collections"] == ["reports"]
    with psycopg.connect(api.database_url) as connection:
        rows = connection.execute("SELECT api_keys::text FROM ragcore.api_keys").fetchall()
    assert made["secret"] not in str(rows)


def test_a_revoked_key_is_refused(api: Api) -> None:
    made = api.key("query")
    assert api.http.get("/version", headers=made["headers"]).status_code == 200
    for _ in range(2):
        revoked = api.http.delete(f"/keys/{made['key_id']}", headers=shown(ADMIN))
        assert revoked.status_code == 200
        assert revoked.json()["revoked_at"] is not None
    assert api.http.get("/version", headers=made["headers"]).status_code == 401


def test_a_key_stops_when_it_expires(api: Api) -> None:
    made = api.key("query", expires_at="2999-01-01T00:00:00Z")
    with psycopg.connect(api.database_url) as connection:
        connection.execute(
            "UPDATE ragcore.api_keys SET expires_at = now() - interval '1 s' WHERE key_id = %s",
            (made["key_id"],),
        )
    answer = api.http.get("/version", headers=made["headers"])
    assert answer.status_code == 401
    assert "expired" in answer.json()["detail"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": []},
        {"scopes": ["root"]},
        {"collections": []},
        {"collections": ["No Such Name"]},
        {"name": ""},
        {"requests_per_minute": -1},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "2999-01-01T00:00:00"},
        {"secret": "my own"},
    ],
    ids=str,
)
def test_keys_that_can_not_be_meant_are_refused(api: Api, wrong: dict[str, Any]) -> None:
    wanted = {"name": "test", "scopes": ["query"]} | wrong
    answer = api.http.post("/keys", json=wanted, headers=shown(ADMIN))
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_input"


def test_an_unknown_key_can_not_be_revoked(api: Api) -> None:
    answer = api.http.delete(f"/keys/{uuid4()}", headers=shown(ADMIN))
    assert answer.status_code == 404
    assert answer.json()["code"] == "key_not_found"


@pytest.mark.parametrize(
    "options",
    [{"scopes": ["query"]}, {"scopes": ["ingest"]}, {"scopes": ["admin"], "collections": ["a"]}],
    ids=str,
)
def test_only_an_administrator_of_everything_manages_keys(
    api: Api, options: dict[str, Any]
) -> None:
    made = api.key(**options)
    wanted = {"name": "mine", "scopes": ["admin"]}
    for answer in (
        api.http.get("/keys", headers=made["headers"]),
        api.http.post("/keys", json=wanted, headers=made["headers"]),
        api.http.delete(f"/keys/{made['key_id']}", headers=made["headers"]),
    ):
        assert answer.status_code == 403
        assert answer.json()["code"] == "forbidden"


def test_a_key_without_the_scope_is_refused(api: Api) -> None:
    made = api.key("query")
    answer = api.http.post("/ingest", json={"text": "A fact."}, headers=made["headers"])
    assert answer.status_code == 403
    assert "ingest" in answer.json()["detail"]


def test_a_key_for_another_collection_is_refused(api: Api) -> None:
    made = api.key("ingest", "query", collections=["a"])
    asked = {"question": "What?", "collection": "b"}
    for answer in (
        api.http.post("/search", json=asked, headers=made["headers"]),
        api.http.post("/query", json=asked, headers=made["headers"]),
        api.http.post(
            "/ingest", json={"text": "A fact.", "collection": "b"}, headers=made["headers"]
        ),
        api.http.get("/documents", params={"collection": "b"}, headers=made["headers"]),
    ):
        assert answer.status_code == 403, answer.text
        assert answer.json()["code"] == "forbidden"


# --- uploads -------------------------------------------------------------------------------


def test_the_upload_of_a_stranger_is_neither_read_nor_stored(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    size, piece = 500 * 2**20, b"x" * 2**16
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
        while sent < size:
            sent += len(piece)
            yield piece

    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    answer = httpx.post(f"{api.url}/ingest", content=body(), headers=headers)
    assert answer.status_code == 401
    assert answer.headers["Connection"] == "close"
    assert sent < size / 10  # what the two kernels hold between them
    assert not list(tmp_path.iterdir())
    assert not list((api.data_dir / "blobs").rglob("*.*"))


# --- limits --------------------------------------------------------------------------------


def test_a_key_over_its_limit_waits_and_others_do_not(api: Api) -> None:
    hasty, other = api.key("query", requests_per_minute=2), api.key("query", requests_per_minute=2)
    answers = [api.http.get("/version", headers=hasty["headers"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["code"] == "rate_limited"
    assert 1 <= int(answers[2].headers["Retry-After"]) <= 60
    assert api.http.get("/version", headers=other["headers"]).status_code == 200
    assert api.http.get("/health/live", headers=hasty["headers"]).status_code == 200


def test_nobody_is_limited_while_redis_is_away(
    database: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = _settings(database, NOWHERE, tmp_path / "data", requests_per_minute=1)
    with (
        caplog.at_level(logging.WARNING),
        serving(settings) as url,
        httpx.Client(base_url=url, headers=shown(ADMIN)) as http,
    ):
        assert [http.get("/version").status_code for _ in range(3)] == [200] * 3
    assert caplog.text.count("requests are not limited while Redis") == 1


# --- browsers ------------------------------------------------------------------------------


def test_a_page_that_is_let_in_may_call_with_a_key(api: Api) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    preflight = api.http.options("/ingest", headers=asked)
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == PAGE
    answer = api.http.get("/version", headers=shown(ADMIN) | {"Origin": PAGE})
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    refused = api.http.get("/version", headers={"Origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE  # so that it can say why


def test_another_page_learns_nothing(api: Api) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    assert api.http.options("/ingest", headers=asked).status_code == 400
    answer = api.http.get(
        "/version", headers=shown(ADMIN) | {"Origin": "https://evil.example", "Host": "rag.example"}
    )
    assert answer.status_code == 200  # who has a key may call; the browser keeps the answer
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_answers_say_how_browsers_shall_treat_them(api: Api) -> None:
    for answer in (
        api.http.get("/version", headers=shown(ADMIN)),
        api.http.get("/missing", headers=shown(ADMIN)),
        api.http.get("/version"),
    ):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Request-ID"]


# --- where it listens ----------------------------------------------------------------------


@pytest.fixture
def starting(database_url: str, redis_url: str, tmp_path: Path) -> Callable[..., Any]:
    """Start an API, with a fresh database, that other machines could reach."""

    async def start(**access: Any) -> None:
        settings = Settings(
            host="0.0.0.0",  # noqa: S104
            database_url=database_url,
            redis_url=redis_url,
            data_dir=tmp_path / "data",
            access=access,
        )
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass

    return start


async def test_other_machines_are_not_listened_to_without_a_key(starting: Any) -> None:
    with pytest.raises(NotConfigured, match="ragcore keys create"):
        await starting()


async def test_a_configured_key_is_enough(starting: Any) -> None:
    await starting(admin_key=ADMIN)


# --- the audit trail -----------------------------------------------------------------------


def test_the_trail_tells_who_took_in_what_and_who_made_keys(api: Api) -> None:
    made = api.key("ingest", "admin", name="anna", collections=["a", "default"])
    taken = api.http.post(
        "/ingest",
        json={"text": "A fact.", "document_id": "fact"},
        headers=made["headers"] | {"X-Request-ID": "r-42"},
    )
    assert taken.status_code == 202, taken.text
    trail = api.http.get("/audit", headers=shown(ADMIN)).json()["entries"]
    ingest = next(entry for entry in trail if entry["action"] == "document.ingest")
    assert (ingest["actor"], ingest["target"]) == ("anna", "fact")
    assert (ingest["collection"], ingest["request_id"]) == ("default", "r-42")
    assert ingest["details"]["job_id"] == taken.json()["jobs"][0]["job_id"]
    key = next(entry for entry in trail if entry["target"] == made["key_id"])
    assert (key["action"], key["actor"]) == ("key.create", "admin")


def test_an_administrator_of_some_collections_sees_only_their_trail(api: Api) -> None:
    of_a = api.key("admin", collections=["a"])
    of_default = api.key("admin", "ingest", collections=["default"])
    body = {"text": "Another fact.", "document_id": "another"}
    api.http.post("/ingest", json=body, headers=of_default["headers"])
    assert api.http.get("/audit", headers=of_a["headers"]).json()["entries"] == []
    seen = api.http.get("/audit", headers=of_default["headers"]).json()["entries"]
    assert {entry["collection"] for entry in seen} == {"default"}
    asked = api.http.get("/audit", params={"collection": "default"}, headers=of_a["headers"])
    assert asked.status_code == 403


def test_the_trail_is_paged(api: Api) -> None:
    seen: list[int] = []
    cursor = None
    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = api.http.get("/audit", params=params, headers=shown(ADMIN)).json()
        seen += [entry["entry_no"] for entry in page["entries"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted(set(seen), reverse=True)
    assert len(seen) >= 2
