"""Whether the service lives, whether it is ready, which one it is, and its numbers."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response, status
from prometheus_client import CONTENT_TYPE_LATEST

from ragcore import __version__
from ragcore_api.deps import RagDep
from ragcore_api.readiness import OK, Readiness, can_answer
from ragcore_api.schemas.operation import LiveOut, ReadyOut, ServiceVersionOut

router = APIRouter(tags=["operation"])


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.state.readiness
    return readiness


ReadinessDep = Annotated[Readiness, Depends(_readiness)]


@router.get("/health/live", operation_id="check_liveness", summary="Is the process alive?")
async def check_liveness() -> LiveOut:
    """Answer as long as the process does; touches nothing else."""
    return LiveOut()


@router.get(
    "/health/ready",
    operation_id="check_readiness",
    summary="Can questions be answered?",
    responses={503: {"model": ReadyOut, "description": "No question can be answered."}},
)
async def check_readiness(response: Response, readiness: ReadinessDep) -> ReadyOut:
    """Name each dependency and its state; 503 only while questions can't be answered.

    Asked of the dependencies at most once a second, however often this is called.
    """
    states = await readiness()
    if not can_answer(states):
        response.status_code = status.HTTP_503_SERVICE_UNAVAILABLE
        return ReadyOut(status="unavailable", dependencies=dict(states))
    is_whole = all(state == OK for state in states.values())
    return ReadyOut(status="ok" if is_whole else "degraded", dependencies=dict(states))


@router.get("/version", operation_id="get_version", summary="Which version is this?")
async def get_version(rag: RagDep) -> ServiceVersionOut:
    """Tell the version of the service and its embedding model."""
    return ServiceVersionOut(version=__version__, embedding_model=rag.runtime.embedder.spec.model)


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(request: Request) -> Response:
    """Tell the numbers of docs/reference/metrics.md in Prometheus's text format.

    Takes an administrator's key, unless the setting `open_metrics` is on. Answers within seconds,
    also while the database is away.
    """
    content = await request.state.metrics.exposition(request.state.gauges)
    return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})
