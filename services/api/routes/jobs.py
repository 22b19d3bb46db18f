"""What became of the documents on their way in."""

from uuid import UUID

from fastapi import APIRouter

from ragcore.errors import JobNotFound, Unavailable
from ragcore_api.deps import RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.jobs import JobOut

router = APIRouter(prefix="/jobs", tags=["jobs"])


@router.get("/{job_id}", responses=problems(JobNotFound, Unavailable))
async def job(job_id: UUID, rag: RagDep) -> JobOut:
    """Tell how far one job is, or how it ended."""
    return JobOut.of(await rag.runtime.catalog.job(job_id))
