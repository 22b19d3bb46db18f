"""Open WebUI's external document loader: a file that a user drops into a chat is read here."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Header, Request

from ragcore.rag import Conversion
from ragcore.steps.identity import clean_filename
from ragcore_api.deps import ConversionsDep, IngestCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.routes.convert import REFUSALS, Upload, converted, write
from ragcore_api.routes.ingest import readable
from ragcore_api.schemas.conversions import LoadedPageOut
from ragcore_api.uploads import body_pieces

router = APIRouter(tags=["documents"])

_ITS_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}_(?=.)")
"""What Open WebUI puts before the name under which it keeps a file."""
_WORDS: Final = 6
"""Of a page's first text that it is found by."""
_BINARY: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}


@router.put(
    "/process",
    operation_id="process_document",
    summary="Read a file for Open WebUI",
    responses=problems(*REFUSALS),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": _BINARY}}
    },
)
async def process_document(
    request: Request,
    rag: RagDep,
    conversions: ConversionsDep,
    caller: IngestCaller,
    x_filename: Annotated[
        str | None,
        Header(max_length=4096, description="Its name, percent-encoded; tells how to read a text."),
    ] = None,
) -> list[LoadedPageOut]:
    """Read the file that is the body, and answer with its Markdown, page by page.

    What Open WebUI sends with `CONTENT_EXTRACTION_ENGINE=external`; nothing is stored here. A
    format without pages is one page.
    """
    upload, conversion = await converted(request, rag, conversions, _received)
    return await asyncio.to_thread(lambda: list(_pages(conversion, upload.filename)))


async def _received(request: Request, path: Path, *, max_bytes: int) -> Upload:
    await write(path, readable(body_pieces(request, max_bytes=max_bytes)))
    name = unquote(request.headers.get("x-filename", ""))
    return Upload(clean_filename(_ITS_ID.sub("", name)) if name else None)


def _pages(conversion: Conversion, filename: str | None) -> Iterator[LoadedPageOut]:
    document, markdown = conversion.document, conversion.markdown
    about = {"title": document.title, "language": document.language, "source": filename}
    cuts = [(0, None), *_cuts(markdown, json.loads(conversion.docling_json))]
    if len(cuts) > 1:
        cuts[0:2] = [(0, cuts[1][1])]  # what stands before the first page is of it
    for (start, page), (end, _) in pairwise([*cuts, (len(markdown), None)]):
        # Open WebUI counts pages from 0, and shows them from 1.
        metadata = {**about, "page": None if page is None else page - 1}
        told = {name: value for name, value in metadata.items() if value is not None}
        yield LoadedPageOut(page_content=markdown[start:end].strip(), metadata=told)


def _cuts(markdown: str, docling: Mapping[str, Any]) -> Iterator[tuple[int, int | None]]:
    """Yield where each page begins, and its number: at the line of its first text that is found.

    A page without any goes with the one before it.
    """
    position, reached = 0, 0
    for page, text in _texts(docling, docling["body"]):
        if page <= reached:
            continue
        words = r"\s+".join(re.escape(word) for word in text.split()[:_WORDS])
        if words and (found := re.compile(words).search(markdown, position)):
            position, reached = markdown.rfind("\n", 0, found.start()) + 1, page
            yield position, page


def _texts(docling: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield page and text of everything in reading order; of a table, those of its cells.

    By a stack of its own, as lists may be nested deeper than calls may.
    """
    waiting = [each["$ref"] for each in reversed(body.get("children", ()))]
    while waiting:
        _, kind, number = waiting.pop().split("/")
        item = docling[kind][int(number)]
        cells = item.get("data", {}).get("table_cells", ()) if kind == "tables" else ()
        if item.get("prov"):
            page = item["prov"][0]["page_no"]
            yield from ((page, each["text"]) for each in (*cells, item) if each.get("text"))
        waiting.extend(each["$ref"] for each in reversed(item.get("children", ())))
