"""A collection moved to another embedding model or chunker, while it goes on answering."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response, status

from ragcore.errors import (
    Busy,
    CollectionMismatch,
    CollectionNotFound,
    Conflict,
    GenerationNotFound,
    JobNotFound,
    ModelUnavailable,
    ReindexUnderWay,
    RollbackLoses,
    StoreUnavailable,
)
from ragcore.model import Job
from ragcore.rag import Rag
from ragcore_api.deps import AdminCaller, JobWatchDep, QueryCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.routes.collections import Name, counted
from ragcore_api.schemas.collections import CollectionOut
from ragcore_api.schemas.jobs import JobOut
from ragcore_api.schemas.reindex import AcceptLossIn, GenerationOut, ReindexIn, ReindexOut

router = APIRouter(prefix="/collections/{name}/reindex", tags=["collections"])


@router.post(
    "",
    operation_id="reindex_collection",
    summary="Move a collection to another model",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        status.HTTP_200_OK: {"model": JobOut, "description": "Finished within `wait`."},
        **problems(
            CollectionNotFound,
            Conflict,
            ReindexUnderWay,
            CollectionMismatch,
            ModelUnavailable,
            StoreUnavailable,
        ),
    },
)
async def reindex_collection(
    name: Name,
    wanted: ReindexIn,
    response: Response,
    rag: RagDep,
    watch: JobWatchDep,
    caller: AdminCaller,
    wait: Annotated[
        float, Query(ge=0, le=300, description="Seconds to wait for the job to finish.")
    ] = 0,
) -> JobOut:
    """Cut and embed all documents of a collection once more. Takes `admin`.

    The collection answers as before, and takes documents as before, until everything is there; then
    it is switched in one transaction. Documents are not read again: what was understood of them is
    kept. Answered with a job, whose `result` holds a comparison of old and new answers.
    """
    caller.require_collection(name)
    job = await rag.runtime.reindex.start(
        name,
        embedding_model=wanted.embedding_model,
        max_tokens=wanted.max_tokens,
        questions=wanted.questions,
        switch=wanted.switch,
        submitted_by=caller.principal.name,
        request_id=caller.request_id,
    )
    if wait:
        (job,) = await watch.within([job], seconds=wait)
        if job.is_finished:
            response.status_code = status.HTTP_200_OK
    return _answer(job, response)


@router.get(
    "",
    operation_id="get_reindex",
    summary="See how a reindex stands",
    responses=problems(CollectionNotFound, StoreUnavailable),
)
async def get_reindex(name: Name, rag: RagDep, caller: QueryCaller) -> ReindexOut:
    """Tell what a collection answers from, what is being filled, and what can be gone back to."""
    caller.require_collection(name)
    generations = await rag.generations(collection=name)
    return ReindexOut(
        collection=await counted(rag, name),
        generations=[
            GenerationOut.told(each, await _job(rag, each.job_id)) for each in generations
        ],
    )


@router.post(
    "/switch",
    operation_id="switch_reindex",
    summary="Switch to what was filled",
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(CollectionNotFound, GenerationNotFound, ReindexUnderWay, StoreUnavailable),
)
async def switch_reindex(
    name: Name, wanted: AcceptLossIn, response: Response, rag: RagDep, caller: AdminCaller
) -> JobOut:
    """Have a collection answer from what a reindex has filled. Takes `admin`.

    Documents that came meanwhile are taken over first, by the job that this is answered with.
    """
    caller.require_collection(name)
    job = await rag.runtime.reindex.switch(
        name,
        accept_loss=wanted.accept_loss,
        submitted_by=caller.principal.name,
        request_id=caller.request_id,
    )
    return _answer(job, response)


@router.post(
    "/rollback",
    operation_id="roll_back_reindex",
    summary="Go back to what answered before",
    responses=problems(
        CollectionNotFound,
        GenerationNotFound,
        ReindexUnderWay,
        RollbackLoses,
        Busy,
        StoreUnavailable,
    ),
)
async def roll_back_reindex(
    name: Name, wanted: AcceptLossIn, rag: RagDep, caller: AdminCaller
) -> CollectionOut:
    """Have what answered before the last switch answer again, at once. Takes `admin`.

    Called once more it undoes that.
    """
    caller.require_collection(name)
    await rag.runtime.reindex.roll_back(
        name,
        accept_loss=wanted.accept_loss,
        submitted_by=caller.principal.name,
        request_id=caller.request_id,
    )
    return await counted(rag, name)


@router.delete(
    "",
    operation_id="discard_reindex",
    summary="Give up a reindex",
    responses=problems(CollectionNotFound, GenerationNotFound, StoreUnavailable),
)
async def discard_reindex(name: Name, rag: RagDep, caller: AdminCaller) -> CollectionOut:
    """Stop a reindex that runs, or drop what it has filled; what answers stays. Takes `admin`."""
    caller.require_collection(name)
    await rag.runtime.reindex.discard(
        name, submitted_by=caller.principal.name, request_id=caller.request_id
    )
    return await counted(rag, name)


async def _job(rag: Rag, job_id: UUID | None) -> Job | None:
    try:
        return None if job_id is None else await rag.runtime.catalog.job(job_id)
    except JobNotFound:  # jobs are kept for a shorter time than generations
        return None


def _answer(job: Job, response: Response) -> JobOut:
    answer = JobOut.of(job)
    response.headers["Location"] = answer.status_url
    return answer
