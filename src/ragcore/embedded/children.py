"""Starting programs that run as another user and never outlive this process."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ragcore.embedded.machine import Account
from ragcore.errors import StoreUnavailable

Process = subprocess.Popen[bytes]

_PR_SET_PDEATHSIG = 1


def start_server(
    command: Sequence[str | Path],
    *,
    account: Account | None,
    stop: signal.Signals,
    log: int,
    keep_open: int,
    piped: bool = False,
) -> Process:
    """Start a server in the foreground, its output going to `log`.

    The descriptor `keep_open` stays open in it and its children. `stop` is what the kernel sends
    it when we die. `piped` gives it an input to be configured through.
    """
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=[keep_open],
        **_conditions(account, stop),
    )


def run_program(command: Sequence[str | Path], *, account: Account | None, text: str = "") -> str:
    """Run a program to its end and return its output. Raises StoreUnavailable."""
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        **_conditions(account, signal.SIGKILL),
    )
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip()
        raise StoreUnavailable(f"{Path(command[0]).name} failed: {complaint}")
    return str(done.stdout)


def _conditions(account: Account | None, stop: signal.Signals) -> dict[str, Any]:
    """The user, environment and end that every program here has."""
    conditions: dict[str, Any] = {
        "cwd": "/",
        "env": _environment(),
        "preexec_fn": dies_with_parent(stop),  # runs after the change of user, which clears it
    }
    if account:
        conditions |= {"user": account.uid, "group": account.gid, "extra_groups": []}
    return conditions


def _environment() -> Mapping[str, str]:
    """Only what the programs need: PG… variables of the caller must not steer them."""
    kept = ("PATH", "LD_LIBRARY_PATH")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C.UTF-8"}


def dies_with_parent(stop: signal.Signals) -> Callable[[], None]:
    """Return a `preexec_fn` that has the kernel send `stop` to the child when its parent dies.

    The signal comes when the *thread* that started the child ends, so start it from the main one.
    """
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(stop))
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return arm
