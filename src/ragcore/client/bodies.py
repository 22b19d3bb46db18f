"""Bodies of requests: JSON, and forms whose files are read while they are sent."""

import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol
from uuid import uuid4

from ragcore.errors import InvalidInput

PIECE_BYTES: Final = 256 * 1024


class JsonBody:
    """A value as JSON. Raises InvalidInput for one that JSON has no word for."""

    content_type = "application/json"

    def __init__(self, value: Mapping[str, Any]) -> None:
        self._content = json_text(value).encode(errors="replace")
        self.length = len(self._content)

    def pieces(self) -> Generator[bytes, None, None]:
        yield self._content


def json_text(value: Mapping[str, Any]) -> str:
    """Return a value as JSON. Raises InvalidInput."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"this can't be written as JSON: {error}") from error


# --- files -------------------------------------------------------------------------------------


class Content(Protocol):
    """The bytes of a file, from their beginning as often as they are asked for."""

    length: int

    def pieces(self) -> Generator[bytes, None, None]: ...


class InMemory:
    """Bytes that are there already."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.length = len(content)

    def pieces(self) -> Generator[bytes, None, None]:
        yield self._content


class OnDisk:
    """A file, opened each time that it is sent and never whole in memory.

    Its length is that of when it was first looked at: one that grows meanwhile is sent as far as
    that, one that shrinks can't be. Raises OSError for a file that is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.length = path.stat().st_size

    def pieces(self) -> Generator[bytes, None, None]:
        with self._path.open("rb") as file:
            yield from _exactly(file, self.length, name=str(self._path))


class OpenFile:
    """A file that the caller has opened, from where it stands now; it must be able to go back."""

    def __init__(self, file: BinaryIO) -> None:
        if not file.seekable():
            raise InvalidInput("a stream that can't go back can't be sent again; make it a file")
        self._file = file
        self._start = file.tell()
        self.length = file.seek(0, os.SEEK_END) - self._start

    def pieces(self) -> Generator[bytes, None, None]:
        self._file.seek(self._start)
        yield from _exactly(self._file, self.length, name="the open file")


def _exactly(file: BinaryIO, length: int, *, name: str) -> Generator[bytes, None, None]:
    """Yield as many bytes as were announced. Raises InvalidInput when there are fewer by now."""
    left = length
    while left:
        piece = file.read(min(PIECE_BYTES, left))
        if not piece:
            raise InvalidInput(f"{name!r} lost {left} bytes while it was sent; try again")
        left -= len(piece)
        yield piece


# --- forms -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a form."""

    filename: str
    content: Content


class FormBody:
    """A `multipart/form-data` body: fields, then files, all in the field `file`.

    What describes the files comes first, so that a service that refuses it need not take them.
    """

    def __init__(self, fields: Mapping[str, str], files: Sequence[FilePart]) -> None:
        boundary = uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._fields = b"".join(_field(boundary, *field) for field in fields.items())
        self._files = [(_head_of_file(boundary, file.filename), file.content) for file in files]
        self._end = f"--{boundary}--\r\n".encode()
        self.length = (
            len(self._fields)
            + sum(len(head) + content.length + 2 for head, content in self._files)
            + len(self._end)
        )

    def pieces(self) -> Generator[bytes, None, None]:
        if self._fields:
            yield self._fields
        for head, content in self._files:
            yield head
            with _closed(content.pieces()) as pieces:
                yield from pieces
            yield b"\r\n"
        yield self._end


def _field(boundary: str, name: str, text: str) -> bytes:
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
    return f"{head}{text}\r\n".encode(errors="replace")


def _head_of_file(boundary: str, filename: str) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{_escaped(filename)}"\r\n\r\n'
    ).encode(errors="replace")


def _escaped(filename: str) -> str:
    """Escape as browsers do, so that a name can't end the header that it stands in."""
    return filename.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


@contextmanager
def _closed(
    pieces: Generator[bytes, None, None],
) -> Generator[Generator[bytes, None, None], None, None]:
    try:
        yield pieces
    finally:
        pieces.close()
