"""Files in, text out; nothing is stored."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

from fastapi import APIRouter, Query, Request, Response, status

from ragcore.errors import (
    Busy,
    ConversionFailed,
    ConversionTimeout,
    DocumentTooLarge,
    InvalidInput,
    NoTextFound,
    PasswordRequired,
    StorageFull,
    UnsupportedFormat,
)
from ragcore.model import Chunk
from ragcore.rag import Conversion, Rag
from ragcore.steps.identity import clean_filename
from ragcore_api.deps import ConversionsDep, IngestCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.routes.ingest import readable
from ragcore_api.schemas.conversions import ConversionFormat, ConvertedChunkOut, ConvertedOut
from ragcore_api.turnstile import Turnstile
from ragcore_api.uploads import FormField, FormFile, announced_bytes, parts_of

router = APIRouter(tags=["documents"])

_FORM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "password": {"type": "string", "description": "Of an encrypted PDF; kept nowhere."},
    },
}
REFUSALS: Final = (
    InvalidInput,
    DocumentTooLarge,
    UnsupportedFormat,
    PasswordRequired,
    NoTextFound,
    ConversionFailed,
    ConversionTimeout,
    Busy,
    StorageFull,
)
"""How reading a file can end instead."""

_RAW: Final[dict[ConversionFormat, str]] = {"markdown": "text/markdown", "text": "text/plain"}
"""What `Accept` may ask for instead of JSON."""


@router.post(
    "/convert",
    operation_id="convert_document",
    summary="Convert a file",
    response_model=ConvertedOut,
    responses={
        status.HTTP_200_OK: {
            "description": "The file as it was understood; as bare text when `Accept` names "
            "`text/markdown` or `text/plain`.",
            "content": {media_type: {"schema": {"type": "string"}} for media_type in _RAW.values()},
        },
        **problems(*REFUSALS),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _FORM_SCHEMA}},
        }
    },
)
async def convert_document(
    request: Request,
    rag: RagDep,
    conversions: ConversionsDep,
    caller: IngestCaller,
    wanted: Annotated[
        ConversionFormat,
        Query(
            alias="format",
            description="Markdown, the DoclingDocument, plain text, or chunks as they would be "
            "searched.",
        ),
    ] = "markdown",
) -> Response:
    """Read one file and answer with what was understood of it; nothing is stored."""
    upload, conversion = await converted(request, rag, conversions, _received)
    accept = request.headers.get("accept", "")
    return await asyncio.to_thread(_answer, conversion, upload.filename, wanted, accept)


@dataclass(frozen=True, slots=True)
class Upload:
    """What is said of a file that was sent."""

    filename: str | None
    password: str | None = None


class Receive(Protocol):
    """Writes the file that a request sends to a path that is not there yet."""

    async def __call__(self, request: Request, path: Path, *, max_bytes: int) -> Upload: ...


async def converted(
    request: Request, rag: Rag, conversions: Turnstile, receive: Receive
) -> tuple[Upload, Conversion]:
    """Receive a file and read it when it is its turn; nothing is left of it afterwards.

    Raises Busy before anything is received when too many wait already, and what `Rag.convert` does.
    """
    rag.runtime.room.require(announced_bytes(request))
    async with conversions.admission():
        directory = await asyncio.to_thread(
            tempfile.TemporaryDirectory, prefix="convert-", dir=rag.runtime.work.ingest.directory
        )
        try:
            path = Path(directory.name, "upload")
            upload = await receive(request, path, max_bytes=rag.runtime.submit.max_bytes)
            async with conversions.turn():
                return upload, await rag.convert(
                    path, filename=upload.filename or "upload", password=upload.password
                )
        finally:
            await asyncio.to_thread(directory.cleanup)


async def _received(request: Request, path: Path, *, max_bytes: int) -> Upload:
    """Write the one file of the form to `path`, piece by piece, and return what is said of it."""
    filename: str | None = None
    password: str | None = None
    async with aclosing(parts_of(request, max_bytes=max_bytes)) as parts:
        async for part in parts:
            if isinstance(part, FormFile) and part.name == "file" and not path.exists():
                filename = clean_filename(part.filename)
                await write(path, readable(part.pieces))
            elif isinstance(part, FormField) and part.name == "password" and password is None:
                password = part.text or None
            else:
                raise InvalidInput(
                    f"the form takes one 'file' and a 'password', not {part.name[:80]!r}"
                )
    if not path.exists():
        raise InvalidInput("the form has no file; send one in the field 'file'")
    return Upload(filename, password)


async def write(path: Path, pieces: AsyncIterator[bytes]) -> None:
    """Write pieces to a new file as they come."""
    file = await asyncio.to_thread(path.open, "xb")
    try:
        async for piece in pieces:
            await asyncio.to_thread(file.write, piece)
    finally:
        await asyncio.to_thread(file.close)


def _answer(
    conversion: Conversion, filename: str | None, wanted: ConversionFormat, accept: str
) -> Response:
    """Write the answer down. Takes a while for a long document, so it is done in a thread."""
    content = _content(conversion, wanted)
    if isinstance(content, str) and _asks_for(accept, _RAW[wanted]):
        return Response(content, media_type=_RAW[wanted])
    document = conversion.document
    answer = ConvertedOut(
        format=wanted,
        filename=filename,
        mime_type=document.report.mime_type,
        title=document.title,
        language=document.language,
        pages=document.report.pages,
        warnings=list(document.report.warnings),
        content=content,
    )
    return Response(answer.model_dump_json(), media_type="application/json")


def _content(
    conversion: Conversion, wanted: ConversionFormat
) -> str | dict[str, Any] | list[ConvertedChunkOut]:
    chunks = conversion.document.chunks
    if wanted == "markdown":
        return conversion.markdown
    if wanted == "text":
        return "\n\n".join(_lines(chunks))
    if wanted == "chunks":
        return [ConvertedChunkOut.of(chunk) for chunk in chunks]
    document: dict[str, Any] = json.loads(conversion.docling_json)
    return document


def _lines(chunks: Sequence[Chunk]) -> Iterator[str]:
    """Yield the text of the chunks, and their headings where these change."""
    above: tuple[str, ...] = ()
    for chunk in chunks:
        for depth, heading in enumerate(chunk.headings):
            if above[: depth + 1] != chunk.headings[: depth + 1]:
                yield heading
        above = chunk.headings
        yield chunk.text


def _asks_for(accept: str, media_type: str) -> bool:
    return media_type in (each.partition(";")[0].strip().lower() for each in accept.split(","))
