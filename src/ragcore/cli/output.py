"""What the commands print: text or JSON on stdout, everything else on stderr, and exit codes."""

import dataclasses
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO
from uuid import UUID

import typer

from ragcore.errors import InvalidInput, NotFound, RagError, Unavailable, Unsupported

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

_PIPE_WIDTH = 160
"""Columns of a table that goes into a pipe or a file, where there is no window to fit."""


class ExitCode(IntEnum):
    """What scripts can rely on; docs/reference/cli.md explains each."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    NOTHING_FOUND = 5


_EXIT_CODES: tuple[tuple[type[RagError], ExitCode], ...] = (
    (NotFound, ExitCode.NOT_FOUND),
    (InvalidInput, ExitCode.USAGE),
    (Unavailable, ExitCode.UNAVAILABLE),
    (Unsupported, ExitCode.UNAVAILABLE),
    (RagError, ExitCode.FAILED),
)


def exit_code_of(error: Exception) -> ExitCode:
    """Return the code a command ends with when this error stops it."""
    for family, code in _EXIT_CODES:
        if isinstance(error, family):
            return code
    return ExitCode.FAILED


# --- errors --------------------------------------------------------------------------------


@contextmanager
def errors_told(*, as_json: bool) -> Iterator[None]:
    """Turn what goes wrong inside into one message and an exit code.

    The outermost edge of a command: an unexpected exception is told as `internal`, too. The
    traceback is shown when RAGCORE_LOG_LEVEL is `debug`.
    """
    try:
        yield
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise
    except Exception as error:
        tell_error(error, as_json=as_json)
        raise typer.Exit(exit_code_of(error)) from error


def tell_error(error: Exception, *, as_json: bool) -> None:
    """Print the public code of an error and what to do, as JSON on stdout or on stderr."""
    if _debugging():
        traceback.print_exception(error)
    told = describe_error(error)
    if as_json:
        print_json({"error": told})
    else:
        sys.stderr.write(f"error: {told['code']}: {told['detail']}\n")


def tell_unexpected(source: str, error: Exception) -> None:
    """Log a bug that one document met, with its traceback when debugging."""
    log.error("%r: %s: %s", source, type(error).__name__, error, exc_info=_debugging())


def describe_error(error: Exception) -> dict[str, Any]:
    """Return `code`, `detail` and `retryable` of an error, as in a failed job."""
    if isinstance(error, RagError):
        return {"code": error.code, "detail": str(error), "retryable": error.retryable}
    detail = f"{type(error).__name__}: {error}"
    if not _debugging():
        detail += " (unexpected; RAGCORE_LOG_LEVEL=debug shows where)"
    return {"code": RagError.code, "detail": detail, "retryable": False}


def _debugging() -> bool:
    return os.environ.get("RAGCORE_LOG_LEVEL", "").lower() == "debug"


# --- JSON ----------------------------------------------------------------------------------


def print_json(value: Any) -> None:
    """Print a value of the model, or of plain types, as one JSON document on stdout."""
    sys.stdout.write(json_text(value) + "\n")


def json_text(value: Any) -> str:
    """Return a value of the model, or of plain types, as an indented JSON document."""
    return json.dumps(jsonable(value), ensure_ascii=False, indent=2)


def print_json_line(value: Any) -> None:
    """Print a value as one line, at once, for commands that go on."""
    sys.stdout.write(json.dumps(jsonable(value), ensure_ascii=False) + "\n")
    sys.stdout.flush()


def jsonable(value: Any) -> Any:
    """Return plain types for a value of the model, in the shapes of the HTTP interface.

    Dataclasses become objects under their own field names, with two exceptions: an answer's
    `text` is called `answer`, and a passage tells `page` and `bbox` of its first place.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _object_of(value)
    if isinstance(value, Mapping):
        return {str(key): jsonable(entry) for key, entry in value.items()}
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(jsonable(entry) for entry in value)
    if isinstance(value, (list, tuple)):
        return [jsonable(entry) for entry in value]
    return value


def _object_of(value: Any) -> dict[str, Any]:
    fields = {f.name: jsonable(getattr(value, f.name)) for f in dataclasses.fields(value)}
    kind = type(value).__name__
    if kind == "Answer":
        fields = {"answer": fields.pop("text"), **fields}
    if kind == "Passage":
        fields |= {"page": value.page, "bbox": jsonable(value.box)}
    return fields


# --- text ----------------------------------------------------------------------------------


def stdout_console() -> "Console":
    """Return a console for results: no colour and no wrapping at 80 columns in a pipe."""
    return _console(sys.stdout)


def stderr_console() -> "Console":
    """Return a console for progress and hints."""
    return _console(sys.stderr)


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False)


def print_table(title: str | None, columns: Mapping[str, str], rows: list[list[str]]) -> None:
    """Print a table on stdout; `columns` maps each heading to `left` or `right`."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, side in columns.items():
        table.add_column(heading, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    stdout_console().print(table)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Print a value of plain types, a field a line; `a.b` is the field `b` inside `a`."""
    lines = dict(_flattened(fields))
    width = max(map(len, lines), default=0)
    for name, value in lines.items():
        stdout_console().print(f"{name:<{width}}  {shown(value)}", soft_wrap=True)


def _flattened(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, value


def shown(value: object) -> str:
    """Return a table cell: a dash where there is nothing to show."""
    return "–" if value is None or value in ("", {}) else str(value)


def warn(message: str) -> None:
    """Tell the person, not the pipe."""
    sys.stderr.write(f"warning: {message}\n")


def speak_any_language() -> None:
    """Print every character whatever the locale says: UTF-8 into pipes, escapes as a last resort.

    Under an ASCII locale Cyrillic would otherwise end the command with UnicodeEncodeError, and a
    file name that is not UTF-8 would do so everywhere.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(
                encoding=None if stream.isatty() else "utf-8", errors="backslashreplace"
            )
