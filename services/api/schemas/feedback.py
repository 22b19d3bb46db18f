"""What callers think of answers."""

from typing import Annotated

from pydantic import Field

from ragcore.steps.feedback import MOST_COMMENT_CHARACTERS
from ragcore_api.schemas.values import In, Out, examples


class FeedbackIn(In):
    """An opinion on an answer."""

    model_config = examples(
        {
            "trace_id": "6b066fe744a8f62c99a43971435b8760",
            "score": 1,
            "comment": "Right page, at once.",
        }
    )

    trace_id: Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{32}$")] = Field(
        description="The answer's `trace_id`."
    )
    score: float = Field(
        ge=0, le=1, allow_inf_nan=False, description="0…1, higher is better: a thumb is 0 or 1."
    )
    comment: str | None = Field(default=None, max_length=MOST_COMMENT_CHARACTERS)


class FeedbackOut(Out):
    """What was taken, and is on its way."""

    model_config = examples({"trace_id": "6b066fe744a8f62c99a43971435b8760", "score": 1})

    trace_id: str
    score: float
