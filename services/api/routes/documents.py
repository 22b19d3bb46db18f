"""The documents that are there: found, looked into, changed, deleted."""

import json
import zlib
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote
from uuid import UUID

from anyascii import anyascii
from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import StreamingResponse
from starlette.status import HTTP_200_OK, HTTP_202_ACCEPTED, HTTP_304_NOT_MODIFIED

from ragcore.errors import (
    BlobNotFound,
    CollectionNotFound,
    ConversionFailed,
    ConversionTimeout,
    DocumentNotFound,
    DocumentTooLarge,
    ForbiddenUrl,
    InvalidFilter,
    InvalidInput,
    PageNotFound,
    PasswordRequired,
    SourceUnavailable,
    StorageFull,
    Unavailable,
    UnsupportedFormat,
)
from ragcore.flows.submit import docling_key, markdown_key, original_key
from ragcore.model import Document, ReadingReport
from ragcore.rag import Rag, version_of
from ragcore.steps import filtering
from ragcore_api.deps import IngestCaller, JobWatchDep, QueryCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.documents import (
    ChunkOut,
    ChunksOut,
    DocumentDetailOut,
    DocumentOut,
    DocumentPatchIn,
    DocumentsDeleteIn,
    DocumentsOut,
    ReceiptOut,
)
from ragcore_api.schemas.jobs import JobOut, JobsOut
from ragcore_api.schemas.values import CollectionName, DocumentId

router = APIRouter(prefix="/documents", tags=["documents"])

Collection = Annotated[
    CollectionName | None, Query(description="Where the document is; default: `default`.")
]
Id = Annotated[DocumentId, Path(examples=["timetable~5f1d8c02a7b94e13"])]
IfNoneMatch = Annotated[
    str | None,
    Header(description="`ETag` of what is there already: answered with 304 while it is good."),
]
_DOCUMENT = problems(DocumentNotFound, Unavailable)
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "What you have is good."}}


@router.get(
    "",
    operation_id="list_documents",
    summary="List documents",
    responses=problems(CollectionNotFound, InvalidFilter, Unavailable),
)
async def list_documents(
    rag: RagDep,
    caller: QueryCaller,
    collection: Annotated[CollectionName | None, Query()] = None,
    filter: Annotated[
        str | None,
        Query(
            description="A filter as in a question, as JSON.",
            examples=['{"year": {"$gte": 2024}}'],
            max_length=2000,
        ),
    ] = None,
    uri: Annotated[
        str | None,
        Query(description="Only the document that came from there.", max_length=2000),
    ] = None,
    doubtful: Annotated[
        bool, Query(description="Only those that were badly read: somebody should look at them.")
    ] = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        DocumentId | None, Query(description="`next_cursor` of the page before.")
    ] = None,
) -> DocumentsOut:
    """List the documents of a collection in order of their ids."""
    name = caller.require_collection(collection or rag.collection)
    if uri is not None:
        return await _only(rag, name, uri)
    found = await rag.documents(
        collection=name,
        filters=_parsed(filter),
        doubtful=doubtful,
        limit=limit + 1,
        after=cursor,
    )
    if not found:
        await rag.runtime.collections.get(name)
    page = found[:limit]
    return DocumentsOut(
        documents=[DocumentOut.of(document) for document in page],
        next_cursor=page[-1].document_id if len(found) > limit else None,
    )


async def _only(rag: Rag, collection: str, uri: str) -> DocumentsOut:
    try:
        document = await rag.document_by_uri(uri, collection=collection)
    except DocumentNotFound:
        await rag.runtime.collections.get(collection)
        return DocumentsOut(documents=[], next_cursor=None)
    return DocumentsOut(documents=[DocumentOut.of(document)], next_cursor=None)


def _parsed(text: str | None) -> Mapping[str, Any] | None:
    """Return the object of the parameter `filter`. Raises InvalidFilter."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidFilter(f"the parameter 'filter' is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidFilter(f"a filter is a JSON object, not {text[:100]!r}")
    return value


@router.get(
    "/{document_id}", operation_id="get_document", summary="Get a document", responses=_DOCUMENT
)
async def get_document(
    document_id: Id, rag: RagDep, caller: QueryCaller, collection: Collection = None
) -> DocumentDetailOut:
    """Tell what is known of a document, of each of its versions, and of how well it was read."""
    name = caller.require_collection(collection or rag.collection)
    document = await rag.document(document_id, collection=name)
    versions = await rag.versions(document_id, collection=name)
    return DocumentDetailOut.made_of(document, versions, await _report(rag, document))


async def _report(rag: Rag, document: Document) -> ReadingReport | None:
    if document.version_id is None:
        return None
    return await rag.reading_report(document.document_id, collection=document.collection)


@router.patch(
    "/{document_id}",
    operation_id="update_document",
    summary="Change a document",
    responses=_DOCUMENT,
)
async def update_document(
    document_id: Id,
    patch: DocumentPatchIn,
    rag: RagDep,
    caller: IngestCaller,
    collection: Collection = None,
) -> DocumentOut:
    """Change title, metadata or last day; nothing is read or embedded again.

    What is left out stays. `metadata` replaces the whole object, so that of two changes at once
    one holds and not a mixture.
    """
    name = caller.require_collection(collection or rag.collection)
    await rag.document(document_id, collection=name)
    await caller.audit(
        rag,
        "document.update",
        collection=name,
        target=document_id,
        details={"changed": sorted(patch.model_fields_set)},
    )
    changed = await rag.update(
        document_id,
        collection=name,
        title=patch.title,
        metadata=patch.metadata,
        expires_at=patch.expires_at,
        never_expires="expires_at" in patch.model_fields_set and patch.expires_at is None,
    )
    return DocumentOut.of(changed)


@router.post(
    "/delete",
    operation_id="delete_documents",
    summary="Delete documents by a filter",
    responses=problems(CollectionNotFound, InvalidFilter, Unavailable),
)
async def delete_documents(
    wanted: DocumentsDeleteIn, rag: RagDep, caller: IngestCaller
) -> ReceiptOut:
    """Remove all documents that match, with their chunks and stored files.

    With `dry_run` nothing is removed, and the receipt tells what would be. Safe to repeat.
    """
    name = caller.require_collection(wanted.collection or rag.collection)
    filters = filtering.parse(wanted.filter)
    await rag.runtime.collections.get(name)
    if not wanted.dry_run:
        await caller.audit(
            rag, "document.delete", collection=name, details={"filter": wanted.filter}
        )
    receipt = await rag.delete_matching(filters, collection=name, dry_run=wanted.dry_run)
    return ReceiptOut.of(receipt).model_copy(update={"dry_run": wanted.dry_run})


@router.post(
    "/{document_id}/refresh",
    operation_id="refresh_document",
    summary="Fetch a document again",
    status_code=HTTP_202_ACCEPTED,
    responses={
        HTTP_200_OK: {"model": JobsOut, "description": "Finished within `wait`."},
        **problems(
            DocumentNotFound,
            InvalidInput,
            UnsupportedFormat,
            DocumentTooLarge,
            ForbiddenUrl,
            SourceUnavailable,
            StorageFull,
            Unavailable,
        ),
    },
)
async def refresh_document(
    document_id: Id,
    response: Response,
    rag: RagDep,
    watch: JobWatchDep,
    caller: IngestCaller,
    collection: Collection = None,
    wait: Annotated[
        float, Query(ge=0, le=300, description="Seconds to wait for the job to finish.")
    ] = 0,
) -> JobsOut:
    """Fetch the URL that a document came from; what has not changed there costs next to nothing.

    Its server is asked by `ETag` and `Last-Modified`. Title and metadata stay as they were given.
    """
    name = caller.require_collection(collection or rag.collection)
    job = await rag.runtime.fetch.again(
        name, document_id, submitted_by=caller.principal.name, request_id=caller.request_id
    )
    if wait:
        (job,) = await watch.within([job], seconds=wait)
        if job.is_finished:
            response.status_code = HTTP_200_OK
    answer = JobsOut(jobs=[JobOut.of(job)])
    response.headers["Location"] = answer.jobs[0].status_url
    return answer


@router.delete(
    "/{document_id}",
    operation_id="delete_document",
    summary="Delete a document",
    responses=_DOCUMENT,
)
async def delete_document(
    document_id: Id, rag: RagDep, caller: IngestCaller, collection: Collection = None
) -> ReceiptOut:
    """Remove a document with its chunks, versions and stored files; running jobs of it stop."""
    name = caller.require_collection(collection or rag.collection)
    await rag.document(document_id, collection=name)
    await caller.audit(rag, "document.delete", collection=name, target=document_id)
    receipt = await rag.delete(document_id, collection=name)
    if not receipt.document_ids:
        raise DocumentNotFound(f"document {document_id!r} was deleted by somebody else just now")
    return ReceiptOut.of(receipt)


# --- what was understood of it -----------------------------------------------------------------

Format = Literal["markdown", "json", "original"]


@router.get(
    "/{document_id}/content",
    operation_id="get_document_content",
    summary="Get a document's content",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The document; `original` as an attachment under its own name.",
            "content": {
                "text/markdown": {"schema": {"type": "string"}},
                "application/json": {"schema": {"type": "object"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **_NOT_MODIFIED,
        **problems(DocumentNotFound, BlobNotFound, Unavailable),
    },
)
async def get_document_content(
    document_id: Id,
    rag: RagDep,
    caller: QueryCaller,
    collection: Collection = None,
    format: Annotated[
        Format,
        Query(
            description="As it was understood, as `markdown` or as the `json` of a "
            "DoclingDocument; or the `original` file."
        ),
    ] = "markdown",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Send what was understood of a document, or the file that it was made of."""
    name = caller.require_collection(collection or rag.collection)
    document = await rag.document(document_id, collection=name)
    version = version_of(document)
    headers = _revalidated(f"{version}.{format}")
    if _is_known(if_none_match, headers):
        return Response(status_code=HTTP_304_NOT_MODIFIED, headers=headers)
    if format == "markdown":
        content, media_type = rag.runtime.blobs.open(markdown_key(version)), _MARKDOWN
    elif format == "json":
        content, media_type = _gunzipped(rag.runtime.blobs.open(docling_key(version))), _JSON
    else:
        content = rag.runtime.blobs.open(original_key(version))
        media_type = document.mime_type or _BINARY
        headers |= await _attachment(rag, document, version)
    # The first piece comes before the status: a file that is gone is answered with 404.
    return StreamingResponse(await _begun(content), headers={**headers, "Content-Type": media_type})


_MARKDOWN, _JSON, _BINARY = (
    "text/markdown; charset=utf-8",
    "application/json",
    "application/octet-stream",
)


async def _attachment(rag: Rag, document: Document, version_id: UUID) -> Mapping[str, str]:
    """Have browsers save the file, and not show it: nobody knows what it holds."""
    versions = await rag.versions(document.document_id, collection=document.collection)
    version = next((each for each in versions if each.version_id == version_id), None)
    if version is None:
        raise BlobNotFound("the document was replaced just now; ask again")
    return {
        "Content-Disposition": attachment(version.filename or document.document_id),
        "Content-Length": str(version.size_bytes),
    }


def attachment(filename: str) -> str:
    """Return a `Content-Disposition` that names a file in any script, after RFC 6266."""
    name = filename.replace("/", "_").replace("\\", "_")
    plain = "".join(c if c.isalnum() or c in " ._-()" else "_" for c in anyascii(name))
    return (
        f"attachment; filename=\"{plain or 'document'}\"; filename*=UTF-8''{quote(name, safe='')}"
    )


async def _begun(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return the same pieces, the first of them already there. Raises what opening raises."""
    first = await anext(pieces, b"")

    async def all_of_them() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return all_of_them()


_UNPACKED_BYTES: Final = 256 * 1024


async def _gunzipped(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Unpack a stream a little at a time: a small piece may hold a great deal."""
    unpacking = zlib.decompressobj(wbits=31)
    async for piece in pieces:
        while piece:
            yield unpacking.decompress(piece, _UNPACKED_BYTES)
            piece = unpacking.unconsumed_tail
    yield unpacking.flush()


@router.get(
    "/{document_id}/chunks",
    operation_id="list_document_chunks",
    summary="List a document's chunks",
    responses=_DOCUMENT,
)
async def list_document_chunks(
    document_id: Id,
    rag: RagDep,
    caller: QueryCaller,
    collection: Collection = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,9}$", description="`next_cursor` of the page before."),
    ] = None,
) -> ChunksOut:
    """List the stretches of text that a document was cut into, in reading order."""
    name = caller.require_collection(collection or rag.collection)
    await rag.document(document_id, collection=name)
    found = await rag.chunks(document_id, collection=name, first=int(cursor or 0), limit=limit + 1)
    return ChunksOut(
        chunks=[ChunkOut.of(chunk) for chunk in found[:limit]],
        next_cursor=str(found[limit].ordinal) if len(found) > limit else None,
    )


@router.get(
    "/{document_id}/pages/{page}.png",
    operation_id="get_document_page",
    summary="Get a page as a picture",
    response_class=Response,
    responses={
        200: {
            "description": "The page. Its size in points, the unit of `bbox`, is in the headers.",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            "headers": {
                name: {"schema": {"type": "number"}, "description": f"{side} in points."}
                for name, side in (("X-Page-Width", "Width"), ("X-Page-Height", "Height"))
            },
        },
        **_NOT_MODIFIED,
        **problems(
            DocumentNotFound,
            BlobNotFound,
            PageNotFound,
            InvalidInput,
            ConversionFailed,
            ConversionTimeout,
            PasswordRequired,
            Unavailable,
        ),
    },
)
async def get_document_page(
    document_id: Id,
    page: Annotated[int, Path(ge=1, le=100_000, description="From 1.")],
    rag: RagDep,
    caller: QueryCaller,
    collection: Collection = None,
    dpi: Annotated[int, Query(ge=36, le=300, description="Dots per inch.")] = 110,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Draw a page of a PDF or a picture: the page that a citation points at.

    A box of a citation lies at `bbox` × (pixels of the picture / points of the page). Pages that
    would be too large are drawn smaller than asked.
    """
    name = caller.require_collection(collection or rag.collection)
    document = await rag.document(document_id, collection=name)
    headers = _revalidated(f"{version_of(document)}.{page}.{dpi}")
    if _is_known(if_none_match, headers):
        return Response(status_code=HTTP_304_NOT_MODIFIED, headers=headers)
    image = await rag.page_image(document_id, page, collection=name, dots_per_inch=dpi)
    size = {"X-Page-Width": f"{image.width:g}", "X-Page-Height": f"{image.height:g}"}
    return Response(image.png, media_type="image/png", headers={**headers, **size})


def _revalidated(tag: str) -> dict[str, str]:
    """Let callers keep an answer, and ask each time whether they may still see it."""
    return {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}


def _is_known(if_none_match: str | None, headers: Mapping[str, str]) -> bool:
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return headers["ETag"] in known or "*" in known
