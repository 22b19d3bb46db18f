"""`ragcore models` against scripted Ollamas."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from fakes.ollama import FakeModel, FakeOllama
from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.embedded.machine import free_port

Cli = Callable[..., Result]

NOMIC = FakeModel("nomic-embed-text-v2-moe:latest")
LLAMA = FakeModel("llama3.2:latest", architecture="llama", size=2_019_393_189)
QWEN = FakeModel("qwen2.5:7b", architecture="qwen2", size=4_683_087_332)


@pytest.fixture
def one() -> Iterator[FakeOllama]:
    with FakeOllama(NOMIC, available=[NOMIC, LLAMA, QWEN]) as fake:
        yield fake


@pytest.fixture
def other() -> Iterator[FakeOllama]:
    with FakeOllama(NOMIC, LLAMA, available=[NOMIC, LLAMA, QWEN]) as fake:
        yield fake


@pytest.fixture
def cli(tmp_path: Path, one: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("RAGCORE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("RAGCORE_OLLAMA__URL", one.url)
    return lambda *arguments, **more: CliRunner().invoke(app, ["models", *arguments], **more)


def read(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def names(fake: FakeOllama) -> list[str]:
    return [model.name for model in fake.models]


def test_models_are_listed_with_their_sizes(cli: Cli, one: FakeOllama) -> None:
    one.models.append(LLAMA)
    (llama, nomic) = read(cli("list", "--json"))["models"]
    assert (llama["name"], llama["size_bytes"]) == ("llama3.2:latest", 2_019_393_189)
    assert nomic["digest"] == "0" * 64
    assert nomic["is_loaded"] is False
    shown = cli("list").stdout
    assert "2.0 GB" in shown
    assert "957 MB" in shown


def test_models_are_pulled_by_name_and_their_steps_are_told(cli: Cli, one: FakeOllama) -> None:
    result = cli("pull", "llama3.2", "qwen2.5:7b")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Pulled llama3.2, qwen2.5:7b.\n"
    assert names(one) == [NOMIC.name, LLAMA.name, QWEN.name]
    steps = [line.rpartition(": ")[2] for line in result.stderr.splitlines() if "qwen" in line]
    assert steps[0] == "pulling manifest"
    assert steps[-1] == "success"


def test_without_a_name_those_of_the_settings_are_pulled(
    cli: Cli, one: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.models.clear()
    assert cli("pull").exit_code == ExitCode.UNAVAILABLE  # the settings name none
    monkeypatch.setenv("RAGCORE_EMBEDDING__PROVIDER", "ollama")
    monkeypatch.setenv("RAGCORE_GENERATION__PROVIDER", "ollama")
    monkeypatch.setenv("RAGCORE_GENERATION__MODELS", '{"ru": "qwen2.5:7b"}')
    pulled = read(cli("pull", "--json"))["pulled"]
    assert pulled == ["nomic-embed-text-v2-moe", "llama3.2", "qwen2.5:7b"]
    assert sorted(names(one)) == sorted([NOMIC.name, LLAMA.name, QWEN.name])


def test_a_model_that_does_not_exist_is_said_so(cli: Cli) -> None:
    result = cli("pull", "lama3.2", "--json")
    assert result.exit_code == ExitCode.NOT_FOUND
    assert "no model 'lama3.2'" in json.loads(result.stdout)["error"]["detail"]


def test_models_are_deleted(cli: Cli, one: FakeOllama) -> None:
    assert cli("delete", "nomic-embed-text-v2-moe", input="n\n").exit_code == ExitCode.FAILED
    assert names(one) == [NOMIC.name]
    deleted = read(cli("delete", "nomic-embed-text-v2-moe", "--yes", "--json"))["deleted"]
    assert deleted == {"nomic-embed-text-v2-moe": [one.url.removeprefix("http://")]}
    assert names(one) == []
    assert cli("delete", "nomic-embed-text-v2-moe", "--yes").exit_code == ExitCode.NOT_FOUND


def test_every_address_is_looked_after(
    cli: Cli, one: FakeOllama, other: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCORE_OLLAMA__URLS", json.dumps([one.url, other.url]))
    assert len(read(cli("list", "--json"))["models"]) == 3
    assert cli("pull", "qwen2.5:7b").exit_code == 0
    assert QWEN.name in names(one)
    assert QWEN.name in names(other)
    deleted = read(cli("delete", "llama3.2", "--yes", "--json"))["deleted"]
    assert deleted == {"llama3.2": [other.url.removeprefix("http://")]}


def test_an_address_that_is_away_is_named_and_the_others_are_listed(
    cli: Cli, one: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = f"http://127.0.0.1:{free_port(None)}"
    monkeypatch.setenv("RAGCORE_OLLAMA__URLS", json.dumps([away, one.url]))
    result = cli("list", "--json")
    assert len(read(result)["models"]) == 1
    assert away.removeprefix("http://") in result.stderr
    monkeypatch.setenv("RAGCORE_OLLAMA__URLS", json.dumps([away]))
    assert cli("list").exit_code == ExitCode.UNAVAILABLE
