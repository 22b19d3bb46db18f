"""The `ragcore` command as a user and a script meet it: real process, real database."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY, TestServer
from ragcore.cli.output import ExitCode

SAMPLES = REPOSITORY / "samples" / "documents"
BASH = shutil.which("bash") or "/bin/bash"
NOWHERE = "postgresql://rag:secret@127.0.0.1:9/rag"
"""No server listens on the discard port."""

FERRY = "The ferry Kittiwake leaves Alder Harbour at 06:40 every day.\n"
CLINIC = "# Поликлиника\n\nРегистратура открыта с восьми утра до шести вечера.\n"


@dataclass
class Cli:
    """Runs commands against one database."""

    environment: dict[str, str]
    folder: Path

    def __call__(self, *arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "ragcore.cli", *arguments],
            env=self.environment,
            cwd=self.folder,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def json(self, *arguments: str, code: ExitCode = ExitCode.OK, stdin: str = "") -> Any:
        run = self(*arguments, "--json", stdin=stdin)
        assert run.returncode == code, run.stdout + run.stderr
        return json.loads(run.stdout)


@pytest.fixture(scope="module")
def cli(
    postgres_server: TestServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cli]:
    folder = tmp_path_factory.mktemp("cli")
    with postgres_server.database(template=migrated_template) as url:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("RAGCORE_")
        }
        yield Cli(
            environment | {"RAGCORE_DATABASE_URL": url, "RAGCORE_DATA_DIR": str(folder / "data")},
            folder,
        )


@pytest.fixture(scope="module")
def stored(cli: Cli) -> dict[str, Any]:
    """Two documents, in two languages, ingested with metadata; the JSON the command printed."""
    (cli.folder / "papers").mkdir()
    (cli.folder / "papers" / "ferry.txt").write_text(FERRY)
    (cli.folder / "papers" / "поликлиника.md").write_text(CLINIC)
    printed: dict[str, Any] = cli.json("ingest", "papers", "-m", "year=2026")
    return printed


def test_ingest_reports_each_file_of_a_folder(stored: dict[str, Any]) -> None:
    assert stored["failed"] == 0
    assert [(job["source"], job["outcome"], job["language"]) for job in stored["jobs"]] == [
        ("papers/ferry.txt", "created", "en"),
        ("papers/поликлиника.md", "created", "ru"),
    ]


def test_ingesting_again_changes_nothing(cli: Cli, stored: dict[str, Any]) -> None:
    again = cli.json("ingest", "papers", "-m", "year=2026")
    assert [job["outcome"] for job in again["jobs"]] == ["unchanged", "unchanged"]
    assert [job["document_id"] for job in again["jobs"]] == [
        job["document_id"] for job in stored["jobs"]
    ]


def test_one_bad_file_stops_no_other(cli: Cli) -> None:
    folder = cli.folder / "mixed"
    folder.mkdir()
    (folder / "empty.txt").write_text("")
    (folder / "good.txt").write_text("The boiler was cleaned in March.")
    run = cli("ingest", "mixed", "missing.pdf", "-c", "mixed")
    assert run.returncode == ExitCode.FAILED
    rows = {line.split()[0]: line for line in run.stdout.splitlines() if line.strip()}
    assert "no_text_found" in rows["mixed/empty.txt"]
    assert "created" in rows["mixed/good.txt"]
    assert "invalid_input" in rows["missing.pdf"]
    assert "[3/3]" in run.stderr
    assert "Traceback" not in run.stderr


def test_text_comes_from_standard_input(cli: Cli) -> None:
    printed = cli.json(
        *("ingest", "-", "--title", "Журнал", "--document-id", "log-1", "-c", "stdin"),
        stdin="Насос заменили в мае.",
    )
    assert printed["jobs"][0]["document_id"] == "log-1"
    assert cli.json("docs", "show", "log-1", "-c", "stdin")["title"] == "Журнал"


def test_a_title_for_several_documents_is_wrong_usage(cli: Cli) -> None:
    run = cli("ingest", "papers", "--title", "x")
    assert run.returncode == ExitCode.USAGE
    assert run.stderr.startswith("error: invalid_input:")


def test_an_answer_cites_its_document(cli: Cli, stored: dict[str, Any]) -> None:
    answer = cli.json("ask", "Когда открыта регистратура?")
    assert "восьми утра" in answer["answer"]
    cited = answer["citations"][0]
    assert cited["document_id"] == stored["jobs"][1]["document_id"]
    assert cited["supported"] is True
    assert answer["no_answer_reason"] is None


def test_an_answer_as_text_names_title_and_quote(cli: Cli, stored: dict[str, Any]) -> None:
    run = cli("ask", "When does the ferry Kittiwake leave?")
    assert run.returncode == ExitCode.OK, run.stderr
    assert "06:40" in run.stdout
    assert "[1] " in run.stdout
    assert f"“{FERRY.strip()}”" in run.stdout
    assert "\x1b" not in run.stdout


def test_no_answer_has_an_exit_code_of_its_own(cli: Cli, stored: dict[str, Any]) -> None:
    answer = cli.json("ask", "Who painted the Mona Lisa?", code=ExitCode.NOTHING_FOUND)
    assert answer["no_answer_reason"] in ("no_relevant_passages", "not_in_passages")
    assert answer["citations"] == []


def test_search_filters_and_explains(cli: Cli, stored: dict[str, Any]) -> None:
    found = cli.json("search", "ferry", "-f", "year=2026", "-f", "language=en", "--explain")
    assert [passage["text"] for passage in found["passages"]] == [FERRY.strip()]
    assert found["passages"][0]["explanation"]["keyword_rank"] == 1
    assert found["passages"][0]["metadata"] == {"year": 2026}


def test_nothing_found_has_an_exit_code_of_its_own(cli: Cli, stored: dict[str, Any]) -> None:
    found = cli.json("search", "ferry", "-f", "year=1999", code=ExitCode.NOTHING_FOUND)
    assert found["passages"] == []


def test_a_collection_that_is_not_there_is_not_made_by_asking(cli: Cli) -> None:
    error = cli.json("ask", "x", "-c", "typo", code=ExitCode.NOT_FOUND)["error"]
    assert error["code"] == "collection_not_found"
    names = [entry["name"] for entry in cli.json("collections", "list")["collections"]]
    assert "typo" not in names


def test_documents_are_listed_page_by_page(cli: Cli, stored: dict[str, Any]) -> None:
    first = cli.json("docs", "list", "--limit", "1")
    second = cli.json("docs", "list", "--limit", "5", "--after", first["next_cursor"])
    assert second["next_cursor"] is None
    listed = [document["document_id"] for document in first["documents"] + second["documents"]]
    assert listed == sorted(job["document_id"] for job in stored["jobs"])


def test_a_document_shows_its_chunks_and_how_it_was_read(cli: Cli, stored: dict[str, Any]) -> None:
    document_id = stored["jobs"][1]["document_id"]
    shown = cli.json("docs", "show", document_id, "--chunks")
    assert shown["reading_report"]["characters"] > 0
    assert shown["chunk_list"][0]["headings"] == ["Поликлиника"]
    assert "Регистратура открыта" in cli("docs", "show", document_id, "--chunks").stdout


def test_a_deletion_gives_a_receipt_and_names_what_was_not_there(cli: Cli) -> None:
    cli.json("ingest", "-", "--document-id", "gone", "-c", "trash", stdin="Soon forgotten.")
    run = cli("docs", "delete", "gone", "never-was", "-c", "trash", "--yes")
    assert run.returncode == ExitCode.NOT_FOUND
    assert run.stdout.startswith("Deleted 1 documents, 1 chunks")
    assert "document_not_found" in run.stderr and "'never-was'" in run.stderr
    assert cli.json("docs", "list", "-c", "trash")["documents"] == []


def test_a_deletion_is_not_done_without_a_yes(cli: Cli, stored: dict[str, Any]) -> None:
    run = cli("docs", "delete", stored["jobs"][0]["document_id"], stdin="n\n")
    assert run.returncode == ExitCode.FAILED
    assert len(cli.json("docs", "list")["documents"]) == 2


def test_collections_are_created_shown_and_deleted(cli: Cli) -> None:
    created = cli.json("collections", "create", "archive", "--language", "ru", "--strict")
    assert created["strict"] is True
    assert cli.json("collections", "create", "archive", "--language", "ru", "--strict")
    shown = cli.json("collections", "show", "archive")
    assert (shown["language"], shown["documents"], shown["chunks"]) == ("ru", 0, 0)
    assert cli.json("collections", "delete", "archive", "--yes")["collection"] == "archive"
    error = cli.json("collections", "show", "archive", code=ExitCode.NOT_FOUND)["error"]
    assert error["code"] == "collection_not_found"


def test_a_database_that_is_away_is_told_as_such(cli: Cli) -> None:
    away = Cli(cli.environment | {"RAGCORE_DATABASE_URL": NOWHERE}, cli.folder)
    run = away("search", "x")
    assert run.returncode == ExitCode.UNAVAILABLE
    assert run.stderr.startswith("error: store_unavailable:")
    assert "Traceback" not in run.stderr
    assert "secret" not in run.stderr


def test_a_setting_out_of_range_is_named(cli: Cli) -> None:
    wrong = Cli(cli.environment | {"RAGCORE_SEARCH__TOP_K": "0"}, cli.folder)
    run = wrong("search", "x")
    assert run.returncode == ExitCode.UNAVAILABLE
    assert run.stderr.startswith("error: not_configured: RAGCORE_SEARCH__TOP_K:")


def test_a_configuration_file_that_is_no_toml_is_named(cli: Cli) -> None:
    file = cli.folder / "broken.toml"
    file.write_text("[search\n")
    run = cli("--config", str(file), "search", "x")
    assert run.returncode == ExitCode.UNAVAILABLE
    assert run.stderr.startswith(f"error: not_configured: the configuration file '{file}'")


def test_a_wrong_name_is_told_once_and_not_for_each_document(cli: Cli) -> None:
    for option in ("--collection", "--document-id"):
        run = cli("ingest", str(SAMPLES / "crew-handbook.md"), option, "no name")
        assert run.returncode == ExitCode.USAGE
        assert run.stderr.count("'no name'") == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [("markdown", "# Crew handbook"), ("text", "The line's working channel is 72.")],
)
def test_convert_needs_no_database(cli: Cli, target: str, expected: str) -> None:
    away = Cli(cli.environment | {"RAGCORE_DATABASE_URL": NOWHERE}, cli.folder)
    run = away("convert", str(SAMPLES / "crew-handbook.md"), "--to", target)
    assert run.returncode == ExitCode.OK, run.stderr
    assert expected in run.stdout


def test_convert_writes_chunks_and_the_docling_document_as_json(cli: Cli) -> None:
    pdf = str(SAMPLES / "timetable-and-fares-2026.pdf")
    chunks = json.loads(cli("convert", pdf, "--to", "chunks").stdout)
    assert {place["page"] for chunk in chunks for place in chunk["places"]} == {1, 2, 3, 4}
    whole = cli.json("convert", pdf)
    assert whole["report"]["pages"] == 4
    target = cli.folder / "docling.json"
    assert cli("convert", pdf, "--to", "json", "--output", str(target)).stdout == ""
    assert json.loads(target.read_text(encoding="utf-8"))["schema_name"] == "DoclingDocument"


def test_convert_says_why_a_file_can_not_be_read(cli: Cli) -> None:
    noise = cli.folder / "noise.bin"
    noise.write_bytes(bytes(range(256)) * 4)
    error = cli.json("convert", str(noise), code=ExitCode.FAILED)["error"]
    assert error["code"] == "unsupported_format"


def test_watching_ingests_a_changed_file_again_until_interrupted(cli: Cli) -> None:
    folder = cli.folder / "watched"
    folder.mkdir()
    (folder / "note.txt").write_text("The lamp is green.")
    with subprocess.Popen(
        [sys.executable, "-m", "ragcore.cli", "ingest", "watched", "--watch", "--json"],
        env=cli.environment,
        cwd=cli.folder,
        stdout=subprocess.PIPE,
        text=True,
        # A shell has what it starts in the background ignore Ctrl-C, and so would our child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            first = next_line(process)
            (folder / "note.txt").write_text("The lamp is red, and the arm is locked.")
            second = next_line(process)
            (folder / "other.txt").write_text("The ramp is down.")
            third = next_line(process)
        finally:
            process.send_signal(signal.SIGINT)
    code = process.returncode
    assert (first["source"], first["outcome"]) == ("watched/note.txt", "created")
    assert (second["source"], second["outcome"]) == ("watched/note.txt", "updated")
    assert second["document_id"] == first["document_id"]
    assert (third["source"], third["outcome"]) == ("watched/other.txt", "created")
    assert code == 130


def next_line(process: "subprocess.Popen[str]") -> Any:
    """The next JSON line of a command that goes on."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the command ended"
    return json.loads(line)


def test_a_reader_that_leaves_early_causes_no_traceback(cli: Cli, stored: dict[str, Any]) -> None:
    run = subprocess.run(
        [BASH, "-c", f"{sys.executable} -m ragcore.cli docs list --json | head -n 1"],
        env=cli.environment,
        cwd=cli.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "{\n"
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_json_goes_through_jq(cli: Cli, stored: dict[str, Any]) -> None:
    ask = f"{sys.executable} -m ragcore.cli ask 'Когда открыта регистратура?' --json"
    run = subprocess.run(
        [BASH, "-c", f"{ask} | jq -r .answer"],
        env=cli.environment | {"LC_ALL": "C"},
        cwd=cli.folder,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert "восьми утра" in run.stdout
