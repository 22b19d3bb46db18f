"""Links lead somewhere, commands and settings exist, code compiles, tables are up to date."""

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.main import get_command

from docs.pages import PAGES, REPOSITORY, Block, blocks, name_of, prose
from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.client import drivers

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_VARIABLE = re.compile(r"\bRAGCORE_[A-Z0-9_]*[A-Z0-9]\b(?!…)")
_OWN_NAME = re.compile(r"(_BUCKETS__(?:SERVERS|SYNCS)__)[A-Z0-9]+")
_SOURCE_FILE = re.compile(r"`([\w./-]+\.(?:py|sql))`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_of_the_repository(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{name_of(page)} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{name_of(page)} links to {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown renderers make them."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(page.read_text(encoding="utf-8"))
    }


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_can_be_reached_from_the_index(page: Path) -> None:
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        here = waiting.pop()
        if here in reached or here not in PAGES:
            continue
        reached.add(here)
        links = [link.partition("#")[0] for link in _LINK.findall(prose(here)) if "://" not in link]
        waiting += [(here.parent / link).resolve() for link in links if link]
    assert page in reached


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_generated_tables_are_up_to_date(page: Path, generator: ModuleType) -> None:
    text = page.read_text(encoding="utf-8")
    assert generator.rendered(text) == text, "run `make docs`"


def test_the_staleness_test_notices_a_change(generator: ModuleType) -> None:
    text = (REPOSITORY / "docs/reference/settings.md").read_text(encoding="utf-8")
    assert generator.rendered(text.replace("`RAGCORE_PORT`", "`RAGCORE_HARBOUR`")) == text


def test_the_table_of_exit_codes_is_complete() -> None:
    text = (REPOSITORY / "docs/reference/cli.md").read_text(encoding="utf-8")
    listed = set(map(int, re.findall(r"^\| (\d+) \|", text, re.MULTILINE)))
    assert listed == {*map(int, ExitCode), 130}


@pytest.mark.parametrize("block", list(blocks("python")), ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", list(blocks("toml")), ids=str)
def test_toml_parses(block: Block) -> None:
    assert tomllib.loads(block.code)


def shell_commands(program: str) -> Iterator[Any]:
    """Every call of a program in a shell block, as a test parameter with its words."""
    for block in blocks("bash"):
        code = block.code.replace("\\\n", " ")
        for line in code.splitlines():
            for part in re.split(r"\||&&|;", line.partition("  #")[0]):
                words = _words(part)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    words = words[1:]
                if words and words[0] == program:
                    yield pytest.param(words[1:], id=f"{block} {' '.join(words[1:])}")


def _words(part: str) -> list[str]:
    try:
        return shlex.split(part)
    except ValueError:  # a separator inside quotes: not the start of a command
        return []


@pytest.mark.parametrize("words", list(shell_commands("ragcore")))
def test_every_ragcore_command_is_accepted(words: list[str]) -> None:
    """The words are parsed by the command they name, which is not run."""
    command: Any = get_command(app)
    context = command.make_context("ragcore", list(words), resilient_parsing=False)
    rest = [*context._protected_args, *context.args]
    while hasattr(command, "commands") and rest:
        name, command, rest = command.resolve_command(context, rest)
        if "--help" in rest:
            return
        rest = [word if Path(word).suffix == "" else __file__ for word in rest]
        context = command.make_context(name, list(rest), parent=context)
        rest = [*getattr(context, "_protected_args", ()), *context.args]


@pytest.mark.parametrize("words", list(shell_commands("make")))
def test_every_make_task_exists(words: list[str]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{re.escape(words[0])}:", makefile, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_source_file_named_exists(page: Path, source_files: list[str]) -> None:
    """Pages may leave out the beginning of a path: `flows/submit.py`."""
    for named in _SOURCE_FILE.findall(prose(page)):
        assert any(f"/{path}".endswith(f"/{named}") for path in source_files), named


@pytest.fixture(scope="module")
def source_files() -> list[str]:
    folders = ("src", "services", "samples", "docs", "benchmarks", "tests", "integrations")
    return [
        path.relative_to(REPOSITORY).as_posix()
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.*")
    ]


_INSTALLER = REPOSITORY / "integrations/open_webui/install.py"
"""Says which variables it reads besides."""


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_setting_named_exists(page: Path, generator: ModuleType) -> None:
    known = set(_VARIABLE.findall(generator.settings_table()))
    known |= {"RAGCORE_CONFIG_FILE", drivers.URL, drivers.API_KEY}
    known |= set(_VARIABLE.findall(_INSTALLER.read_text(encoding="utf-8")))
    found = _VARIABLE.findall(page.read_text(encoding="utf-8"))
    named = {_OWN_NAME.sub(r"\1NAME", variable) for variable in found}
    assert named <= known, named - known
