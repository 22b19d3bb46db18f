"""Lets only so many through at once, and only so many more wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ragcore.errors import Busy


class Turnstile:
    """Before work that takes seconds of processor time: whoever comes too late is told at once."""

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._turns = asyncio.Semaphore(at_once)
        self._most = at_once + waiting
        self._admitted = 0

    @asynccontextmanager
    async def admission(self) -> AsyncIterator[None]:
        """Hold a place among those that work or wait. Raises Busy when none is left."""
        if self._admitted >= self._most:
            raise Busy(f"{self._admitted} of these are under way or wait already; try again later")
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait until it is one's turn, and hold it. For those that were admitted."""
        async with self._turns:
            yield
