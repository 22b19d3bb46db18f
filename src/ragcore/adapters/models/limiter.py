"""How many requests a remote model gets at a time, and who goes first."""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Final

from ragcore.errors import ModelUnavailable
from ragcore.ports import UNMETERED, Meter, SharedSlots

_RETRY_AFTER_SECONDS: Final = 5.0
"""What a question is told that did not get its turn."""


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

    async def acquire(self, *, is_question: bool) -> None:
        """Wait for a slot, which is held until `release`."""
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
                self.release(failed=None)
            raise

    def release(self, *, failed: bool | None) -> None:
        """Give a slot back and tell how the model fared; None: nothing was learnt of it."""
        if failed:
            self._limit = max(1.0, self._limit / 2)
        elif failed is not None:
            self._limit = min(self._most, self._limit + 1 / self._limit)
        self._active -= 1
        self._wake()

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


class Turn:
    """The right to send one request, until it is ended."""

    def __init__(self, limiter: RequestLimiter, give_back: Callable[[], None] | None) -> None:
        self._limiter: RequestLimiter | None = limiter
        self._give_back = give_back

    def end(self, *, failed: bool | None) -> None:
        """Let the next one go. Safe to repeat: the first call counts."""
        if self._limiter is None:
            return
        limiter, self._limiter = self._limiter, None
        limiter.release(failed=failed)
        if self._give_back is not None:
            self._give_back()


class Turns:
    """Turns at the models of a server: of this process by itself, and of all processes together.

    Each model has a limit of its own, since a server runs them beside one another.
    """

    def __init__(
        self,
        *,
        most: int,
        patience_seconds: float,
        shared: SharedSlots | None = None,
        meter: Meter = UNMETERED,
    ) -> None:
        """`most` documents at a time at one model; a question waits `patience_seconds` at most."""
        self._most = most
        self._patience_seconds = patience_seconds
        self._shared = shared
        self._meter = meter
        self._limiters: dict[str, RequestLimiter] = {}

    async def take(self, model: str, *, most: int, is_question: bool) -> Turn:
        """Wait for a turn. `most` is the limit of all processes, as far as this one sees it.

        Raises ModelUnavailable for a question that waited too long; a document waits for as long
        as it takes.
        """
        started = perf_counter()
        patience = self._patience_seconds if is_question else None
        try:
            async with asyncio.timeout(patience):
                return await self._take(model, most=most, is_question=is_question)
        except TimeoutError as error:
            raise ModelUnavailable(
                f"{model!r} was busy with others for {patience:g} s: ask again later, or raise "
                "RAGCORE_OLLAMA__CONCURRENCY if its server can do more",
                retry_after_seconds=_RETRY_AFTER_SECONDS,
            ) from error
        finally:
            self._meter.model_awaited(
                "question" if is_question else "document", seconds=perf_counter() - started
            )

    async def _take(self, model: str, *, most: int, is_question: bool) -> Turn:
        limiter = self._limiters.setdefault(model, RequestLimiter(self._most))
        await limiter.acquire(is_question=is_question)
        if self._shared is None:
            return Turn(limiter, None)
        async with AsyncExitStack() as on_failure:
            on_failure.callback(limiter.release, failed=None)
            give_back = await self._shared.acquire(model, most=most, is_question=is_question)
            on_failure.pop_all()
        return Turn(limiter, give_back)
