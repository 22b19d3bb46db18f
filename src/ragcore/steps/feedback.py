"""Feedback that can be taken."""

import re
from dataclasses import replace
from typing import Final

from ragcore.errors import InvalidInput
from ragcore.model import Feedback

MOST_COMMENT_CHARACTERS: Final = 2000

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")


def checked_feedback(feedback: Feedback) -> Feedback:
    """Return it with the id in lower case and without an empty comment. Raises InvalidInput."""
    trace_id = feedback.trace_id.lower()
    if not _TRACE_ID.fullmatch(trace_id):
        raise InvalidInput(
            f"trace_id {feedback.trace_id[:50]!r} is not one: it is 32 hexadecimal digits"
        )
    if not 0 <= feedback.score <= 1:
        raise InvalidInput(f"score {feedback.score!r} is not in 0…1; 1 is best")
    comment = (feedback.comment or "").strip()
    if len(comment) > MOST_COMMENT_CHARACTERS:
        raise InvalidInput(f"the comment is over {MOST_COMMENT_CHARACTERS} characters")
    return replace(feedback, trace_id=trace_id, comment=comment or None)
