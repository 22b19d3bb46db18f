"""`ragcore up` and `ragcore down`."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragcore.cli.options import AsJson
from ragcore.cli.output import errors_told, print_json, print_json_line, stderr_console
from ragcore.cli.session import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ragcore.embedded.run_directory import RunDirectory
    from ragcore.settings import Settings

_POLL_SECONDS = 0.1
_SURE = 5

DataDir = Annotated[
    Path | None,
    typer.Option(help="Where the servers keep everything. [RAGCORE_DATA_DIR]", show_default=False),
]


def up(
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the API, 0 for a free one. [RAGCORE_PORT]"),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Worker processes. [RAGCORE_WORKERS]")
    ] = None,
    detach: Annotated[
        bool | None,
        typer.Option(
            "--detach/--foreground",
            help="Return when everything is ready, and leave it running. [RAGCORE_DETACH]",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start PostgreSQL, Valkey, the API and the workers.

    In the foreground until Ctrl-C, or with --detach in the background until `ragcore down`.
    Servers of your own are used where RAGCORE_DATABASE_URL and RAGCORE_REDIS_URL name them.

    \b
    Examples:
      ragcore up
      ragcore up --detach --port 8800 --workers 2
    """
    with errors_told(as_json=as_json):
        settings = _settings(data_dir=data_dir, port=port, workers=workers, detach=detach)
        if settings.detach:
            _start_in_background(settings, as_json=as_json)
        else:
            _run_in_foreground(settings, as_json=as_json)


def down(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Stop what `ragcore up` started in a data directory; documents stay.

    The database goes on for as long as another process uses it, such as a notebook.

    \b
    Example:
      ragcore down
    """
    with errors_told(as_json=as_json):
        settings = _settings(data_dir=data_dir)
        was_up = _stop_stack(settings)
        left = _servers_in_use(settings)
    where = str(settings.data_dir)
    if as_json:
        print_json({"data_dir": where, "was_up": was_up, "still_in_use": left})
        return
    _say(f"ragcore is down ({where})" if was_up else f"ragcore was not up ({where})")
    if left:
        _say(f"still running, for another process that uses it: {', '.join(left)}")


def _settings(**given: object) -> "Settings":
    """The settings of the environment under the flags that were given."""
    settings = load_settings()
    changes = {name: value for name, value in given.items() if value is not None}
    return settings.model_copy(update=changes)


# --- up ------------------------------------------------------------------------------------


def _run_in_foreground(settings: "Settings", *, as_json: bool) -> None:
    import asyncio

    from ragcore import logs
    from ragcore.cli.stack import run_stack

    def tell(url: str) -> None:
        if as_json:
            print_json_line({"url": url, "pid": os.getpid()})
        else:
            _say(f"ragcore is up at {url}; Ctrl-C stops it")

    logs.configure(level=settings.log_level, log_format=settings.log_format)
    asyncio.run(run_stack(settings, on_ready=tell))


def _start_in_background(settings: "Settings", *, as_json: bool) -> None:
    """Start the stack as a process of its own and wait until it is ready, or has failed."""
    from ragcore.cli.stack import environment_of, stack_directory
    from ragcore.embedded.machine import make_data_directory
    from ragcore.errors import Unavailable

    make_data_directory(settings.data_dir)
    run = stack_directory(settings)
    run.make()
    if state := _running(run):
        _tell_background(run, state, "ragcore is already up", as_json=as_json)
        return
    process = _spawn(run, environment_of(settings))
    with stderr_console().status("Starting ragcore …"):
        # What a killed stack left behind is not ours: only the new process's own word counts.
        while not ((state := run.read_state()) and state["ready"] and state["pid"] == process.pid):
            if process.poll() is not None:
                raise Unavailable(f"ragcore did not start; {run.log} ends with:\n{run.log_tail(8)}")
            time.sleep(_POLL_SECONDS)
    _tell_background(run, state, "ragcore is up", as_json=as_json)


def _tell_background(
    run: "RunDirectory", state: "Mapping[str, object]", what: str, *, as_json: bool
) -> None:
    if as_json:
        print_json({"url": state["url"], "pid": state["pid"], "log": str(run.log)})
    else:
        _say(f"{what} at {state['url']} (pid {state['pid']}); its log is {run.log}")


def _running(run: "RunDirectory") -> dict[str, object] | None:
    """The state of a stack that is up, once it is ready; None when none is."""
    while (lock := run.try_lock("supervisor")) is None:
        if (state := run.read_state()) and state["ready"]:
            return state
        time.sleep(_POLL_SECONDS)
    lock.release()
    return None


def _spawn(run: "RunDirectory", environment: dict[str, str]) -> "subprocess.Popen[bytes]":
    from ragcore.cli.stack import PYTHON

    log = os.open(run.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [*PYTHON, "-m", "ragcore.cli.stack"],
            env=environment,  # the directory stays, too: settings may hold relative paths
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    finally:
        os.close(log)


# --- down ----------------------------------------------------------------------------------


def _stop_stack(settings: "Settings") -> bool:
    """Stop the stack and wait for its end; False when it was not up."""
    import signal

    from ragcore.cli.stack import stack_directory

    run = stack_directory(settings)
    if not run.directory.is_dir():
        return False
    was_up = False
    while (lock := run.try_lock("supervisor")) is None:
        state = run.read_state()
        if state and not was_up:
            os.kill(state["pid"], signal.SIGTERM)
            was_up = True
        time.sleep(_POLL_SECONDS)
    lock.release()
    return was_up


def _servers_in_use(settings: "Settings") -> list[str]:
    """Wait for the embedded servers to stop; return those that other processes keep running."""
    from ragcore.embedded.run_directory import RunDirectory

    runs = [RunDirectory(settings.data_dir.absolute(), name) for name in ("postgres", "valkey")]
    return [run.server for run in runs if run.directory.is_dir() and not _has_stopped(run)]


def _has_stopped(run: "RunDirectory") -> bool:
    """Wait until the server's supervisor is gone, or somebody is seen to keep it."""
    seen = 0
    while (lock := run.try_lock("supervisor")) is None:
        # A supervisor that looks for users holds their lock for a moment: look more than once.
        seen = seen + 1 if _has_users(run) else 0
        if seen == _SURE:
            return False
        time.sleep(_POLL_SECONDS)
    lock.release()
    return True


def _has_users(run: "RunDirectory") -> bool:
    """Whether the lock of the users is shared, and not held whole by a closing supervisor."""
    whole = run.try_lock("users")
    share = None if whole else run.try_lock("users", shared=True)
    for lock in (whole, share):
        if lock:
            lock.release()
    return share is not None


def _say(message: str) -> None:
    sys.stderr.write(message + "\n")
