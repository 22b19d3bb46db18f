"""Whether the service lives, whether it is ready, and which one it is."""

from collections.abc import Awaitable

from fastapi import APIRouter, Response, status

from ragcore import __version__
from ragcore.errors import RagError
from ragcore_api.deps import DoorbellDep, RagDep
from ragcore_api.schemas.operation import LiveOut, ReadyOut, VersionOut

router = APIRouter(tags=["operation"])


@router.get("/health/live")
async def live() -> LiveOut:
    """Answer as long as the process does; touches nothing else."""
    return LiveOut()


@router.get("/health/ready", responses={503: {"model": ReadyOut}})
async def ready(response: Response, rag: RagDep, doorbell: DoorbellDep) -> ReadyOut:
    """Name each dependency and its state; 503 while questions can't be answered."""
    database = await _state(rag.runtime.collections.list())
    queue = await _state(doorbell.unheard())
    if database != "ok":
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
    return ReadyOut(
        status="ok" if database == "ok" else "unavailable",
        dependencies={"database": database, "queue": queue},
    )


@router.get("/version")
async def version(rag: RagDep) -> VersionOut:
    """Tell the version of the service and its embedding model."""
    return VersionOut(version=__version__, embedding_model=rag.runtime.embedder.spec.model)


async def _state(check: Awaitable[object]) -> str:
    try:
        await check
    except RagError as error:
        return error.code
    return "ok"
