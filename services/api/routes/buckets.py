"""Documents from buckets: listed on request, object by object what became of it."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from ragcore.errors import (
    BucketNotFound,
    CollectionMismatch,
    Forbidden,
    InvalidInput,
    JobNotFound,
    StoreUnavailable,
)
from ragcore.flows.sync import bucket_order
from ragcore_api.deps import AnyCaller, IngestCaller, JobWatchDep, RagDep
from ragcore_api.errors import problems
from ragcore_api.routes.jobs import visible
from ragcore_api.schemas.buckets import BucketIn, ObjectOut, ObjectPageOut
from ragcore_api.schemas.jobs import JobOut

router = APIRouter()


@router.post(
    "/ingest/bucket",
    operation_id="ingest_bucket",
    summary="Take documents from a bucket",
    tags=["documents"],
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        status.HTTP_200_OK: {"model": JobOut, "description": "Finished within `wait`."},
        **problems(InvalidInput, BucketNotFound, Forbidden, CollectionMismatch, StoreUnavailable),
    },
)
async def ingest_bucket(
    wanted: BucketIn,
    response: Response,
    rag: RagDep,
    watch: JobWatchDep,
    caller: IngestCaller,
    wait: Annotated[
        float, Query(ge=0, le=300, description="Seconds to wait for the job to finish.")
    ] = 0,
) -> JobOut:
    """List a bucket, and ingest what is new or has changed since it was last ingested.

    Answered with a job for the whole, which ends with the last of its documents; its `counts` say
    what was found and done, `GET /jobs/{job_id}/objects` tells it object by object. Until it has
    begun, the same request is answered with the same job.
    """
    collection = caller.require_collection(wanted.collection or rag.collection)
    order = bucket_order(
        f"s3://{wanted.bucket}/{wanted.prefix}",
        collection=collection,
        include=wanted.include,
        exclude=wanted.exclude,
        metadata=wanted.metadata,
        delete_missing=wanted.delete_missing,
        max_delete_share=wanted.max_delete_share,
        dry_run=wanted.dry_run,
    )
    rag.runtime.buckets.require(order.bucket, collection=collection)
    await rag.runtime.open_collection(collection)
    job = await rag.runtime.sync.start(
        order, submitted_by=caller.principal.name, request_id=caller.request_id
    )
    if wait:
        (job,) = await watch.within([job], seconds=wait)
        if job.is_finished:
            response.status_code = status.HTTP_200_OK
    answer = JobOut.of(job)
    response.headers["Location"] = answer.status_url
    return answer


@router.get(
    "/jobs/{job_id}/objects",
    operation_id="list_job_objects",
    summary="List the objects of a bucket's job",
    tags=["jobs"],
    responses=problems(JobNotFound, StoreUnavailable),
)
async def list_job_objects(
    job_id: UUID,
    rag: RagDep,
    caller: AnyCaller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
) -> ObjectPageOut:
    """Tell what a bucket's job decided about each object, and what became of it.

    Objects that needed nothing are counted in the job and not listed, and of those that were left
    out the first 10,000 are.
    """
    await visible(job_id, rag, caller)
    if cursor is not None and "\0" in cursor:
        raise InvalidInput("a cursor holds no NUL character")
    found = await rag.bucket_objects(job_id, limit=limit + 1, after=cursor)
    page = found[:limit]
    return ObjectPageOut(
        objects=[ObjectOut.told(each) for each in page],
        next_cursor=page[-1].note.key if len(found) > limit else None,
    )
