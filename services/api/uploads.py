"""Bodies as they arrive: multipart parts one after the other, and small ones whole.

A file is handed on in pieces while it is received, straight into the blob store: nothing is
spooled to disk, nothing is whole in memory, and what can't be stored as fast as it is sent stays
with the sender, because nothing is received before it is asked for.
"""

import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import TYPE_CHECKING, Any, Final

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.requests import ClientDisconnect

from ragcore.errors import DocumentTooLarge, InvalidInput, UnsupportedFormat
from ragcore.steps.filenames import filename_in, parameters

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_FILES: Final = 100
_MOST_PARTS: Final = MOST_FILES + 20
_PIECE_BYTES: Final = 256 * 1024
_FIELD_BYTES: Final = 256 * 1024
"""Of one text field; metadata, the longest, may take 64 KiB."""
_MOST_HEADERS: Final = 8
_HEADER_BYTES: Final = 4096
"""Of one header of a part."""
_ALLOWANCE_BYTES: Final = 2**20
"""For what is around the files of a request: fields, headers, boundaries."""
_PLAIN_ENCODINGS: Final = frozenset({"", "binary", "8bit", "7bit"})


@dataclass(frozen=True, slots=True)
class FormField:
    """A part that is a short text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class FormFile:
    """A part that is a file. What it doesn't say itself is None."""

    name: str
    filename: str | None
    mime_type: str | None
    pieces: AsyncIterator[bytes]
    """Read before the next part is asked for; what is left of it then is skipped."""


FormPart = FormField | FormFile


def media_type_of(request: Request) -> str:
    """Return the type of the body in lower case, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def parts_of(request: Request, *, max_bytes: int) -> AsyncGenerator[FormPart]:
    """Yield the parts of a multipart body in the order sent, while they are received.

    Raises UnsupportedFormat for another body; DocumentTooLarge for one that says to be over
    `max_bytes`, before it is read, or that turns out to be while it is; InvalidInput for one that
    is broken off, is not well-formed, or has too many parts or too long fields.
    """
    parts = _Parts(_boundary(request), body_pieces(request, max_bytes=max_bytes))
    files = 0
    while (headers := await parts.next()) is not None:
        part = _part(headers, parts)
        if isinstance(part, FormFile):
            files += 1
            if files > MOST_FILES:
                raise InvalidInput(f"one request takes at most {MOST_FILES} files")
            yield part
        else:
            yield FormField(part, await _text(part, parts))


async def body_of(request: Request, *, max_bytes: int) -> bytes:
    """Return a body that is small enough. Raises DocumentTooLarge before the rest is read."""
    try:
        return b"".join([piece async for piece in body_pieces(request, max_bytes=max_bytes)])
    except DocumentTooLarge as error:
        raise DocumentTooLarge(f"the body is over {max_bytes} bytes; send it as a file") from error


async def body_pieces(request: Request, *, max_bytes: int) -> AsyncIterator[bytes]:
    """Yield a body as it is received.

    Raises DocumentTooLarge, by what the headers say before anything is read, and InvalidInput when
    the sender goes away.
    """
    most = max_bytes + _ALLOWANCE_BYTES
    if announced_bytes(request) > most:
        raise _too_large(max_bytes)
    received = 0
    try:
        async for piece in request.stream():
            received += len(piece)
            if received > most:
                raise _too_large(max_bytes)
            yield piece
    except ClientDisconnect as error:
        raise InvalidInput("the connection was closed before the whole body was sent") from error


def announced_bytes(request: Request) -> int:
    """Return how long the body is as its headers say; 0 when they don't."""
    announced = request.headers.get("content-length", "")
    return int(announced) if announced.isascii() and announced.isdigit() else 0


def metadata_in(text: str) -> Mapping[str, Any]:
    """Return the JSON object that the form's field `metadata` holds. Raises InvalidInput."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the field 'metadata' is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"the field 'metadata' must be a JSON object, not {text[:100]!r}")
    return value


def _too_large(max_bytes: int) -> DocumentTooLarge:
    return DocumentTooLarge(
        f"the upload is over {max_bytes} bytes; send fewer files at once, or raise "
        "RAGCORE_CONVERSION__MAX_FILE_MB"
    )


# --- multipart -----------------------------------------------------------------------------


class _End:
    """Of a part."""


_Headers = Mapping[str, bytes]
"""Of a part, names in lower case."""


@dataclass(slots=True)
class _Events:
    """What the parser calls back, put in a row."""

    row: "deque[_Headers | bytes | _End]" = field(default_factory=deque)
    is_complete: bool = False
    parts: int = 0
    _headers: dict[str, bytes] = field(default_factory=dict)
    _name: bytes = b""
    _value: bytes = b""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _begin(self) -> None:
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise InvalidInput(f"the form has more than {_MOST_PARTS} parts")
        self._headers = {}

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name = self._value = b""

    def _end_headers(self) -> None:
        self.row.append(self._headers)

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.row.append(data[start:end])

    def _end(self) -> None:
        self.row.append(_End())

    def _complete(self) -> None:
        self.is_complete = True


class _Parts:
    """A multipart body, pulled: bytes are received only when the row of events has run out."""

    def __init__(self, boundary: bytes, body: AsyncIterator[bytes]) -> None:
        self._body = body
        self._events = _Events()
        self._parser = MultipartParser(
            boundary,
            self._events.callbacks(),
            max_header_count=_MOST_HEADERS,
            max_header_size=_HEADER_BYTES,
        )
        self._is_inside = False

    async def next(self) -> _Headers | None:
        """Skip what is left of this part, and return the headers of the next; None: no more."""
        while self._is_inside:
            await self.piece()
        event = await self._event()
        if event is None:
            return None
        assert isinstance(event, dict)  # the parser begins a part with its headers
        self._is_inside = True
        return event

    async def piece(self) -> bytes:
        """Return some bytes of this part, none when it has ended."""
        if not self._is_inside:
            return b""
        event = await self._event()
        if isinstance(event, bytes):
            return event
        if event is None:
            raise InvalidInput("the form ends in the middle of a part")
        self._is_inside = False
        return b""

    async def _event(self) -> "_Headers | bytes | _End | None":
        while not self._events.row:
            received = await anext(self._body, None)
            if received is None:
                if not self._events.is_complete:
                    raise InvalidInput("the form is cut short: its closing boundary is missing")
                return None
            try:
                self._parser.write(received)
            except FormParserError as error:
                raise InvalidInput(f"the form is not well-formed: {error}") from error
        return self._events.row.popleft()


def _boundary(request: Request) -> bytes:
    if media_type_of(request) != "multipart/form-data":
        raise UnsupportedFormat(
            f"the body is {media_type_of(request)[:100]!r}; send it as multipart/form-data"
        )
    header = Message()
    header["content-type"] = request.headers["content-type"]
    boundary = header.get_boundary("")
    if not 0 < len(boundary) <= 70:  # RFC 2046
        raise InvalidInput("the content type 'multipart/form-data' names no boundary")
    return boundary.encode("latin-1", errors="replace")


def _part(headers: _Headers, parts: _Parts) -> FormFile | str:
    """Return the part when it is a file, otherwise its name."""
    disposition = headers.get("content-disposition", b"")
    name = parameters(disposition).get("name")
    if name is None:
        raise InvalidInput("a part of the form has no name")
    encoding = headers.get("content-transfer-encoding", b"").strip().lower().decode("latin-1")
    if encoding not in _PLAIN_ENCODINGS:
        raise InvalidInput(f"part {name[:80]!r} is encoded as {encoding[:80]!r}; send it as it is")
    filename = filename_in(disposition)
    if filename is None:
        return name
    mime_type = headers.get("content-type", b"").decode("latin-1").strip()
    return FormFile(name, filename or None, mime_type or None, _gathered(parts))


async def _gathered(parts: _Parts) -> AsyncIterator[bytes]:
    """Yield the part in pieces of a good size: each is a step into another thread or machine."""
    gathered = bytearray()
    while piece := await parts.piece():
        gathered += piece
        if len(gathered) >= _PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _text(name: str, parts: _Parts) -> str:
    content = bytearray()
    while piece := await parts.piece():
        content += piece
        if len(content) > _FIELD_BYTES:
            raise InvalidInput(f"the field {name[:80]!r} is over {_FIELD_BYTES} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the field {name[:80]!r} is not UTF-8: {error}") from error
