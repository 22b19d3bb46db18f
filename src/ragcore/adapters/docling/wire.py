"""What a converter and its child say to each other: JSON frames over a socket pair.

A frame is its length in four bytes, big-endian, then one JSON object. The converter sends an
`Order`; the child answers `Ready` once, then for each order any number of `Progress` and `Chunks`
and at last `Done` or `Failed`. Chunks travel in small frames so that decoding a long document
never holds up the event loop.
"""

import socket
import struct
from asyncio import StreamReader
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import (
    ConversionError,
    ConversionFailed,
    ConversionTimeout,
    DocumentTooLarge,
    InvalidInput,
    MissingExtra,
    NotConfigured,
    NoTextFound,
    PasswordRequired,
    RagError,
    StorageFull,
    UnsupportedFormat,
)
from ragcore.model import Chunk, ConvertedDocument, Stage
from ragcore.ports import ConversionRequest

CHUNKS_PER_FRAME = 32
_MOST_BYTES = 256 * 1024 * 1024
_LENGTH = struct.Struct(">I")

# What a child may raise on purpose; anything else it reports is a failed conversion.
_ERRORS: dict[str, type[RagError]] = {
    error.__name__: error
    for error in (
        ConversionError, ConversionFailed, ConversionTimeout, DocumentTooLarge, InvalidInput,
        MissingExtra, NoTextFound, NotConfigured, PasswordRequired, StorageFull, UnsupportedFormat,
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Order:
    """One file to convert, under these options."""

    request: ConversionRequest
    options: ConversionOptions


@dataclass(frozen=True, slots=True)
class Ready:
    """The child has imported what it needs."""

    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a conversion is."""

    stage: Stage
    fraction: float
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class Chunks:
    """The next chunks of the document, in order."""

    chunks: tuple[Chunk, ...]
    kind: Literal["chunks"] = "chunks"


@dataclass(frozen=True, slots=True)
class Done:
    """Everything about the document but its chunks."""

    document: ConvertedDocument
    kind: Literal["done"] = "done"


@dataclass(frozen=True, slots=True)
class Failed:
    """The conversion ended without a document."""

    error: str
    """Name of a class of `ragcore.errors`."""
    message: str
    kind: Literal["failed"] = "failed"

    def as_error(self) -> RagError:
        return _ERRORS.get(self.error, ConversionFailed)(self.message)


Reply = Annotated[Ready | Progress | Chunks | Done | Failed, Field(discriminator="kind")]

_order: TypeAdapter[Order] = TypeAdapter(Order)
_reply: TypeAdapter[Ready | Progress | Chunks | Done | Failed] = TypeAdapter(Reply)


def order_frame(order: Order) -> bytes:
    return _frame(_order.dump_json(order))


def reply_frame(reply: Ready | Progress | Chunks | Done | Failed) -> bytes:
    return _frame(_reply.dump_json(reply))


def _frame(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


async def read_reply(reader: StreamReader) -> Ready | Progress | Chunks | Done | Failed:
    """Wait for the child's next words. Raises IncompleteReadError when it is gone."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > _MOST_BYTES:
        raise ConversionFailed(f"the conversion process sent a frame of {length} bytes")
    return _reply.validate_json(await reader.readexactly(length))


def read_order(channel: socket.socket) -> Order | None:
    """Wait for work; None when the converter hung up."""
    header = _receive(channel, _LENGTH.size)
    if header is None:
        return None
    body = _receive(channel, _LENGTH.unpack(header)[0])
    return None if body is None else _order.validate_json(body)


def _receive(channel: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        piece = channel.recv(size - len(received))
        if not piece:
            return None
        received += piece
    return bytes(received)
