"""Files in a folder, written whole or not at all."""

import asyncio
import errno
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import IO
from uuid import uuid4

from ragcore.errors import BlobNotFound, BlobsUnavailable, InvalidInput, StorageFull

_PIECE = 1 << 20
_LISTED_AT_ONCE = 1000
_TEMPORARY = ".tmp-"
_TRIES = 5


class FolderBlobs:
    """`ports.BlobStore` under one directory of our own.

    A file is written beside its final place under a temporary name, synced, renamed, and its
    directory synced: after a kill or a power cut there is the old file, the new one, or a
    temporary one that goes with the files of its version.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        target = self._path(key)
        temporary = target.with_name(f"{_TEMPORARY}{uuid4().hex}")
        size = 0
        with _translated(key):
            file = await asyncio.to_thread(_create, temporary)
        try:
            async for chunk in chunks:  # its errors are the caller's own and pass unchanged
                size += len(chunk)
                with _translated(key):
                    await asyncio.to_thread(file.write, chunk)
            with _translated(key):
                await asyncio.to_thread(_finish, file, temporary, target)
        except BaseException:
            with suppress(OSError):  # it tries once more to write what there was no room for
                file.close()
            temporary.unlink(missing_ok=True)
            self._remove_empty_folders(temporary)
            raise
        return size

    async def put_file(self, key: str, path: Path) -> int:
        """Store a copy of a local file; as `put`, in one step off the event loop."""
        target = self._path(key)
        temporary = target.with_name(f"{_TEMPORARY}{uuid4().hex}")

        def copy() -> int:
            with _create(temporary) as file, path.open("rb") as source:
                try:
                    shutil.copyfileobj(source, file, _PIECE)
                    size = file.tell()
                    _finish(file, temporary, target)
                except BaseException:
                    temporary.unlink(missing_ok=True)
                    raise
                return size

        with _translated(key):
            return await asyncio.to_thread(copy)

    async def open(self, key: str) -> AsyncIterator[bytes]:
        with _translated(key):
            file = await asyncio.to_thread(self._path(key).open, "rb")
            try:
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    yield piece
            finally:
                file.close()

    async def fetch(self, key: str, path: Path) -> None:
        source = self._path(key)

        def link_or_copy() -> None:
            try:
                os.link(source, path)  # free, and nobody writes to a stored file
            except FileNotFoundError:
                raise
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, path)

        with _translated(key):
            await asyncio.to_thread(link_or_copy)

    async def delete_prefix(self, prefix: str) -> int:
        with _translated(prefix):
            return await asyncio.to_thread(self._delete_prefix, prefix)

    async def list(self, prefix: str = "") -> AsyncIterator[tuple[str, float]]:
        now = time.time()
        with _translated(prefix):
            files = self._files(prefix)
            while some := await asyncio.to_thread(lambda: list(islice(files, _LISTED_AT_ONCE))):
                for path in some:
                    try:
                        written = path.stat().st_mtime
                    except FileNotFoundError:
                        continue  # deleted meanwhile
                    yield path.relative_to(self._root).as_posix(), now - written

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") or "\0" in part for part in parts):
            raise InvalidInput(f"{key!r} is no blob key")
        return self._root.joinpath(*parts)

    def _files(self, prefix: str) -> Iterator[Path]:
        # Only the directory that can hold the prefix is walked, not the whole store.
        start = self._root / prefix.rpartition("/")[0]
        for directory, _, names in os.walk(start):
            for name in names:
                path = Path(directory, name)
                if path.relative_to(self._root).as_posix().startswith(prefix):
                    yield path

    def _delete_prefix(self, prefix: str) -> int:
        count = 0
        for path in list(self._files(prefix)):
            path.unlink(missing_ok=True)
            count += 1
            self._remove_empty_folders(path)
        return count

    def _remove_empty_folders(self, path: Path) -> None:
        """Remove the folders above a file that is gone, as far as nothing else is in them."""
        for parent in path.relative_to(self._root).parents:
            if parent == Path() or not _remove_if_empty(self._root / parent):
                break


def _create(path: Path) -> IO[bytes]:
    for _ in range(_TRIES):
        try:
            _make_durably(path.parent)
            return path.open("xb")
        except FileNotFoundError:  # a deletion took a folder while it was still empty
            continue
    raise OSError(f"{str(path.parent)!r} can't be kept")


def _make_durably(directory: Path) -> None:
    """Make a folder, and those above it, so that a power cut doesn't take it from its files."""
    if directory.is_dir():
        return
    _make_durably(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    _sync(directory.parent)


def _finish(file: IO[bytes], temporary: Path, target: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    temporary.replace(target)
    _sync(target.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_if_empty(directory: Path) -> bool:
    try:
        directory.rmdir()
    except OSError:
        return False
    return True


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise BlobNotFound(f"there is no stored file {key!r}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"there is no room for the file {key!r}: {error}") from error
        raise BlobsUnavailable(f"the blob folder failed on {key!r}: {error}") from error
