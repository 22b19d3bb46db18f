"""The API and its workers as processes of their own, with keys and limits on."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from ragcore.embedded.machine import free_port

KEY = secrets.token_urlsafe(32)
_MANY = 1_000_000
"""Requests a minute: the limiter works, and lets all through."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server process on a port of loopback."""

    port: int
    pid: int


def environment_of(url: str, redis_url: str, data_dir: Path) -> dict[str, str]:
    """The environment of services that share these servers; nothing of the caller's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAGCORE_")}
    return kept | {
        "RAGCORE_DATABASE_URL": url,
        "RAGCORE_REDIS_URL": redis_url,
        "RAGCORE_DATA_DIR": str(data_dir),
        "RAGCORE_ACCESS__ADMIN_KEY": KEY,
        "RAGCORE_ACCESS__REQUESTS_PER_MINUTE": str(_MANY),
        "RAGCORE_LOG_LEVEL": "warning",
    }


@contextmanager
def api_of(environment: Mapping[str, str]) -> Iterator[Server]:
    """Run the API on a free port."""
    port = free_port(None)
    command = [sys.executable, "-m", "ragcore_api"]
    with process(command, {**environment, "RAGCORE_PORT": str(port)}) as pid:
        wait_for(port, "/health/live")
        yield Server(port, pid)


@contextmanager
def worker_of(environment: Mapping[str, str]) -> Iterator[int]:
    """Run one worker; gives its process id."""
    with process([sys.executable, "-m", "ragcore_worker"], environment) as pid:
        yield pid


@contextmanager
def process(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[int]:
    """Run a program for as long as the block."""
    started = subprocess.Popen(command, env=dict(environment))
    try:
        yield started.pid
    finally:
        started.terminate()
        started.wait(60)


def wait_for(port: int, path: str) -> None:
    """Return once the server answers. Raises URLError when it does not within two minutes."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}{path}"):
                return
        except URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
