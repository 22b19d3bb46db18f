"""`ragcore keys` and `ragcore audit` against a real database."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.runtime import open_keys
from ragcore.settings import Settings

Cli = Callable[..., Result]


@pytest.fixture
def cli(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("RAGCORE_DATABASE_URL", database_url)
    monkeypatch.setenv("RAGCORE_DATA_DIR", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(app, arguments)


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_key_is_created_listed_and_revoked(cli: Cli) -> None:
    options = ("--scope", "ingest", "-s", "query", "--collection", "reports", "--expires", "90d")
    made = cli("keys", "create", "n8n", *options)
    secret = made.stdout.strip()
    assert secret.startswith("rk_")
    assert secret not in made.stderr
    (key,) = read(cli("keys", "list", "--json"))["keys"]
    assert key["scopes"] == ["ingest", "query"]
    assert key["collections"] == ["reports"]
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left <= timedelta(days=90)
    assert secret not in cli("keys", "list").stdout
    revoked = read(cli("keys", "revoke", key["key_id"], "--json"))
    assert revoked["revoked_at"] is not None
    trail = read(cli("audit", "--json"))["entries"]
    assert [entry["action"] for entry in trail] == ["key.revoke", "key.create"]
    assert {entry["actor"] for entry in trail} == {"command line"}
    assert "key.revoke" in cli("audit", "--action", "key.revoke").stdout


def test_the_secret_opens_the_door(cli: Cli) -> None:
    made = read(cli("keys", "create", "anna", "--scope", "admin", "--json"))

    async def name_of_whoever_shows_it() -> str:
        async with open_keys(Settings()) as keys:
            return (await keys.authenticate(made["secret"].encode())).name

    assert asyncio.run(name_of_whoever_shows_it()) == "anna"


def test_a_date_without_a_zone_is_read_in_utc(cli: Cli) -> None:
    key = read(cli("keys", "create", "a", "-s", "query", "--expires", "2999-01-31", "--json"))
    assert key["expires_at"] == "2999-01-31T00:00:00+00:00"


@pytest.mark.parametrize(
    "wrong",
    [
        ("keys", "create", "a"),
        ("keys", "create", "a", "--scope", "root"),
        ("keys", "create", "admin", "--scope", "query"),
        ("keys", "create", "a", "--scope", "query", "--collection", "No Such Name"),
        ("keys", "create", "a", "--scope", "query", "--expires", "soon"),
        ("keys", "create", "a", "--scope", "query", "--expires", "2001-01-01"),
        ("keys", "revoke", "not-an-id"),
    ],
    ids=" ".join,
)
def test_what_can_not_be_meant_is_wrong_usage(cli: Cli, wrong: tuple[str, ...]) -> None:
    assert cli(*wrong).exit_code == ExitCode.USAGE
    assert read(cli("keys", "list", "--json")) == {"keys": []}


def test_an_unknown_key_has_the_exit_code_of_what_is_not_there(cli: Cli) -> None:
    assert cli("keys", "revoke", str(uuid4())).exit_code == ExitCode.NOT_FOUND
