"""A stack of its own in a data directory of its own: started, looked into, killed in parts.

Only processes that provably belong to the data directory are ever signalled: they name it in their
command line or environment, or descend from one that does. The signal goes through a `pidfd`, so it
can't hit a stranger that got the number of a process that has just ended.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import redis

from ragcore.embedded.run_directory import RunDirectory
from ragcore.settings import ConversionSettings, Settings

_COMMAND_SECONDS = 200.0
_CLI = "from ragcore.cli import main; main()"
_MODULES = {
    "ragcore.cli.stack": "up",
    "ragcore_api": "api",
    "ragcore_worker": "worker",
    "ragcore.adapters.docling.child": "child",
    "ragcore.embedded.supervisor": "supervisor",
}


@dataclass(frozen=True, slots=True)
class Process:
    """One process as it was seen."""

    pid: int
    parent: int
    started: str
    """In ticks since the machine started: with the pid it names one process for ever."""
    command: tuple[str, ...]
    role: str
    """`up`, `api`, `worker`, `child`, `supervisor`, `valkey`, `postgres`, `backend` or `other`."""

    @property
    def state(self) -> str:
        """As in /proc: `T` is stopped, `D` waits for a disk; empty when it is gone."""
        return (_stat(self.pid) or [""])[0]

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal; False when this process is gone."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if _started(self.pid) != self.started:
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True


class Stack:
    """`ragcore up` with the settings given, in the background, with its own servers."""

    def __init__(self, settings: Settings) -> None:
        assert settings.database_url is None, "only servers of its own are ever harmed"
        assert settings.redis_url is None
        self.settings = settings
        self.data_dir = settings.data_dir.absolute()
        ours = {name: value for name, value in os.environ.items() if name[:8] != "RAGCORE_"}
        self._environment = ours | _as_environment(settings)

    @classmethod
    def small(cls, data_dir: Path, **settings: Any) -> "Stack":
        """Two workers that are soon back when they are killed, on a free port."""
        return cls(
            Settings(
                data_dir=data_dir,
                port=0,
                workers=2,
                conversion=ConversionSettings(processes=1),
                **settings,
            )
        )

    # --- as its user starts and stops it -----------------------------------------------------

    def start(self) -> None:
        """Bring it up and return when it is ready; `up.log` begins anew, `all.log` goes on."""
        log = self.data_dir / "logs" / "up.log"
        if log.exists():
            with (log.with_name("all.log")).open("ab") as all_logs:
                all_logs.write(log.read_bytes())
        done = self._command("up", "--detach")
        if done.returncode:
            raise AssertionError(f"the stack did not start: {done.stderr}")

    def stop(self) -> None:
        """Take it down in order."""
        done = self._command("down")
        if done.returncode:
            raise AssertionError(f"the stack did not stop: {done.stderr}")

    def _command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        try:
            return subprocess.run(
                [sys.executable, "-P", "-c", _CLI, *arguments],
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=_COMMAND_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            left = "\n".join(f"{each.pid} {each.role} {each.state}" for each in self.processes())
            raise AssertionError(
                f"`ragcore {arguments[0]}` did not end in {_COMMAND_SECONDS:.0f} s:\n{left}"
            ) from error

    # --- as its operator sees it -------------------------------------------------------------

    @property
    def url(self) -> str | None:
        """Where the API is, or was last; None while the stack is down."""
        state = self._state("up")
        return None if state is None else str(state["url"])

    def is_ready(self) -> bool:
        if (url := self.url) is None:
            return False
        try:
            return httpx.get(f"{url}/health/ready", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database. Raises psycopg.OperationalError while it is away."""
        state = self._state("postgres")
        if state is None:
            raise psycopg.OperationalError("PostgreSQL is not up")
        with psycopg.connect(state["url"], connect_timeout=5) as connection:
            return connection.execute(query, values or None).fetchall()

    def empty_redis(self) -> bool:
        """Delete everything in Redis; False when it is away."""
        state = self._state("valkey")
        if state is None:
            return False
        with (
            redis.Redis.from_url(state["url"], socket_timeout=5) as client,
            suppress(redis.RedisError),
        ):
            return bool(client.flushall())
        return False

    def _state(self, server: str) -> dict[str, Any] | None:
        return RunDirectory(self.data_dir, server).read_state()

    # --- as who kills it sees it -------------------------------------------------------------

    def processes(self, role: str | None = None) -> list[Process]:
        """Every process of this stack, or those of one role."""
        seen = dict(_all_processes())
        mine = str(self.data_dir).encode()
        named = {pid for pid in seen if mine in _read(pid, "cmdline") + _read(pid, "environ")}
        named.discard(os.getpid())
        found = [
            _as_process(pid, seen) for pid in seen if not named.isdisjoint(_lineage(pid, seen))
        ]
        return [process for process in found if role in (None, process.role)]

    def kill_all(self) -> int:
        """Kill whatever is left of it, again and again until nothing is; return how many."""
        killed = 0
        for _ in range(100):
            if not (left := self.processes()):
                break
            for process in left:
                killed += process.signal(signal.SIGKILL)
            time.sleep(0.05)
        return killed


def _as_environment(settings: Settings) -> dict[str, str]:
    """The variables that say what was set."""
    variables = {}
    for name, value in settings.model_dump(mode="json", exclude_unset=True).items():
        fields = value if isinstance(value, dict) else {"": value}
        for field, setting in fields.items():
            variable = f"RAGCORE_{name}__{field}" if field else f"RAGCORE_{name}"
            variables[variable.upper()] = str(setting)
    return variables


@contextmanager
def running(stack: Stack) -> Iterator[Stack]:
    """Start a stack; afterwards nothing of it is left, whatever happened."""
    try:
        stack.start()
        yield stack
    finally:
        for process in stack.processes():
            process.signal(signal.SIGCONT)
        stack.kill_all()


def wait_until(condition: Callable[[], object], *, seconds: float, what: str) -> float:
    """Wait, and return how long it took. Raises AssertionError when it takes too long."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() > started + seconds:
            raise AssertionError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.05)
    return time.monotonic() - started


# --- /proc -----------------------------------------------------------------------------------


def _all_processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """Yield pid → (parent, start) of all that run, zombies left out."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            fields = _stat(int(path.name))
            if fields and fields[0] not in "ZX":
                yield int(path.name), (int(fields[1]), fields[19])


def _as_process(pid: int, seen: Mapping[int, tuple[int, str]]) -> Process:
    parent, started = seen[pid]
    command = tuple(_read(pid, "cmdline").decode(errors="replace").rstrip("\0").split("\0"))
    return Process(pid, parent, started, command, _role(command))


def _role(command: tuple[str, ...]) -> str:
    program = Path(command[0]).name
    if program == "valkey-server" or program.startswith("valkey-server "):
        return "valkey"
    if program == "postgres" and "-D" in command:
        return "postgres"
    if command[0].startswith("postgres: ") and "127.0.0.1(" in command[0]:
        return "backend"
    return next((role for module, role in _MODULES.items() if module in command), "other")


def _lineage(pid: int, seen: Mapping[int, tuple[int, str]]) -> Iterator[int]:
    while pid in seen:
        yield pid
        pid = seen[pid][0]


def _started(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; empty when the process is gone."""
    return _read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
