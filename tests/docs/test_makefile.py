"""`make` explains itself, and says what is missing before anything is installed."""

import json
import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

from docs.pages import REPOSITORY

MAKE = shutil.which("make") or "make"
MAKEFILE = REPOSITORY / "Makefile"


def make(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [MAKE, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture
def bare_clone(tmp_path: Path) -> Path:
    """A folder in which nothing is installed yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def test_make_alone_prints_every_task_with_its_purpose(bare_clone: Path) -> None:
    printed = make(bare_clone).stdout
    phony = re.findall(r"^\.PHONY: (\S+)$", MAKEFILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {"install", "demo", "test", "check", "docs", "bench", "down"} <= set(phony)
    for task in phony:
        assert re.search(rf"^  {task} +[A-Z]", printed, re.MULTILINE), task
    assert not (bare_clone / ".venv").exists()


def test_install_says_that_python_is_too_old_or_missing(bare_clone: Path) -> None:
    run = make(bare_clone, "PYTHON=", "install")
    assert run.returncode != 0
    assert "ragcore needs Python 3.11 or newer" in run.stderr
    assert "make PYTHON=/path/to/python3.11 install" in run.stderr


def test_install_says_that_the_venv_module_is_missing(bare_clone: Path) -> None:
    python = bare_clone / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    run = make(bare_clone, f"PYTHON={python}", "install")
    assert run.returncode != 0
    assert "apt-get install python3-venv" in run.stderr


def test_the_scripts_are_sound_and_can_be_run() -> None:
    bash = shutil.which("bash") or "bash"
    for script in (REPOSITORY / ".ci" / "run", REPOSITORY / "samples" / "demo.sh"):
        assert script.stat().st_mode & 0o111, script
        subprocess.run([bash, "-n", str(script)], check=True)


def test_the_demo_asks_what_the_samples_are_known_to_answer() -> None:
    demo = runpy.run_path(str(REPOSITORY / "samples" / "demo.py"))
    questions = json.loads((REPOSITORY / "samples" / "questions.json").read_text(encoding="utf-8"))
    known = {question["question"] for question in questions}
    assert {*demo["QUESTIONS"], demo["OF_THE_SCAN"]} <= known
    assert demo["UNANSWERABLE"] not in known
