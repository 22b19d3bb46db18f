"""A place for files that are worked on, which a killed process does not leave behind for good.

Downloads and results of documents lie there: what stayed would outlive the document's deletion.
"""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "process-"


@asynccontextmanager
async def work_directory(root: Path) -> AsyncIterator[Path]:
    """Give a directory of our own under `root`, removed at the end of the block.

    Its owner holds a lock on it, which the kernel drops when the owner dies, however it dies;
    whoever comes next removes what nobody holds. Where `root` can't be written the directory is
    one of the system's temporary ones.
    """
    directory, lock = await asyncio.to_thread(_claim, root)
    try:
        yield directory
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        os.close(lock)


def _claim(root: Path) -> tuple[Path, int]:
    """Make and lock a directory, and remove those whose owners are gone."""
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        gate = _open(root)
    except OSError:
        directory = Path(tempfile.mkdtemp(prefix="ragcore-"))
        return directory, _open(directory)
    try:
        # One at a time: a directory must not be taken for abandoned before its maker has locked it.
        fcntl.flock(gate, fcntl.LOCK_EX)
        abandoned = [(path, lock) for path in _all(root) if (lock := _try_lock(path)) is not None]
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        lock = _open(directory)
        fcntl.flock(lock, fcntl.LOCK_EX)
    finally:
        os.close(gate)
    for path, its_lock in abandoned:
        shutil.rmtree(path, ignore_errors=True)
        os.close(its_lock)
    return directory, lock


def _all(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.name.startswith(_PREFIX)]


def _try_lock(path: Path) -> int | None:
    """Lock a directory that nobody holds; None when somebody does, or it has just gone."""
    try:
        descriptor = _open(path)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
