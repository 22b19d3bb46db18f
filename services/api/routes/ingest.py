"""Documents in."""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Header, Query, Request, Response, status
from pydantic import ValidationError

from ragcore.adapters.docling.formats import refuse_unreadable
from ragcore.errors import (
    BlobsUnavailable,
    CollectionMismatch,
    DocumentTooLarge,
    Forbidden,
    ForbiddenUrl,
    IdempotencyConflict,
    InvalidInput,
    SourceUnavailable,
    StorageFull,
    StoreUnavailable,
    UnsupportedFormat,
)
from ragcore.flows.submit import StoredUpload, Submit, Upload
from ragcore.model import Job
from ragcore.rag import Rag
from ragcore.steps.filenames import bare_name
from ragcore_api.deps import Caller, IngestCaller, JobWatchDep, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.jobs import DescribedIn, FormIn, IngestIn, JobOut, JobsOut
from ragcore_api.schemas.values import In
from ragcore_api.uploads import (
    FormFile,
    announced_bytes,
    body_of,
    media_type_of,
    metadata_in,
    parts_of,
)

router = APIRouter(tags=["documents"])

_JSON_BYTES: Final = 16 * 2**20
"""Of a body in JSON, which is whole in memory. A longer text goes as a file."""

_FORM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "description": "Up to 100 files; `document_id` goes with a single one.",
        },
        **{
            name: {"type": "string"}
            for name in ("collection", "document_id", "title", "callback_url")
        },
        "metadata": {"type": "string", "description": "A JSON object."},
        "expires_at": {"type": "string", "format": "date-time"},
    },
}

AnyIn = TypeVar("AnyIn", bound=In)


@router.post(
    "/ingest",
    operation_id="ingest_documents",
    summary="Take documents in",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        status.HTTP_200_OK: {"model": JobsOut, "description": "All finished within `wait`."},
        **problems(
            InvalidInput,
            UnsupportedFormat,
            DocumentTooLarge,
            ForbiddenUrl,
            Forbidden,
            IdempotencyConflict,
            CollectionMismatch,
            SourceUnavailable,
            StoreUnavailable,
            BlobsUnavailable,
            StorageFull,
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": IngestIn.model_json_schema()},
                "multipart/form-data": {"schema": _FORM_SCHEMA},
            },
        }
    },
)
async def ingest_documents(
    request: Request,
    response: Response,
    rag: RagDep,
    watch: JobWatchDep,
    caller: IngestCaller,
    wait: Annotated[
        float, Query(ge=0, le=300, description="Seconds to wait for the jobs to finish.")
    ] = 0,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            description="The same key with the same request is answered with the first jobs.",
        ),
    ] = None,
) -> JobsOut:
    """Take files as multipart, or a text or a URL as JSON; answered when they are stored durably.

    Each document becomes a job; nothing that was answered with one is lost.
    """
    rag.runtime.room.require(announced_bytes(request))
    intake = Intake(rag, caller, idempotency_key)
    if media_type_of(request) == "multipart/form-data":
        jobs = await intake.take_form(request)
    elif media_type_of(request) == "application/json":
        jobs = [await intake.take_json(await body_of(request, max_bytes=_JSON_BYTES))]
    else:
        raise UnsupportedFormat(
            f"the body is {media_type_of(request)[:100]!r}; send multipart/form-data or "
            "application/json"
        )
    if wait:
        jobs = await watch.within(jobs, seconds=wait)
        if all(job.is_finished for job in jobs):
            response.status_code = status.HTTP_200_OK
    answer = JobsOut(jobs=[JobOut.of(job) for job in jobs])
    response.headers["Location"] = answer.jobs[0].status_url
    return answer


class Intake:
    """One request's way into the library: what comes is stored first, and recorded when all of it
    is there, because what describes a file may come after it."""

    def __init__(self, rag: Rag, caller: Caller, idempotency_key: str | None) -> None:
        self._rag = rag
        self._submit = rag.runtime.submit
        self._caller = caller
        self._idempotency_key = idempotency_key
        self._idempotency_scope = str(caller.principal.key_id or caller.principal.name)

    async def take_form(self, request: Request) -> Sequence[Job]:
        """Store and queue the files of a multipart body: all or none."""
        fields: dict[str, str] = {}
        stored: list[tuple[FormFile, StoredUpload]] = []
        async with _discarded_on_failure(self._submit, stored):
            parts = parts_of(request, max_bytes=self._submit.max_bytes)
            async with aclosing(parts):
                async for part in parts:
                    if not isinstance(part, FormFile):
                        self._add_field(fields, part.name, part.text)
                    elif part.name != "file":
                        raise InvalidInput(f"files go in the field 'file', not {part.name[:80]!r}")
                    else:
                        stored.append((part, await self._submit.store(readable(part.pieces))))
            if not stored:
                raise InvalidInput("the form has no file; send at least one in the field 'file'")
            described = validated(FormIn, _form_values(fields))
            if len(stored) > 1 and described.document_id:
                raise InvalidInput("a document_id goes with a single file")
            upload = await self._upload(described, priority=1 if len(stored) == 1 else 0)
        return await self._submit.record_all(
            [
                (replace(upload, filename=file.filename, mime_type=file.mime_type), its_bytes)
                for file, its_bytes in stored
            ],
            idempotency_key=self._idempotency_key,
            idempotency_scope=self._idempotency_scope,
        )

    async def take_json(self, body: bytes) -> Job:
        """Store and queue a text, or what a URL leads to."""
        asked = validated(IngestIn, body)
        upload = await self._upload(asked, priority=1)
        if asked.text is None:
            return await self._take_url(asked, upload)
        upload = replace(
            upload, uri=asked.uri, filename=bare_name(asked.filename or "") or "text.txt"
        )
        return await self._submit.stream(
            _once(asked.text.encode()),
            upload,
            idempotency_key=self._idempotency_key,
            idempotency_scope=self._idempotency_scope,
        )

    async def _take_url(self, asked: IngestIn, upload: Upload) -> Job:
        url = asked.url or asked.uri
        assert url is not None  # the schema has seen to it
        return await self._rag.runtime.fetch(
            url,
            replace(upload, filename=bare_name(asked.filename or "") or None),
            idempotency_key=self._idempotency_key,
            idempotency_scope=self._idempotency_scope,
            asked=hashlib.sha256(asked.model_dump_json().encode()).digest(),
        )

    async def _upload(self, described: DescribedIn, *, priority: int) -> Upload:
        """Check what is said about a document, and see that its collection is there."""
        runtime = self._rag.runtime
        collection = self._caller.require_collection(described.collection or self._rag.collection)
        if described.expires_at is not None and described.expires_at <= datetime.now(UTC):
            raise InvalidInput(f"expires_at {described.expires_at.isoformat()!r} has passed")
        if described.callback_url is not None:
            await runtime.callback_web.check(described.callback_url)
        await runtime.open_collection(collection)
        return Upload(
            collection=collection,
            document_id=described.document_id,
            title=described.title,
            metadata=described.metadata,
            callback_url=described.callback_url,
            expires_at=described.expires_at,
            priority=priority,
            submitted_by=self._caller.principal.name,
            request_id=self._caller.request_id,
        )

    def _add_field(self, fields: dict[str, str], name: str, text: str) -> None:
        """Refuse at once what needs no other field to be wrong."""
        if name == "file":
            raise InvalidInput("the part 'file' has no filename, so it is no file (`-F file=@…`)")
        if name not in FormIn.model_fields:
            raise InvalidInput(f"the form has an unknown field {name[:80]!r}")
        if name in fields:
            raise InvalidInput(f"the form has the field {name!r} twice")
        if name == "collection" and text:
            self._caller.require_collection(text)
        fields[name] = text


async def readable(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Pass a file on. Raises UnsupportedFormat at its beginning when it can't be a document."""
    is_beginning = True
    async for piece in pieces:
        if is_beginning:
            refuse_unreadable(piece)
            is_beginning = False
        yield piece


def validated(schema: type[AnyIn], value: bytes | dict[str, Any]) -> AnyIn:
    """Make a schema of JSON, or of values. Raises InvalidInput, which tells every complaint."""
    try:
        if isinstance(value, bytes):
            return schema.model_validate_json(value)
        return schema.model_validate(value)
    except ValidationError as error:
        complaints = [
            f"{'.'.join(str(part) for part in each['loc']) or 'body'}: {each['msg']}"
            for each in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidInput("; ".join(complaints)) from error


def _form_values(fields: dict[str, str]) -> dict[str, Any]:
    """Leave out what is blank, as forms send it."""
    given: dict[str, Any] = {name: text for name, text in fields.items() if text.strip()}
    if "metadata" in given:
        given["metadata"] = metadata_in(given["metadata"])
    return given


@asynccontextmanager
async def _discarded_on_failure(
    submit: Submit, stored: Sequence[tuple[FormFile, StoredUpload]]
) -> AsyncIterator[None]:
    """Delete what was stored so far when the block fails; what can't be, the sweep of orphans."""
    try:
        yield
    except BaseException:
        for _, its_bytes in stored:
            with suppress(BlobsUnavailable):
                await submit.discard(its_bytes)
        raise


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
