"""`ragcore reindex`, here and over HTTP."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from conftest import TestServer, server_directory
from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.embedded import EmbeddedServers
from ragcore.settings import ConversionSettings, Settings
from serving import serving

ADMIN = "the-first-key-of-a-new-stack"
FERRY = "# Ferries\n\nThe ferry to Vega leaves at noon."
LIGHTHOUSE = "# Маяки\n\nМаяк на острове зажгли осенью 1871 года."

Run = Callable[..., Any]
"""Runs a command; returns its JSON, or what it printed with `as_json=False`."""


@pytest.fixture(scope="module")
def settings(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Settings]:
    with (
        server_directory() as directory,
        postgres_server.database(template=migrated_template) as url,
    ):
        yield Settings(
            database_url=SecretStr(url),
            redis_url=SecretStr(embedded.redis_url),
            data_dir=directory / "data",
            conversion=ConversionSettings(processes=1),
            access={"admin_key": ADMIN},  # type: ignore[arg-type]  # pydantic makes it a group
        )


@pytest.fixture
def run(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Run:
    assert settings.database_url is not None
    monkeypatch.setenv("RAGCORE_URL", "")
    monkeypatch.setenv("RAGCORE_API_KEY", ADMIN)
    monkeypatch.setenv("RAGCORE_DATABASE_URL", settings.database_url.get_secret_value())
    monkeypatch.setenv("RAGCORE_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("RAGCORE_CONVERSION__PROCESSES", "1")

    def command(*arguments: str, code: ExitCode = ExitCode.OK, as_json: bool = True) -> Any:
        ran = CliRunner().invoke(app, [*arguments, *(["--json"] if as_json else [])])
        monkeypatch.setenv("RAGCORE_URL", "")  # --url has set it for the command's process
        assert ran.exit_code == code, ran.output
        return json.loads(ran.stdout) if as_json else ran.stdout

    return command


def ingest(run: Run, folder: Path, collection: str) -> None:
    (folder / "ferry.md").write_text(FERRY)
    (folder / "маяк.md").write_text(LIGHTHOUSE)
    assert run("ingest", str(folder), "-c", collection)["failed"] == 0


def states(shown: Any) -> list[str]:
    return [each["state"] for each in shown["generations"]]


def test_a_collection_moves_and_goes_back_here(run: Run, tmp_path: Path) -> None:
    ingest(run, tmp_path, "here")
    before = run("collections", "show", "here")["chunker"]
    job = run("reindex", "start", "here", "--max-tokens", "32", "--manual", "-q", "Где маяк?")
    assert (job["status"], job["result"]["state"]) == ("succeeded", "ready")
    assert [each["question"] for each in job["result"]["comparison"]["samples"]] == ["Где маяк?"]
    shown = run("reindex", "show", "here")
    assert (states(shown), shown["collection"]["chunker"]) == (["ready"], before)
    told = run("reindex", "show", "here", as_json=False)
    assert "answers" in told and "ready" in told

    switched = run("reindex", "switch", "here", as_json=False)
    assert "rollback" in switched
    shown = run("reindex", "show", "here")
    assert (states(shown), shown["collection"]["chunker"] != before) == (["retired"], True)
    assert run("reindex", "rollback", "here")["chunker"] == before
    trail = run("audit", "--collection", "here")["entries"]
    asked_for = [e["action"] for e in reversed(trail) if e["actor"] == "command line"]
    assert asked_for == ["collection.reindex", "collection.switch", "collection.rollback"]


def test_what_is_filled_is_discarded(run: Run, tmp_path: Path) -> None:
    ingest(run, tmp_path, "dropped")
    run("reindex", "start", "dropped", "--max-tokens", "32", "--manual")
    under_way = run("reindex", "start", "dropped", "--max-tokens", "64", code=ExitCode.FAILED)
    assert under_way["error"]["code"] == "reindex_under_way"
    run("reindex", "discard", "dropped")
    assert states(run("reindex", "show", "dropped")) == []


def test_what_can_not_be_done_has_an_exit_code(run: Run) -> None:
    run("collections", "create", "plain")
    for command in ("switch", "rollback", "discard"):
        told = run("reindex", command, "plain", code=ExitCode.NOT_FOUND)
        assert told["error"]["code"] == "generation_not_found"
        told = run("reindex", command, "nowhere", code=ExitCode.NOT_FOUND)
        assert told["error"]["code"] == "collection_not_found"
    told = run("reindex", "show", "nowhere", code=ExitCode.NOT_FOUND)
    assert told["error"]["code"] == "collection_not_found"
    told = run("reindex", "start", "plain", code=ExitCode.FAILED)
    assert told["error"]["code"] == "conflict"
    told = run("reindex", "start", "plain", "-m", "made-up:x", code=ExitCode.USAGE)
    assert told["error"]["code"] == "invalid_input"


@contextmanager
def reindexing(settings: Settings) -> Iterator[None]:
    """Do what waits, as a worker does, until the block ends."""
    import asyncio

    from ragcore.runtime import open_runtime

    is_over = threading.Event()
    problems: list[BaseException] = []

    async def work() -> None:
        async with open_runtime(settings) as runtime:
            while not is_over.is_set():
                await runtime.reindex.do_waiting()
                await asyncio.sleep(0.05)

    def keep_working() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001  # told to the test's own thread
            problems.append(error)

    thread = threading.Thread(target=keep_working)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
    assert not problems, problems


def test_the_same_over_http(run: Run, settings: Settings, tmp_path: Path) -> None:
    ingest(run, tmp_path, "there")
    before = run("collections", "show", "there")["chunker"]
    with serving(settings) as url, reindexing(settings):

        def there(*arguments: str, **options: Any) -> Any:
            return run("--url", url, "reindex", *arguments, **options)

        job = there("start", "there", "--max-tokens", "32", "--manual")
        assert (job["status"], job["result"]["state"]) == ("succeeded", "ready")
        told, here = there("show", "there"), run("reindex", "show", "there")
        assert states(told) == states(here) == ["ready"]
        for field in ("embedding_model", "dimension", "chunker", "documents", "missing"):
            assert told["generations"][0][field] == here["generations"][0][field]
        assert there("switch", "there")["result"]["state"] == "switched"
        assert there("show", "there")["collection"]["chunker"] != before
        assert there("rollback", "there")["chunker"] == before
        there("start", "there", "--max-tokens", "64", "--manual")
        assert there("discard", "there")["chunker"] == before
        told = there("switch", "there", code=ExitCode.NOT_FOUND)
        assert told["error"]["code"] == "generation_not_found"
