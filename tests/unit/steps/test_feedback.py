import pytest

from ragcore.errors import InvalidInput
from ragcore.model import Feedback
from ragcore.steps.feedback import checked_feedback

TRACE = "6b066fe744a8f62c99a43971435b8760"


def test_an_id_is_taken_in_capitals_too_and_a_blank_comment_is_none() -> None:
    assert checked_feedback(Feedback(TRACE.upper(), 1, "  ")) == Feedback(TRACE, 1)


@pytest.mark.parametrize(
    "feedback",
    [
        Feedback("6b066fe7", 1),
        Feedback(TRACE[:-1] + "g", 1),
        Feedback(TRACE, 1.01),
        Feedback(TRACE, -0.01),
        Feedback(TRACE, float("nan")),
        Feedback(TRACE, 1, "x" * 2001),
    ],
)
def test_what_can_not_be_meant_is_refused(feedback: Feedback) -> None:
    with pytest.raises(InvalidInput):
        checked_feedback(feedback)
