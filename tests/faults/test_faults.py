"""A short set for every run of the tests; `make faults` adds what takes longer.

The quarter of an hour of killing is `benchmarks/faults.py`.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.ollama import FakeOllama
from faults.campaign import Plan, data_directory, drain, left_after_stopping, run
from faults.clients import Client, Log
from faults.ledger import account
from faults.stack import Stack, running
from ragcore.settings import DiskSettings, EmbeddingSettings, OllamaSettings

pytestmark = pytest.mark.slow

only_when_asked = pytest.mark.skipif(
    "RAGCORE_TEST_FAULTS" not in os.environ, reason="takes longer; `make faults` runs it"
)


def test_every_document_outlives_every_fault() -> None:
    report = run(Plan(seed=7, kills=12, documents=60, longest_seconds=45, emptyings=1))
    assert dict(report.ledger.wrongs) == {}
    assert report.orphans == []
    assert min(report.faults.values()) > 0
    assert report.ledger.documents >= 60


@only_when_asked
def test_a_full_disk_loses_nothing_and_is_over_once_there_is_room() -> None:
    with data_directory() as data_dir, file_system_of(data_dir, megabytes=800):
        stack = Stack.small(data_dir, disk=DiskSettings(min_free_mb=0))
        with running(stack):
            log = Log()
            client = Client(stack, log, seed=11, pause_seconds=0.1, name="full")
            client.start()
            time.sleep(5)  # some documents are in place, some on their way
            ballast = data_dir / "ballast"
            fill(ballast)
            time.sleep(15)  # uploads are refused, jobs and PostgreSQL itself run into it
            ballast.unlink()
            client.stop()
            client.join()
            assert client.failure is None
            assert log.repeats > 0
            drain(stack, seconds=240)
            ledger = asyncio.run(account(stack, log))
            assert dict(ledger.wrongs) == {}
            assert left_after_stopping(stack) == []


@contextmanager
def file_system_of(directory: Path, *, megabytes: int) -> Iterator[None]:
    """Mount a small file system of memory; skips where that is not allowed."""
    directory.mkdir()
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    options = f"size={megabytes}m,mode=711"
    if mount is None or unmount is None or os.geteuid() != 0:
        pytest.skip("a small disk takes root to mount")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "ragcore-faults", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk can't be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([unmount, "--lazy", str(directory)], check=True)


def fill(path: Path) -> None:
    """Write until there is no room for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@only_when_asked
def test_an_embedding_server_that_hangs_delays_documents_and_loses_none() -> None:
    with FakeOllama() as ollama, data_directory() as data_dir:
        stack = Stack.small(
            data_dir,
            embedding=EmbeddingSettings(provider="ollama", timeout_seconds=1.0),
            ollama=OllamaSettings(url=ollama.url),
        )
        with running(stack):
            log = Log()
            client = Client(stack, log, seed=12, pause_seconds=0.1, name="slow")
            client.start()
            for _ in range(5):
                ollama.hang(3.0)
                ollama.hang(3.0)
                ollama.fail(500, "model runner has unexpectedly stopped")
                time.sleep(2)
            client.stop()
            client.join()
            assert client.failure is None
            drain(stack, seconds=240)
            ledger = asyncio.run(account(stack, log))
            assert dict(ledger.wrongs) == {}
            assert ollama.embedded != []
            assert left_after_stopping(stack) == []
