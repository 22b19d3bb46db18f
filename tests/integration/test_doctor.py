"""What `ragcore doctor` sees of real servers."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conftest import running_servers
from fakes.ollama import FakeModel, FakeOllama
from ragcore.adapters.postgres import pool
from ragcore.cli import doctor
from ragcore.cli.app import app
from ragcore.cli.doctor import Finding, examine
from ragcore.embedded.machine import free_port
from ragcore.settings import GenerationSettings, OllamaSettings, Settings


def named(name: str, findings: list[Finding]) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def external(tmp_path: Path, database_url: str, redis_url: str) -> Settings:
    return Settings(data_dir=tmp_path, database_url=database_url, redis_url=redis_url)


def generating(tmp_path: Path, url: str, *, model: str = "llama3.2") -> Settings:
    return Settings(
        data_dir=tmp_path,
        generation=GenerationSettings(provider="ollama", model=model),
        ollama=OllamaSettings(url=url),
    )


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(FakeModel("llama3.2:latest")) as server:
        yield server


async def test_servers_of_ones_own_are_named_with_their_versions(
    tmp_path: Path, any_postgres: str, redis_url: str
) -> None:
    findings = await examine(external(tmp_path, any_postgres, redis_url))
    database = named("database", findings)
    assert database.state == "ok"
    assert "PostgreSQL 1" in database.found
    assert "created on first use" in database.found
    assert named("queue", findings).state == "ok"


async def test_it_says_whether_callers_need_a_key(
    tmp_path: Path, database_url: str, redis_url: str
) -> None:
    access = named("access", await examine(external(tmp_path, database_url, redis_url)))
    assert "with a key for each request" in access.found
    assert "600 requests a minute" in access.found
    access = named("access", await examine(Settings(data_dir=tmp_path)))
    assert "without a key" in access.found


async def test_no_password_is_shown(tmp_path: Path, database_url: str, redis_url: str) -> None:
    findings = await examine(external(tmp_path, database_url, redis_url))
    password = database_url.split(":")[2].split("@")[0]
    assert not any(password in str(finding) for finding in findings)


async def test_servers_that_are_away_are_problems_with_advice(tmp_path: Path) -> None:
    port = free_port(None)
    settings = external(tmp_path, f"postgresql://127.0.0.1:{port}/x", f"redis://127.0.0.1:{port}")
    findings = await examine(settings)
    for name in ("database", "queue"):
        assert named(name, findings).state == "problem"
        assert "RAGCORE_" in str(named(name, findings).advice)


async def test_a_language_model_that_is_away_is_a_problem(tmp_path: Path) -> None:
    settings = generating(tmp_path, f"http://127.0.0.1:{free_port(None)}")
    generation = named("generation", await examine(settings))
    assert generation.state == "problem"
    assert "RAGCORE_OLLAMA__URL" in str(generation.advice)


async def test_a_language_model_that_ollama_lacks_is_a_problem(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    there = generating(tmp_path, ollama.url, model="llama3.2:latest")
    assert named("generation", await examine(there)).state == "ok"
    lacking = generating(tmp_path, ollama.url, model="nobody")
    generation = named("generation", await examine(lacking))
    assert (generation.state, generation.advice) == ("problem", "run `ragcore models pull nobody`")


async def test_addresses_that_do_not_do_their_part_are_noted(
    tmp_path: Path, ollama: FakeOllama
) -> None:
    away = f"127.0.0.1:{free_port(None)}"
    several = OllamaSettings(urls=(ollama.url, f"http://{away}"))
    settings = generating(tmp_path, ollama.url).model_copy(update={"ollama": several})
    generation = named("generation", await examine(settings))
    assert generation.state == "note"
    assert f"Ollama at {away} is away" in generation.found
    assert "ragcore models pull" in str(generation.advice)


@pytest.mark.parametrize(
    ("server", "state", "words"),
    [
        (pool.Server(14, (0, 8, 0), "public"), "problem", "PostgreSQL 14 is too old"),
        (pool.Server(15, (0, 6, 2), "public"), "problem", "pgvector 0.6.2 is too old"),
        (pool.Server(15, (0, 7, 4), "extensions"), "note", "pgvector below 0.8"),
        (pool.Server(15, (0, 8, 0), "extensions"), "ok", "None"),
    ],
)
async def test_old_versions_are_refused_or_told_what_is_lost(
    tmp_path: Path,
    database_url: str,
    redis_url: str,
    monkeypatch: pytest.MonkeyPatch,
    server: pool.Server,
    state: str,
    words: str,
) -> None:
    async def describe(_: object) -> pool.Server:
        return server

    monkeypatch.setattr(pool, "describe_server", describe)
    database = named("database", await examine(external(tmp_path, database_url, redis_url)))
    assert database.state == state
    assert words in str(database.advice)


async def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_FREE_MB", 10**12)
    assert doctor._data_directory(Settings(data_dir=tmp_path)).state == "problem"


def test_nothing_is_started_and_nothing_is_written(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    done = CliRunner(env={"RAGCORE_DATA_DIR": str(directory)}).invoke(app, ["doctor", "--json"])
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert told["ok"] is True
    assert "starts when it is needed" in json.dumps(told)
    assert not directory.exists()


def test_embedded_servers_that_run_are_looked_at(data_dir: Path) -> None:
    with running_servers(data_dir) as servers:
        done = CliRunner(env={"RAGCORE_DATA_DIR": str(data_dir)}).invoke(app, ["doctor"])
        found = f"embedded, pid {servers.pids['postgres']}: PostgreSQL 18"
    assert done.exit_code == 0
    assert found in done.stdout


def test_a_problem_ends_with_one(tmp_path: Path) -> None:
    environment = {
        "RAGCORE_DATA_DIR": str(tmp_path),
        "RAGCORE_DATABASE_URL": f"postgresql://127.0.0.1:{free_port(None)}/x",
    }
    done = CliRunner(env=environment).invoke(app, ["doctor", "--json"])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["ok"] is False
