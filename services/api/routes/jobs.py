"""What became of the documents on their way in."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, status
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from ragcore.errors import (
    Forbidden,
    JobNotFound,
    NotRetryable,
    RagError,
    StoreUnavailable,
)
from ragcore.model import Job, JobStatus
from ragcore.rag import Rag
from ragcore_api.deps import AnyCaller, Caller, IngestCaller, JobWatchDep, RagDep
from ragcore_api.errors import problem_content, problems, status_of
from ragcore_api.schemas.jobs import (
    JobFilterIn,
    JobOut,
    JobPageOut,
    JobProgressOut,
    JobsOut,
)
from ragcore_api.schemas.values import CollectionName, DocumentId
from ragcore_api.streams import event_schema

router = APIRouter(prefix="/jobs", tags=["jobs"])

_PING_SECONDS: Final = 15
_SEND_SECONDS: Final = 60
"""A client that takes nothing for so long is gone."""

_GRACE_SECONDS: Final = 2
"""For a stream to end by itself when the server stops; the watch sees to that."""

_EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    status.HTTP_200_OK: {
        "description": "Events: `progress` when something has changed, then `done` with the job, "
        "or `error`; the stream ends with the job, or when the "
        "service stops: connect again then.",
        "content": {
            "text/event-stream": {
                "schema": event_schema(
                    "progress", "done", "error", description="One event of the stream."
                ),
                "example": 'event: progress\r\ndata: {"status": "running", "stage": "embedding", '
                '"progress": 0.4}\r\n\r\n',
            }
        },
    }
}


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs",
    responses=problems(JobNotFound, Forbidden, StoreUnavailable),
)
async def list_jobs(
    rag: RagDep,
    caller: AnyCaller,
    job_status: Annotated[JobStatus | None, Query(alias="status")] = None,
    collection: Annotated[CollectionName | None, Query()] = None,
    document_id: Annotated[DocumentId | None, Query()] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[UUID | None, Query(description="`next_cursor` of the page before.")] = None,
) -> JobPageOut:
    """List jobs of the caller's collections, the newest first."""
    if cursor is not None:
        await visible(cursor, rag, caller)
    found = await rag.runtime.catalog.jobs(
        collections=_scope(caller, collection),
        document_id=document_id,
        status=job_status,
        limit=limit + 1,
        after=cursor,
    )
    page = found[:limit]
    return JobPageOut(
        jobs=[JobOut.of(job) for job in page],
        next_cursor=page[-1].job_id if len(found) > limit else None,
    )


@router.get(
    "/{job_id}",
    operation_id="get_job",
    summary="Get a job",
    responses=problems(JobNotFound, StoreUnavailable),
)
async def get_job(
    job_id: UUID,
    rag: RagDep,
    watch: JobWatchDep,
    caller: AnyCaller,
    wait: Annotated[
        float, Query(ge=0, le=300, description="Seconds to wait for it to finish.")
    ] = 0,
) -> JobOut:
    """Tell how far one job is, or how it ended; at once, or when it has finished."""
    found = await visible(job_id, rag, caller)
    if wait and not found.is_finished:
        (found,) = await watch.within([found], seconds=wait)
    return JobOut.of(found)


@router.get(
    "/{job_id}/events",
    operation_id="watch_job",
    summary="Follow a job",
    response_class=EventSourceResponse,
    responses={**_EVENTS, **problems(JobNotFound, StoreUnavailable)},
)
async def watch_job(
    job_id: UUID, request: Request, rag: RagDep, watch: JobWatchDep, caller: AnyCaller
) -> EventSourceResponse:
    """Stream the progress of one job as server-sent events, until it has finished.

    Who connects again hears how it stands now; nothing needs to be caught up on.
    """
    found = await visible(job_id, rag, caller)
    return EventSourceResponse(
        _events(watch.changes(found), request),
        ping=_PING_SECONDS,
        send_timeout=_SEND_SECONDS,
        shutdown_grace_period=_GRACE_SECONDS,
    )


@router.post(
    "/retry",
    operation_id="retry_jobs",
    summary="Run failed jobs again",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(Forbidden, StoreUnavailable),
)
async def retry_jobs(wanted: JobFilterIn, rag: RagDep, caller: IngestCaller) -> JobsOut:
    """Run again the failed jobs that match, up to 1000 at a time, the oldest first.

    Those that can't be run again are passed over; the answer holds those that are.
    """
    collections = _scope(caller, wanted.collection)
    await caller.audit(
        rag, "job.retry", collection=wanted.collection, details=wanted.model_dump(exclude_none=True)
    )
    again = await rag.runtime.catalog.run_failed_again(
        collections=collections, document_id=wanted.document_id, code=wanted.code
    )
    await rag.runtime.submit.ring(again)
    return JobsOut(jobs=[JobOut.of(job) for job in again])


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    summary="Run a job again",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(JobNotFound, NotRetryable, StoreUnavailable),
)
async def retry_job(job_id: UUID, rag: RagDep, caller: IngestCaller) -> JobOut:
    """Queue a failed or cancelled job once more, its attempts counted anew."""
    found = await visible(job_id, rag, caller)
    await caller.audit(rag, "job.retry", collection=found.collection, target=str(job_id))
    again = await rag.runtime.catalog.run_again(job_id)
    await rag.runtime.submit.ring([again])
    return JobOut.of(again)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(JobNotFound, StoreUnavailable),
)
async def cancel_job(job_id: UUID, rag: RagDep, caller: IngestCaller) -> JobOut:
    """Cancel a job that has not finished; work on it stops within seconds.

    The document keeps the version it has. A finished job stays as it is.
    """
    found = await visible(job_id, rag, caller)
    if not found.is_finished:
        await caller.audit(rag, "job.cancel", collection=found.collection, target=str(job_id))
        found = await rag.runtime.catalog.cancel(job_id)
    return JobOut.of(found)


async def visible(job_id: UUID, rag: Rag, caller: Caller) -> Job:
    """Return a job. Raises JobNotFound, also for one of a collection that the caller can't see."""
    found = await rag.runtime.catalog.job(job_id)
    if not caller.principal.sees(found.collection):
        raise JobNotFound(f"there is no job {str(job_id)!r}")
    return found


def _scope(caller: Caller, collection: str | None) -> frozenset[str] | None:
    """Return the collections asked for: one, or all that the caller sees. Raises Forbidden."""
    if collection is None:
        return caller.collections
    return frozenset([caller.require_collection(collection)])


async def _events(changes: AsyncIterator[Job], request: Request) -> AsyncIterator[ServerSentEvent]:
    try:
        async for job in changes:
            if job.is_finished:
                yield _event("done", JobOut.of(job))
            else:
                yield _event("progress", JobProgressOut.of(job))
    except RagError as error:  # the answer has begun: its status can't tell any more
        status_code = status_of(type(error))
        yield _event(
            "error",
            problem_content(request, status_code, code=error.code, detail=str(error)),
        )


def _event(name: str, data: BaseModel) -> ServerSentEvent:
    return ServerSentEvent(event=name, data=data.model_dump_json())
