"""The files through which the users of a server and its supervisor find one another.

Locks are `flock`s: the kernel drops them when their holder dies, however it dies.

* `<server>.start`: held for a moment by a user that looks for a supervisor, or starts one.
* `<server>.supervisor`: held by the supervisor as long as it lives.
* `<server>.users`: shared by all users; a supervisor that gets it whole knows that it is alone.
* `<server>.process`: inherited by the server and its children, so that nothing starts on its files
  before the last of them is gone.
"""

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from ragcore import errors

LockName = Literal["start", "supervisor", "users", "process"]


class RunDirectory:
    """The `run/` directory of a data directory, as seen for one server."""

    def __init__(self, data_dir: Path, server: str) -> None:
        self.data_dir = data_dir
        self.server = server
        self.directory = data_dir / "run"
        self._secrets = data_dir / "secrets"
        self.log = data_dir / "logs" / f"{server}.log"
        self._state = self.directory / f"{server}.json"
        self._failure = self.directory / f"{server}.failure.json"

    def make(self) -> None:
        """Make the directories, for the current user alone. Raises NotConfigured."""
        try:
            for directory in (self.directory, self._secrets, self.log.parent):
                directory.mkdir(mode=0o700, exist_ok=True)
            if not os.access(self.directory, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(f"{self.directory} belongs to another user")
        except PermissionError as error:
            raise errors.NotConfigured(
                f"the data directory {str(self.data_dir)!r} is not yours to write; "
                "choose another with --data-dir or RAGCORE_DATA_DIR"
            ) from error

    def try_lock(self, name: LockName, *, shared: bool = False) -> "Lock | None":
        """Take a lock if it can be had now."""
        path = self.directory / f"{self.server}.{name}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return Lock(descriptor)

    def wait_for_lock(self, name: LockName, *, timeout_seconds: float) -> "Lock | None":
        """Take a lock, waiting at most so long; blocks the thread."""
        deadline = time.monotonic() + timeout_seconds
        while (lock := self.try_lock(name)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return lock

    def read_state(self) -> dict[str, Any] | None:
        """What runs now (`url`, `port`, `pid`, `supervisor_pid`), None while nothing is ready."""
        state: dict[str, Any] | None = _read(self._state)
        return state

    def write_state(self, state: dict[str, Any]) -> None:
        _write(self._state, state)

    def write_failure(self, error: errors.RagError) -> None:
        _write(self._failure, {"error": type(error).__name__, "message": str(error)})

    def raise_failure(self) -> None:
        """Raise what kept the server from starting, if anything did."""
        if failure := _read(self._failure):
            raise getattr(errors, failure["error"])(failure["message"])

    def clear(self) -> None:
        """Forget the state and the failure of an earlier supervisor."""
        for path in (self._state, self._failure):
            path.unlink(missing_ok=True)

    def log_tail(self, lines: int = 5) -> str:
        """The last lines of the server's log, for an error message."""
        if not self.log.exists():
            return ""
        return "\n".join(
            self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        )

    def secret(self) -> str:
        """Return the server's password, made on first use in a file only its owner can read."""
        path = self._secrets / f"{self.server}.json"
        if (password := _read(path)) is None:
            password = os.urandom(24).hex()
            _write(path, password)
        return str(password)

    def remembered_port(self) -> int | None:
        """The port last used: a restarted server is found where it was."""
        port = _read(self.directory / f"{self.server}.port")
        return None if port is None else int(port)

    def remember_port(self, port: int) -> None:
        _write(self.directory / f"{self.server}.port", port)


class Lock:
    """A held lock; let go with `release`, or by the death of the process."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def release(self) -> None:
        """Let go; safe to repeat."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _write(path: Path, value: Any) -> None:
    """Replace a file whole; 0600 from its first byte."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
