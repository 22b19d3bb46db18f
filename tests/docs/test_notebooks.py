"""The notebooks are run as a reader would, and kept without what running leaves in them."""

import json
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from buckets import S3Server
from conftest import TestServer
from docs.pages import REPOSITORY

EXECUTE = Path(sysconfig.get_path("scripts"), "jupyter-execute")
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def test_there_are_notebooks() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_kept_without_results(path: Path) -> None:
    """So that a change shows what somebody wrote: clear the outputs before saving."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}, cell["id"]
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None), cell["id"]
    assert set(notebook["metadata"]["language_info"]) == {"name"}


@pytest.fixture
def environment(
    postgres_server: TestServer,
    migrated_template: str,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """A database, a data directory and a bucket of the notebook's own."""
    bucket = s3_server.make_bucket()
    server = {
        "URL": s3_server.url,
        "BUCKETS": json.dumps([bucket.name]),
        **{name.upper(): str(value) for name, value in s3_server.settings().items()
           if name in ("access_key", "secret_key", "region")},
    }  # fmt: skip
    with postgres_server.database(template=migrated_template) as url:
        monkeypatch.setenv("RAGCORE_DATABASE_URL", url)
        monkeypatch.setenv("RAGCORE_DATA_DIR", str(tmp_path / "data"))
        for name, value in server.items():
            monkeypatch.setenv(f"RAGCORE_BUCKETS__SERVERS__DEMO__{name}", value)
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
        yield


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    cells = executed(path, tmp_path / "executed.ipynb")
    assert [output for cell in cells for output in cell.get("outputs", ())]


def executed(path: Path, copy: Path) -> list[Any]:
    """Run the cells in a kernel of this interpreter; one that raises is an error.

    By a process of its own: what Jupyter leaves open would be this one's to complain about.
    """
    command = [EXECUTE, "--timeout=240", "--startup_timeout=120", f"--output={copy}", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-4000:]
    cells: list[Any] = json.loads(copy.read_text(encoding="utf-8"))["cells"]
    return cells
