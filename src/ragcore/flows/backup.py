"""Database and files → one archive, and back into an empty place.

The archive is a tar file: the rows of each table in gzipped pieces, then the stored files in
pieces, at last `manifest.json`, which names everything with counts and SHA-256, and the hash of
that. It is written and read piece by piece, however large it is.
"""

import asyncio
import errno
import gzip
import hashlib
import io
import json
import os
import re
import tarfile
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import UUID

from ragcore.errors import BlobNotFound, InvalidInput, StorageFull
from ragcore.flows.submit import version_prefix
from ragcore.ports import BlobStore

FORMAT: Final = 1

_PIECE_BYTES: Final = 8 * 2**20
_MANIFEST: Final = "manifest.json"
_MANIFEST_HASH: Final = "manifest.sha256"
_TABLE: Final = re.compile(r"tables/([a-z]+\.[a-z0-9_-]{1,63})/(\d{9})\.copy\.gz")
_FILE: Final = re.compile(r"files/(versions/[0-9a-f-]{36}/[A-Za-z0-9._-]{1,100})/(\d{9})")

Progress = Callable[[str, int, int | None], None]
"""Called with what is done now, how much of it is done, and of how much where that is known."""


class Snapshot(Protocol):
    """A database as it was at one moment."""

    async def migrations(self) -> Mapping[str, str]: ...

    async def tables(self) -> Sequence[tuple[str, Sequence[str]]]: ...

    def rows(self, table: str, columns: Sequence[str]) -> AsyncIterator[bytes]: ...

    async def versions(self) -> Sequence[tuple[UUID, str, str]]: ...


class Loading(Protocol):
    """An empty database that is filled."""

    async def load(self, table: str, columns: Sequence[str], rows: bytes) -> None: ...


class Database(Protocol):
    """What is asked of the database."""

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]: ...

    def loading(self, migrations: Mapping[str, str]) -> AbstractAsyncContextManager[Loading]: ...


@dataclass(slots=True)
class Content:
    """How much of one kind an archive holds, and the hash of it all, in order."""

    count: int = 0
    """Rows of a table, or files."""
    bytes: int = 0
    """As they lie in the archive."""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive holds."""

    ragcore: str
    created_at: str
    migrations: Mapping[str, str]
    tables: Mapping[str, Content]
    columns: Mapping[str, Sequence[str]]
    files: Content
    missing: Sequence[str] = ()
    """Documents whose files were not there when the archive was made: `collection/document_id`."""
    format: int = FORMAT


@dataclass(frozen=True, slots=True)
class BackUp:
    """Write everything that can't be made again into one file, while the service goes on."""

    database: Database
    blobs: BlobStore
    version: str
    """Of ragcore, for the record."""

    async def __call__(self, path: Path, progress: Progress = lambda *_: None) -> Manifest:
        """Return what the file holds. Raises InvalidInput when it exists, Unavailable …

        Rows are those of one moment; files never change and are those that these rows name.
        Written under a temporary name and renamed: a kill leaves no half archive under `path`.
        """
        if path.exists():
            raise InvalidInput(f"{str(path)!r} exists: a backup overwrites nothing")
        partial = path.with_name(path.name + ".partial")
        with _created(partial) as archive:
            async with self.database.snapshot() as snapshot:
                manifest = await self._write_tables(archive, snapshot, progress)
                versions = await snapshot.versions()
            missing = await self._write_files(archive, versions, manifest.files, progress)
            manifest = replace(manifest, missing=tuple(missing))
            archive.finish(manifest)
        partial.replace(path)
        _sync_directory(path.parent)
        return manifest

    async def _write_tables(
        self, archive: "_Archive", snapshot: Snapshot, progress: Progress
    ) -> Manifest:
        contents, columns = {}, {}
        for table, names in await snapshot.tables():
            tally = _Tally()
            async for rows in _pieces(snapshot.rows(table, names)):
                packed = await asyncio.to_thread(gzip.compress, rows, 1, mtime=0)
                await archive.add(f"tables/{table}/{tally.pieces:09}.copy.gz", packed)
                tally.take(packed, count=rows.count(b"\n"))
                progress(table, tally.content.count, None)
            contents[table], columns[table] = tally.done(), list(names)
        return Manifest(
            ragcore=self.version,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            migrations=await snapshot.migrations(),
            tables=contents,
            columns=columns,
            files=Content(),
        )

    async def _write_files(
        self,
        archive: "_Archive",
        versions: Sequence[tuple[UUID, str, str]],
        files: Content,
        progress: Progress,
    ) -> Sequence[str]:
        """Add all files of these versions and return the documents that lack theirs."""
        tally, missing = _Tally(files), []
        for number, (version_id, collection, document_id) in enumerate(versions, start=1):
            keys = [key async for key, _ in self.blobs.list(version_prefix(version_id))]
            found = [await self._write_file(archive, tally, key) for key in sorted(keys)]
            if not any(found):
                missing.append(f"{collection}/{document_id}")
            progress("files", number, len(versions))
        tally.done()
        return missing

    async def _write_file(self, archive: "_Archive", tally: "_Tally", key: str) -> bool:
        if not _FILE.fullmatch(f"files/{key}/{0:09}"):
            return False  # a half-written one under its temporary name
        number = 0
        try:
            async for piece in _sized(self.blobs.open(key)):
                await archive.add(f"files/{key}/{number:09}", piece)
                tally.take(piece, count=int(number == 0))
                number += 1
        except BlobNotFound:  # deleted meanwhile, with its document
            return False
        return number > 0


@dataclass(frozen=True, slots=True)
class Restore:
    """Put an archive back into an empty database and its blob store."""

    database: Database
    blobs: BlobStore

    async def __call__(self, path: Path, progress: Progress = lambda *_: None) -> Manifest:
        """Return what was restored. Raises InvalidInput for a damaged archive, Conflict …

        The whole archive is checked before anything is changed. Rows become visible all at once, at
        the end, after all files are stored; so a kill at any line leaves the database empty, and a
        repeat does what the first call would have done.
        """
        manifest = await asyncio.to_thread(checked, path, progress)
        files = 0
        async with self.database.loading(manifest.migrations) as loading:
            pieces = _read(path)
            for (table, key), group in groupby(pieces, key=lambda piece: (piece.table, piece.key)):
                if table is not None:
                    for piece in group:
                        rows = await asyncio.to_thread(gzip.decompress, piece.data)
                        await loading.load(table, manifest.columns[table], rows)
                        progress(table, piece.number + 1, None)
                elif key is not None:
                    await self.blobs.put(key, _each(group))
                    files += 1
                    progress("files", files, manifest.files.count)
        return manifest


# --- the archive ---------------------------------------------------------------------------


class _Archive:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    async def add(self, name: str, data: bytes) -> None:
        await asyncio.to_thread(self._add, name, data)

    def finish(self, manifest: Manifest) -> None:
        data = json.dumps(asdict(manifest), ensure_ascii=False, indent=1).encode()
        self._add(_MANIFEST, data)
        self._add(_MANIFEST_HASH, hashlib.sha256(data).hexdigest().encode())

    def _add(self, name: str, data: bytes) -> None:
        entry = tarfile.TarInfo(name)
        entry.size, entry.mode = len(data), 0o600
        self._tar.addfile(entry, io.BytesIO(data))


@contextmanager
def _created(path: Path) -> Iterator[_Archive]:
    """Open a new archive for its owner's eyes only; it is on the disk when the block has ended."""
    try:
        path.unlink(missing_ok=True)  # of a backup that was killed
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                yield _Archive(tar)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise StorageFull(f"there is no room for {str(path)!r}") from error
        raise InvalidInput(f"{str(path)!r} can't be written: {error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@dataclass(slots=True)
class _Tally:
    """Counts and hashes the pieces of one kind, whether they are written or read."""

    content: Content = field(default_factory=Content)
    pieces: int = 0
    _hash: Any = field(default_factory=hashlib.sha256)

    def take(self, data: bytes, *, count: int) -> None:
        self._hash.update(len(data).to_bytes(8))
        self._hash.update(data)
        self.content.bytes += len(data)
        self.content.count += count
        self.pieces += 1

    def done(self) -> Content:
        self.content.sha256 = self._hash.hexdigest()
        return self.content


@dataclass(frozen=True, slots=True)
class _Piece:
    """A member of an archive: of a table, of a file, or, with neither, about the archive itself."""

    name: str
    data: bytes = field(repr=False)
    table: str | None = None
    key: str | None = None
    number: int = 0


def checked(path: Path, progress: Progress = lambda *_: None) -> Manifest:
    """Read an archive whole and return its manifest. Raises InvalidInput when it is damaged."""
    tables: dict[str, _Tally] = {}
    files, about, done = _Tally(), dict[str, bytes](), 0
    for piece in _read(path):
        done += len(piece.data)
        progress("checking", done, None)
        if piece.table is not None:
            tally = tables.setdefault(piece.table, _Tally())
            tally.take(piece.data, count=_rows_in(piece))
        elif piece.key is not None:
            files.take(piece.data, count=int(piece.number == 0))
        else:
            about[piece.name] = piece.data
    manifest = _manifest_in(about)
    found = {table: tally.done() for table, tally in tables.items()}
    wanted = {table: content for table, content in manifest.tables.items() if content.bytes}
    if found != wanted or files.done() != manifest.files:
        raise _damaged("its content is not what its manifest says")
    return manifest


def _manifest_in(about: Mapping[str, bytes]) -> Manifest:
    data, digest = about.get(_MANIFEST), about.get(_MANIFEST_HASH)
    if data is None or digest is None:
        raise _damaged("it ends before its manifest")
    if hashlib.sha256(data).hexdigest().encode() != digest:
        raise _damaged("its manifest was changed")
    read = json.loads(data)
    if read["format"] != FORMAT:
        raise InvalidInput(f"the backup has format {read['format']!r}, this release reads {FORMAT}")
    tables = {table: Content(**content) for table, content in read["tables"].items()}
    return Manifest(**{**read, "tables": tables, "files": Content(**read["files"])})


def _read(path: Path) -> Iterator[_Piece]:
    """Yield the members of an archive in order, one in memory at a time."""
    try:
        with tarfile.open(path, mode="r|") as tar:
            for entry in tar:
                file = tar.extractfile(entry)
                if file is None:
                    raise _damaged(f"{entry.name[:200]!r} is no file")
                data = file.read()
                if len(data) != entry.size:
                    raise _damaged("it is cut short")
                yield _piece(entry.name, data)
    except FileNotFoundError as error:
        raise InvalidInput(f"there is no file {str(path)!r}") from error
    except tarfile.TarError as error:
        raise _damaged(str(error)) from error
    except OSError as error:
        raise InvalidInput(f"{str(path)!r} can't be read: {error}") from error


def _piece(name: str, data: bytes) -> _Piece:
    if found := _TABLE.fullmatch(name):
        return _Piece(name, data, table=found[1], number=int(found[2]))
    if found := _FILE.fullmatch(name):
        return _Piece(name, data, key=found[1], number=int(found[2]))
    if name in (_MANIFEST, _MANIFEST_HASH):
        return _Piece(name, data)
    raise _damaged(f"it holds {name[:200]!r}, which no backup does")


def _rows_in(piece: _Piece) -> int:
    try:
        return gzip.decompress(piece.data).count(b"\n")
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(f"{piece.name!r} can't be unpacked") from error


def _damaged(what: str) -> InvalidInput:
    return InvalidInput(f"the backup is damaged: {what}; nothing was restored")


async def _pieces(rows: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join rows to pieces that end with a row: a newline inside one is written as `\\n`."""
    held = bytearray()
    async for some in rows:
        held += some
        if len(held) >= _PIECE_BYTES and held.endswith(b"\n"):
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)


async def _sized(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Join chunks of a file to pieces; an empty file is one empty piece."""
    held, is_first = bytearray(), True
    async for chunk in chunks:
        held += chunk
        if len(held) >= _PIECE_BYTES:
            yield bytes(held)
            held.clear()
            is_first = False
    if held or is_first:
        yield bytes(held)


async def _each(pieces: Iterator[_Piece]) -> AsyncIterator[bytes]:
    """Yield the bytes of a file, read off the event loop."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece.data


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
