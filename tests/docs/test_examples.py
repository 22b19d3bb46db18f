"""The Python examples that are marked `<!-- run -->`, run page by page as a notebook would."""

import ast
import asyncio
import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import TestServer
from docs.pages import PAGES, REPOSITORY, Block, blocks, name_of
from ragcore.settings import Settings
from serving import serving
from working import working

RUN = [page for page in PAGES if any(b.is_run for b in blocks("python") if b.page == page)]


@pytest.fixture(autouse=True)
def environment(
    postgres_server: TestServer,
    migrated_template: str,
    redis_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """A database and a data directory of the page's own; paths are those of the repository."""
    with postgres_server.database(template=migrated_template) as url:
        monkeypatch.setenv("RAGCORE_DATABASE_URL", url)
        monkeypatch.setenv("RAGCORE_REDIS_URL", redis_url)
        monkeypatch.setenv("RAGCORE_DATA_DIR", str(tmp_path))
        monkeypatch.chdir(REPOSITORY)
        yield


def test_the_notebook_page_is_among_those_run() -> None:
    assert "docs/how-to/notebook.md" in map(name_of, RUN)


# The stock vecs client deprecates the method that opens a collection without changing it.
@pytest.mark.filterwarnings("ignore:Call to deprecated method get_collection:DeprecationWarning")
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_the_examples_of_a_page_run_in_order(page: Path) -> None:
    """One namespace and one event loop a page; an exception or a failed assert is an error."""
    printed = io.StringIO()
    with _service_for(page), contextlib.redirect_stdout(printed):
        asyncio.run(run_all([b for b in blocks("python") if b.page == page and b.is_run]))
    assert printed.getvalue().strip()


@contextlib.contextmanager
def _service_for(page: Path) -> Iterator[None]:
    """An API and a worker for a page about the client, at the address it looks for."""
    if "from ragcore.client" not in page.read_text(encoding="utf-8"):
        yield
        return
    key = "the-key-of-the-examples-of-a-page"
    settings = Settings(access={"admin_key": key})
    with working(settings), serving(settings) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAGCORE_URL", url)
        patch.setenv("RAGCORE_API_KEY", key)
        yield


async def run_all(examples: list[Block]) -> None:
    namespace: dict[str, Any] = {"__name__": "__example__"}
    for block in examples:
        code = compile(block.code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, namespace)  # noqa: S307  # our own examples
        if asyncio.iscoroutine(result):
            await result
