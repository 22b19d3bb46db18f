"""Bodies of bounded size; files in multipart ones are never whole in memory."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.types import Message, Receive

from ragcore.errors import DocumentTooLarge, InvalidInput

_PIECE_BYTES = 256 * 1024
_MOST_FILES = 100
_ALLOWANCE_BYTES = 2**20
"""For the fields and the boundaries around the files."""


@asynccontextmanager
async def form_of(request: Request, *, max_bytes: int) -> AsyncIterator[FormData]:
    """Parse a multipart body; its files are spooled to disk, and gone at the end.

    Raises DocumentTooLarge as soon as the body is over `max_bytes`, before the rest is read.
    """
    limited = Request(request.scope, _limited(request.receive, max_bytes + _ALLOWANCE_BYTES))
    async with limited.form(max_files=_MOST_FILES, max_fields=_MOST_FILES) as form:
        yield form


async def body_of(request: Request, *, max_bytes: int) -> bytes:
    """Return a body that is small enough. Raises DocumentTooLarge before the rest is read."""
    limited = Request(request.scope, _limited(request.receive, max_bytes + _ALLOWANCE_BYTES))
    return await limited.body()


def _limited(receive: Receive, max_bytes: int) -> Receive:
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise DocumentTooLarge(
                f"the upload is over {max_bytes} bytes; send fewer files at once"
            )
        return message

    return limited


def files_of(form: FormData) -> list[UploadFile]:
    """Return the files of the repeatable field `file`. Raises InvalidInput when there is none."""
    files = [value for value in form.getlist("file") if isinstance(value, UploadFile)]
    if not files:
        raise InvalidInput("the form has no file; send at least one in the field 'file'")
    return files


def field_of(form: FormData, name: str) -> str | None:
    """Return a text field, None when it is missing or empty. Raises InvalidInput for a file."""
    value = form.get(name)
    if isinstance(value, UploadFile):
        raise InvalidInput(f"the field {name!r} must be text, not a file")
    return value or None


def metadata_of(form: FormData) -> Mapping[str, Any] | None:
    """Return the JSON object of the field `metadata`. Raises InvalidInput."""
    text = field_of(form, "metadata")
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"the field 'metadata' is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidInput(f"the field 'metadata' must be a JSON object, not {text[:100]!r}")
    return value


async def pieces_of(file: UploadFile) -> AsyncIterator[bytes]:
    while piece := await file.read(_PIECE_BYTES):
        yield piece
