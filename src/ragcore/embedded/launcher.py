"""The users' side: find a running server, or have one started, and hold it while it is needed."""

import asyncio
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from ragcore.embedded.machine import check_machine, make_data_directory
from ragcore.embedded.postgres import bundled_home
from ragcore.embedded.run_directory import Lock, RunDirectory
from ragcore.embedded.valkey import bundled_binary
from ragcore.errors import RagError, StoreUnavailable

ServerName = Literal["postgres", "valkey"]

_POLL_SECONDS = 0.02
_WATCH_SECONDS = 1.0
_START_TIMEOUT_SECONDS = 300.0

_log = logging.getLogger(__name__)


class EmbeddedServers:
    """Addresses of the running servers; they hold while the context that gave them is open."""

    def __init__(self, leases: Mapping[ServerName, "Lease"]) -> None:
        self._leases = leases

    @property
    def database_url(self) -> str:
        """`postgresql://…` with its password, database `ragcore`, a superuser of that cluster."""
        return str(self._leases["postgres"].state["url"])

    @property
    def redis_url(self) -> str:
        """`redis://…` with its password."""
        return str(self._leases["valkey"].state["url"])

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: each server, and its supervisor as `<server>.supervisor`."""
        found: dict[str, int] = {}
        for name, lease in self._leases.items():
            found[name] = int(lease.state["pid"])
            found[f"{name}.supervisor"] = int(lease.state["supervisor_pid"])
        return found


@asynccontextmanager
async def embedded_servers(
    data_dir: Path,
    *,
    postgres: bool = True,
    valkey: bool = True,
    postgres_home: Path | None = None,
    durable: bool = True,
    grace_seconds: float = 3.0,
) -> AsyncIterator[EmbeddedServers]:
    """Share the servers of a data directory, started by the first user, stopped after the last.

    Any number of processes may enter at once. A server that crashes is started again on the same
    port; a killed user, supervisor or server leaves no orphan and loses nothing committed. The
    options after `valkey` count when this call is the one that starts the server: programs other
    than the wheel's, `durable=False` to give up crash safety (tests), and how long the servers
    outlive their last user.

    Raises UnsupportedMachine, UnsupportedServer (files of another version), MissingExtra,
    NotConfigured (someone else's directory), StoreUnavailable with the end of the server's log.
    """
    check_machine()
    data_dir = data_dir.absolute()
    options = ["--grace-seconds", str(grace_seconds)]
    names: list[ServerName] = []
    if postgres:
        names.append("postgres")
        options += ["--postgres-home", str(postgres_home or bundled_home())]
        options += [] if durable else ["--not-durable"]
    if valkey:
        bundled_binary()  # raises when the extra is missing
        names.append("valkey")
    leases = {name: Lease(data_dir, name, options) for name in names}
    try:
        for lease in leases.values():
            await lease.take()
        for lease in leases.values():
            await lease.wait_until_ready()
        watch = asyncio.create_task(_keep_supervised(list(leases.values())))
        try:
            yield EmbeddedServers(leases)
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
    finally:
        for lease in leases.values():
            lease.release()


async def _keep_supervised(leases: Sequence["Lease"]) -> None:
    """Replace a supervisor that was killed: its server went with it, and is wanted."""
    while True:
        await asyncio.sleep(_WATCH_SECONDS)
        for lease in leases:
            try:
                await lease.ensure_supervised()
            except (RagError, OSError) as error:
                _log.error("%s can't be started again: %s", lease.name, error)


class Lease:
    """This process's share in one server: a lock that vanishes with the process."""

    def __init__(self, data_dir: Path, name: ServerName, options: Sequence[str]) -> None:
        self.name = name
        self._run = RunDirectory(data_dir, name)
        self._options = options
        self._share: Lock | None = None
        self._state: dict[str, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        """What runs now, or what ran last while it is being started again."""
        self._state = self._run.read_state() or self._state
        return self._state

    async def take(self) -> None:
        """Join the users, once a closing supervisor has closed, and see that one is running."""
        make_data_directory(self._run.data_dir)
        self._run.make()
        self._share = await self._wait_for_lock("users", shared=True)
        await self.ensure_supervised()

    async def ensure_supervised(self) -> None:
        """Start a supervisor unless one is there. Safe to call from any number of processes."""
        start = await self._wait_for_lock("start")
        try:
            if probe := self._run.try_lock("supervisor"):
                self._run.clear()
                probe.release()
                await self._start_supervisor()
        finally:
            start.release()

    async def wait_until_ready(self) -> None:
        """Return when the server answers; raise what keeps it from that."""
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while not self.state:
            self._run.raise_failure()
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"{self.name} was not ready in {_START_TIMEOUT_SECONDS:.0f} s; "
                    f"see {str(self._run.log)!r}"
                )
            if self._supervisor_is_gone():
                self._run.raise_failure()
                await self.ensure_supervised()
            await asyncio.sleep(_POLL_SECONDS)

    def release(self) -> None:
        """Leave; the supervisor stops the server when nobody is left. Safe to repeat."""
        if self._share:
            self._share.release()

    def _supervisor_is_gone(self) -> bool:
        probe = self._run.try_lock("supervisor")
        if probe:
            probe.release()
        return probe is not None

    async def _start_supervisor(self) -> None:
        """Return when it has its lock and went to the background."""
        command = [sys.executable, "-m", "ragcore.embedded.supervisor", self.name]
        log = os.open(self._run.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--data-dir",
                str(self._run.data_dir),
                *self._options,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",  # what lies in the caller's directory must not shadow modules
                start_new_session=True,
            )
        finally:
            os.close(log)
        if await process.wait():
            raise StoreUnavailable(
                f"the supervisor of {self.name} could not be started; its log "
                f"{str(self._run.log)!r} ends with:\n{self._run.log_tail()}"
            )

    async def _wait_for_lock(
        self, name: Literal["users", "start"], *, shared: bool = False
    ) -> Lock:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while (lock := self._run.try_lock(name, shared=shared)) is None:
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"the {self.name} of {str(self._run.data_dir)!r} is closing and does not end; "
                    f"see {str(self._run.log)!r}"
                )
            await asyncio.sleep(_POLL_SECONDS)
        return lock
