"""Help: complete, with examples, and without loading what is heavy."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from ragcore.cli.app import app

HEAVY = ("llama_index", "docling", "docling_core", "fastapi", "psycopg", "numpy", "pydantic")

PRINT_EVERY_HELP = """
import sys
from typer.testing import CliRunner
from ragcore.cli.app import app
for command in {commands!r}:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, (command, result.output)
print(*(name for name in {heavy!r} if name in sys.modules))
"""


def command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of the tree, groups included, as the words that call it."""
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from command_paths(child, (*path, name))


PATHS = list(command_paths(get_command(app)))
LEAVES = [path for path in PATHS if path and not any(each[:-1] == path for each in PATHS if each)]


def test_no_help_imports_anything_heavy() -> None:
    script = PRINT_EVERY_HELP.format(commands=PATHS, heavy=HEAVY)
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == []


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = f"import sys, ragcore, ragcore.cli; print(*(n for n in {HEAVY!r} if n in sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_teaches_by_example(path: tuple[str, ...]) -> None:
    help_text = CliRunner().invoke(app, [*path, "--help"]).output
    assert "Example" in help_text
    assert f"ragcore {' '.join(path)}" in help_text


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_speaks_json(path: tuple[str, ...]) -> None:
    assert "--json" in CliRunner().invoke(app, [*path, "--help"]).output


def test_a_bare_call_prints_help_and_is_wrong_usage() -> None:
    result = CliRunner().invoke(app, [])
    assert "Usage: ragcore" in result.output
    assert result.exit_code == 2
