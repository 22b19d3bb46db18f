"""Feedback → scores, sent one by one from a thread of its own."""

import logging
import queue
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from ragcore.adapters.langfuse.connection import ONCE, Connection, translated
from ragcore.errors import Busy, Rejected, Unavailable

if TYPE_CHECKING:
    from langfuse.api import LangfuseAPI

NAME: Final = "feedback"
"""Of the scores, in Langfuse."""
_MOST_WAITING: Final = 1000
_PAUSES_SECONDS: Final = (2.0, 10.0)
"""Before a score is sent for the second and the third time; then it is dropped."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Score:
    """One opinion on one trace; another one of the same id and time takes its place."""

    score_id: str
    trace_id: str
    timestamp: datetime
    value: float
    comment: str | None
    given_by: str
    environment: str


class ScoreSender:
    """A bounded queue and a thread, which begins with the first score."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: queue.Queue[Score | None] = queue.Queue(_MOST_WAITING)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def put(self, score: Score) -> None:
        """Have a score sent soon. Raises Busy when too many wait."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._send_all, name="langfuse-scores", daemon=True
                )
                self._thread.start()
        try:
            self._waiting.put_nowait(score)
        except queue.Full:
            raise Busy("Langfuse is slow to take feedback: try again later") from None

    def close(self) -> None:
        """Send what waits, each score once. Blocks as long as that takes: for a thread."""
        self._stopping.set()
        if self._thread is not None:
            self._waiting.put(None)
            self._thread.join()

    def _send_all(self) -> None:
        with self._connection.api() as api:
            while (score := self._waiting.get()) is not None:
                self._send(api, score)

    def _send(self, api: "LangfuseAPI", score: Score) -> None:
        for pause in (*_PAUSES_SECONDS, None):
            try:
                self._send_once(api, score)
            except (Unavailable, Rejected) as error:
                if pause is None or not error.retryable or self._stopping.is_set():
                    log.warning("feedback on trace %s is dropped: %s", score.trace_id, error)
                    return
                self._stopping.wait(pause)
            else:
                return

    def _send_once(self, api: "LangfuseAPI", score: Score) -> None:
        from langfuse.api import CreateScoreRequest

        request = CreateScoreRequest(
            id=score.score_id,
            trace_id=score.trace_id,
            timestamp=score.timestamp,
            name=NAME,
            value=score.value,
            comment=score.comment,
            data_type="NUMERIC",
            metadata={"key": score.given_by},
            environment=score.environment,
        )
        with translated():
            api.scores.create(request=[request], request_options=ONCE)
