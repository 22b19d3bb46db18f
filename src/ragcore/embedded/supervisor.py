"""The process that owns one server: `python -m ragcore.embedded.supervisor`.

It starts the server, starts it again when it crashes, and stops it when the last user is gone.
Users are known by a lock that the kernel takes from them when they die. When the supervisor itself
dies, the kernel stops the server (PR_SET_PDEATHSIG), so nothing is ever left behind. Nothing here
is asynchronous or threaded: the death signal is tied to the thread that starts the server.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Protocol

from ragcore.embedded import machine, postgres, valkey
from ragcore.embedded.children import Process
from ragcore.embedded.run_directory import RunDirectory
from ragcore.errors import RagError, StoreUnavailable, Unavailable

_POLL_SECONDS = 0.2
_START_ATTEMPTS = 5
_READY_SECONDS = 300.0
"""Recovery after a crash replays the log, and may take long."""
_STOP_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 5.0
_LARGEST_LOG_BYTES = 10 * 2**20

_log = logging.getLogger("ragcore.embedded")


class Server(Protocol):
    """What the supervisor needs to know of a server."""

    name: str

    def prepare(self) -> None:
        """Make everything ready for a start. Safe to repeat."""
        ...

    def start(self, port: int, log: int, keep_open: int) -> Process:
        """Start it on a loopback port, in the foreground, as a child that dies with us."""
        ...

    def is_ready(self, process: Process, port: int) -> bool: ...

    def stop(self, process: Process) -> None:
        """Ask for an orderly end; returns at once."""
        ...

    def url(self, port: int) -> str: ...


def main() -> int:
    """Become the supervisor of one server in the background; returns once its lock is held."""
    arguments = _parse()
    run = RunDirectory(arguments.data_dir, arguments.server)
    lock = run.wait_for_lock("supervisor", timeout_seconds=1)
    if lock is None:
        return 0  # somebody else supervises it
    if os.fork():
        os._exit(0)  # the lock lives on in the child, whom nobody has to wait for
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor: %(message)s")
    run.clear()
    try:
        Supervisor(_server(arguments, run), run, arguments.grace_seconds).supervise()
    except RagError as error:
        _log.error("%s", error)
        run.write_failure(error)
    except Exception as error:  # noqa: BLE001 - the edge: nobody above would report it
        _log.exception("the supervisor failed")
        run.write_failure(StoreUnavailable(f"{arguments.server} could not be started: {error!r}"))
    lock.release()  # before the users' lock, which the kernel takes: they must find no supervisor
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ragcore.embedded.supervisor")
    parser.add_argument("server", choices=["postgres", "valkey"])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--postgres-home", type=Path)
    parser.add_argument("--not-durable", action="store_true")
    parser.add_argument("--grace-seconds", type=float, default=3.0)
    return parser.parse_args()


def _server(arguments: argparse.Namespace, run: RunDirectory) -> Server:
    account = machine.server_account()
    data_dir: Path = arguments.data_dir
    machine.check_reachable(account, data_dir)
    if arguments.server == "valkey":
        return valkey.Valkey(data_dir, valkey.bundled_binary(), account, run.secret())
    return postgres.Postgres(
        data_dir,
        arguments.postgres_home or postgres.bundled_home(),
        account,
        run.secret(),
        durable=not arguments.not_durable,
    )


class Supervisor:
    """Keeps one server running for as long as somebody uses it."""

    def __init__(self, server: Server, run: RunDirectory, grace_seconds: float) -> None:
        self._server = server
        self._run = run
        self._grace_seconds = grace_seconds
        self._last_used = time.monotonic()
        self._told_to_stop = False
        self._process: Process | None = None

    def supervise(self) -> None:
        """Serve until the last user is gone, then stop the server; the users' lock stays held.

        Raises what kept the server from starting the first time.
        """
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, self._on_signal)
        try:
            self._server.prepare()
            self._start_first()
            while not self._told_to_stop and self._is_used():
                if self._has_ended():
                    self._start_again()
                time.sleep(_POLL_SECONDS)
        finally:
            self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._told_to_stop = True

    def _is_used(self) -> bool:
        """False once nobody has held the users' lock for the grace period.

        It is ours then: a new user waits for it, and starts a supervisor of its own afterwards.
        """
        lock = self._run.try_lock("users")
        if lock is None:
            self._last_used = time.monotonic()
            return True
        if time.monotonic() - self._last_used >= self._grace_seconds:
            return False
        lock.release()
        return True

    def _start_first(self) -> None:
        for attempt in range(1, _START_ATTEMPTS + 1):
            try:
                self._start()
                return
            except Unavailable as error:
                _log.warning("attempt %d: %s", attempt, error)
                if attempt == _START_ATTEMPTS or self._told_to_stop:
                    raise
            time.sleep(0.1 * 2**attempt)

    def _start_again(self) -> None:
        """Restart a crashed server for its users, for as long as it takes."""
        pause = 0.1
        while not self._told_to_stop:
            try:
                self._start()
                return
            except Unavailable as error:
                _log.error("%s; trying again in %.1f s", error, pause)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _start(self) -> None:
        port = machine.free_port(self._run.remembered_port())
        started = time.monotonic()
        self._process = self._launch(port)
        try:
            self._wait_until_ready(self._process, port)
        except Unavailable:
            self._stop()
            raise
        self._run.remember_port(port)
        self._run.write_state(
            {
                "url": self._server.url(port),
                "port": port,
                "pid": self._process.pid,
                "supervisor_pid": os.getpid(),
            }
        )
        _log.info(
            "%s is ready on port %d after %.2f s (pid %d)",
            self._server.name,
            port,
            time.monotonic() - started,
            self._process.pid,
        )

    def _launch(self, port: int) -> Process:
        """Start the server once no process of an earlier one is left on its files."""
        processes = self._run.wait_for_lock("process", timeout_seconds=_STOP_SECONDS)
        if processes is None:
            raise StoreUnavailable(f"an earlier {self._server.name} is still shutting down")
        log = _open_log(self._run.log)
        try:
            return self._server.start(port, log, processes.descriptor)
        finally:
            os.close(log)
            processes.release()  # ours alone: the server inherited it

    def _wait_until_ready(self, process: Process, port: int) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not self._server.is_ready(process, port):
            if process.poll() is not None:
                raise StoreUnavailable(
                    f"{self._server.name} ended with code {process.returncode}; "
                    f"its log {str(self._run.log)!r} ends with:\n{self._run.log_tail()}"
                )
            if self._told_to_stop or time.monotonic() > deadline:
                raise StoreUnavailable(f"{self._server.name} was not ready in time")
            time.sleep(0.02)

    def _has_ended(self) -> bool:
        if self._process is None or self._process.poll() is None:
            return False
        _log.error("%s ended with code %s", self._server.name, self._process.returncode)
        return True

    def _stop(self) -> None:
        """Stop the server in order; the kernel's way only when it does not end."""
        self._run.clear()
        if self._process is None or self._process.poll() is not None:
            return
        self._server.stop(self._process)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _log.error("%s did not stop in %.0f s: killed", self._server.name, _STOP_SECONDS)
            self._process.kill()
            self._process.wait()
        _log.info("%s stopped", self._server.name)


def _open_log(path: Path) -> int:
    """Open for appending; one that grew large is set aside first."""
    if path.exists() and path.stat().st_size > _LARGEST_LOG_BYTES:
        path.rename(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


if __name__ == "__main__":
    sys.exit(main())
