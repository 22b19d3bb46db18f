"""How many requests a remote model gets at a time, and who goes first."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragcore.errors import ModelUnavailable


class RequestLimiter:
    """Slots for requests of one event loop: questions before documents, fewer under strain.

    A failure halves the number of slots; each round of answers adds one, up to `most` (additive
    increase, multiplicative decrease, as in TCP). A question may use one slot more than documents,
    so it never waits for a batch of documents to end.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._active = 0
        self._questions: deque[asyncio.Future[None]] = deque()
        self._documents: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """Slots for documents at present."""
        return int(self._limit)

    @asynccontextmanager
    async def slot(self, *, is_question: bool) -> AsyncIterator[None]:
        """Wait for a slot and hold it; what is raised inside tells how the model fares."""
        await self._acquire(is_question)
        try:
            yield
        except ModelUnavailable:
            self._limit = max(1.0, self._limit / 2)
            raise
        else:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        finally:
            self._active -= 1
            self._wake()

    async def _acquire(self, is_question: bool) -> None:
        queue = self._questions if is_question else self._documents
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._wake()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue.remove(turn)
            else:  # the slot was granted in the same moment
                self._active -= 1
                self._wake()
            raise

    def _wake(self) -> None:
        """Give the free slots away."""
        while self._questions and self._active < self.limit + 1:
            self._grant(self._questions)
        while self._documents and self._active < self.limit:
            self._grant(self._documents)

    def _grant(self, queue: deque[asyncio.Future[None]]) -> None:
        turn = queue.popleft()
        if not turn.done():
            self._active += 1
            turn.set_result(None)
