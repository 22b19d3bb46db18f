"""Documents in."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response, status
from pydantic import ValidationError

from ragcore.errors import Conflict, DocumentTooLarge, InvalidInput, Unavailable
from ragcore.flows.submit import Upload
from ragcore.model import Job
from ragcore.rag import Rag
from ragcore_api.deps import RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.jobs import JobOut, JobsOut, TextIn
from ragcore_api.uploads import body_of, field_of, files_of, form_of, metadata_of, pieces_of

router = APIRouter(tags=["documents"])

_MULTIPART: dict[str, Any] = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "collection": {"type": "string"},
            "document_id": {"type": "string"},
            "title": {"type": "string"},
            "metadata": {"type": "string", "description": "A JSON object."},
        },
    }
}


@router.post(
    "/ingest",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(InvalidInput, DocumentTooLarge, Conflict, Unavailable),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": TextIn.model_json_schema()},
                "multipart/form-data": _MULTIPART,
            },
        }
    },
)
async def ingest(
    request: Request,
    response: Response,
    rag: RagDep,
    idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
) -> JobsOut:
    """Take a text as JSON, or files as multipart; answered when they are stored durably."""
    max_bytes = rag.runtime.settings.conversion.max_file_mb * 2**20
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        jobs = await _take_files(request, rag, idempotency_key, max_bytes=max_bytes)
    else:
        body = await body_of(request, max_bytes=max_bytes)
        jobs = [await _take_text(body, rag, idempotency_key)]
    answer = JobsOut(jobs=[JobOut.of(job) for job in jobs])
    response.headers["Location"] = answer.jobs[0].status_url
    return answer


async def _take_text(body: bytes, rag: Rag, idempotency_key: str | None) -> Job:
    text = _text_in(body)
    upload = Upload(
        collection=text.collection or rag.collection,
        document_id=text.document_id,
        filename=text.filename,
        title=text.title,
        metadata=text.metadata,
        priority=1,
    )
    await rag.runtime.open_collection(upload.collection)
    return await rag.runtime.submit.stream(
        _once(text.text.encode(errors="replace")), upload, idempotency_key=idempotency_key
    )


def _text_in(body: bytes) -> TextIn:
    try:
        return TextIn.model_validate_json(body)
    except ValidationError as error:
        complaints = [
            f"{'.'.join(str(part) for part in each['loc']) or 'body'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidInput("; ".join(complaints)) from error


async def _take_files(
    request: Request, rag: Rag, idempotency_key: str | None, *, max_bytes: int
) -> list[Job]:
    async with form_of(request, max_bytes=max_bytes) as form:
        files = files_of(form)
        document_id = field_of(form, "document_id")
        if len(files) > 1 and (document_id or idempotency_key):
            raise InvalidInput("a document_id or Idempotency-Key goes with a single file")
        upload = Upload(
            collection=field_of(form, "collection") or rag.collection,
            document_id=document_id,
            title=field_of(form, "title"),
            metadata=metadata_of(form),
            priority=1 if len(files) == 1 else 0,
        )
        await rag.runtime.open_collection(upload.collection)
        return [
            await rag.runtime.submit.stream(
                pieces_of(file),
                replace(upload, filename=file.filename, mime_type=file.content_type),
                idempotency_key=idempotency_key,
            )
            for file in files
        ]


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
