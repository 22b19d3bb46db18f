"""What goes to stdout, what to stderr, and with which exit code."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO, TextIOWrapper
from uuid import UUID

import pytest
import typer

from ragcore import errors
from ragcore.cli import output
from ragcore.cli.output import ExitCode, exit_code_of
from ragcore.model import Answer, Job, JobFailure, Passage, Place


def error_classes(root: type[errors.RagError] = errors.RagError) -> Iterator[type[errors.RagError]]:
    yield root
    for child in root.__subclasses__():
        yield from error_classes(child)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.DocumentNotFound("x"), ExitCode.NOT_FOUND),
        (errors.InvalidFilter("x"), ExitCode.USAGE),
        (errors.StoreUnavailable("x"), ExitCode.UNAVAILABLE),
        (errors.MissingExtra("x"), ExitCode.UNAVAILABLE),
        (errors.PasswordRequired("x"), ExitCode.FAILED),
        (KeyError("x"), ExitCode.FAILED),
    ],
)
def test_the_exit_code_follows_the_kind_of_error(error: Exception, code: ExitCode) -> None:
    assert exit_code_of(error) is code


@pytest.mark.parametrize("error", list(error_classes()), ids=lambda error: error.__name__)
def test_no_error_ends_as_success_or_as_an_empty_answer(error: type[errors.RagError]) -> None:
    assert exit_code_of(error("x")) not in (ExitCode.OK, ExitCode.NOTHING_FOUND)


def test_an_error_is_told_on_stderr_with_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as stop, output.errors_told(as_json=False):
        raise errors.DocumentNotFound("no document 'x'; look at `ragcore docs list`")
    captured = capsys.readouterr()
    assert stop.value.exit_code == ExitCode.NOT_FOUND
    assert captured.out == ""
    assert captured.err == (
        "error: document_not_found: no document 'x'; look at `ragcore docs list`\n"
    )


def test_with_json_the_error_is_the_one_document_on_stdout(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit), output.errors_told(as_json=True):
        raise errors.StoreUnavailable("PostgreSQL is away")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {"code": "store_unavailable", "detail": "PostgreSQL is away", "retryable": True}
    }
    assert captured.err == ""


def test_a_bug_is_told_in_one_line_without_its_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAGCORE_LOG_LEVEL", raising=False)
    with pytest.raises(typer.Exit) as stop, output.errors_told(as_json=False):
        raise ZeroDivisionError("division by zero")
    told = capsys.readouterr().err
    assert stop.value.exit_code == ExitCode.FAILED
    assert told.startswith("error: internal: ZeroDivisionError: division by zero")
    assert told.count("\n") == 1
    assert "Traceback" not in told


def test_the_traceback_is_shown_when_debugging(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCORE_LOG_LEVEL", "debug")
    with pytest.raises(typer.Exit), output.errors_told(as_json=False):
        raise errors.NoTextFound("empty")
    assert "Traceback" in capsys.readouterr().err


def test_a_closed_pipe_and_an_exit_pass_through() -> None:
    for stop in (BrokenPipeError(), typer.Exit(5), typer.Abort()):
        with pytest.raises(type(stop)), output.errors_told(as_json=False):
            raise stop


def test_a_job_becomes_plain_json() -> None:
    job = Job(
        job_id=UUID(int=7),
        collection="default",
        document_id="a",
        status="failed",
        error=JobFailure("no_text_found", "Пусто", retryable=False),
        created_at=datetime(2026, 3, 2, tzinfo=UTC),
    )
    told = json.loads(json.dumps(output.jsonable(job)))
    assert told["job_id"] == "00000000-0000-0000-0000-000000000007"
    assert told["error"] == {"code": "no_text_found", "detail": "Пусто", "retryable": False}
    assert told["created_at"] == "2026-03-02T00:00:00+00:00"


def test_an_answer_and_its_passages_have_the_names_of_the_http_interface() -> None:
    passage = Passage(
        chunk_id="c",
        document_id="d",
        collection="default",
        ordinal=0,
        text="t",
        places=(Place(3, (1.0, 2.0, 3.0, 4.0)),),
    )
    told = output.jsonable(Answer(text="Yes [1]", citations=(), passages=(passage,)))
    assert told["answer"] == "Yes [1]"
    assert "text" not in told
    assert told["passages"][0]["page"] == 3
    assert told["passages"][0]["bbox"] == [1.0, 2.0, 3.0, 4.0]
    assert told["passages"][0]["text"] == "t"


@pytest.mark.parametrize("locale_encoding", ["ascii", "koi8-r", "utf-8"])
def test_a_pipe_gets_utf8_under_any_locale(
    locale_encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = BytesIO()
    monkeypatch.setattr("sys.stdout", TextIOWrapper(pipe, encoding=locale_encoding))
    output.speak_any_language()
    output.print_json(
        {"title": "Зимний режим", "name": b"caf\xe9".decode(errors="surrogateescape")}
    )
    written = json.loads(_flushed(pipe).decode("utf-8"))
    assert written == {"title": "Зимний режим", "name": "caf\udce9"}


def _flushed(pipe: BytesIO) -> bytes:
    import sys

    sys.stdout.flush()
    return pipe.getvalue()


def test_document_text_is_never_taken_for_markup(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(None, {"text": "left"}, [["[bold]1[/bold] :smile: [x]"]])
    output.stdout_console().print("[red]a[/red] [1]")
    printed = capsys.readouterr().out
    assert "[bold]1[/bold] :smile: [x]" in printed
    assert "[red]a[/red] [1]" in printed


def test_a_table_in_a_pipe_has_no_colour_and_keeps_long_names(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "a-rather-long-file-name-" * 4
    output.print_table(None, {"document": "left"}, [[name]])
    printed = capsys.readouterr().out
    assert name in printed
    assert "\x1b" not in printed
