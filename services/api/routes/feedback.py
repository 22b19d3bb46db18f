"""Feedback on answers, which is kept with their traces."""

from http import HTTPStatus

from fastapi import APIRouter

from ragcore.errors import Busy, TraceNotFound, TracingOff
from ragcore_api.deps import QueryCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.feedback import FeedbackIn, FeedbackOut

router = APIRouter(tags=["questions"])


@router.post(
    "/feedback",
    operation_id="give_feedback",
    summary="Say what an answer was worth",
    status_code=HTTPStatus.ACCEPTED,
    responses=problems(TraceNotFound, TracingOff, Busy),
)
async def give_feedback(feedback: FeedbackIn, rag: RagDep, caller: QueryCaller) -> FeedbackOut:
    """Put a score on the trace of an answer.

    Sent again with the same key it takes the place of the first. Whoever knows a `trace_id` was
    shown the answer, or told of it by somebody who was: ids can't be guessed or made up.
    """
    principal = caller.principal
    await rag.feedback(
        feedback.trace_id,
        feedback.score,
        comment=feedback.comment,
        given_by=principal.name if principal.key_id is None else str(principal.key_id),
    )
    return FeedbackOut(trace_id=feedback.trace_id.lower(), score=feedback.score)
