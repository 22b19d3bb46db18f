"""Jobs as they go on, for whoever waits for them: one question to the database for all."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol
from uuid import UUID

from ragcore.errors import JobNotFound, RagError
from ragcore.model import Job

POLL_SECONDS: Final = 0.25

log = logging.getLogger(__name__)


class Jobs(Protocol):
    """What watching asks of the catalogue."""

    async def job(self, job_id: UUID) -> Job: ...

    async def jobs_by_id(self, job_ids: Sequence[UUID]) -> Sequence[Job]: ...


@dataclass(slots=True, eq=False)
class _Watched:
    """One job that somebody watches, as it was seen last."""

    job: Job
    watchers: int = 0
    is_gone: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def see(self, job: Job | None) -> None:
        """Wake the watchers when the job is another than before, or has been removed."""
        if job == self.job:
            return
        self.is_gone = job is None
        self.job = job or self.job
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def change(self) -> None:
        """Return when the job may be another than it is now. Raises JobNotFound when it is gone."""
        await self.changed.wait()
        if self.is_gone:
            raise JobNotFound(f"the job {str(self.job.job_id)!r} was removed")


class JobWatch:
    """Watches jobs for any number of requests by one question for all, four times a second.

    It asks only while somebody watches. When the server is told to stop, all that wait are
    answered with the jobs as they are. Made by `open`.
    """

    def __init__(
        self, jobs: Jobs, *, every_seconds: float, is_stopping: Callable[[], bool]
    ) -> None:
        self._jobs = jobs
        self._every_seconds = every_seconds
        self._is_stopping = is_stopping
        self._is_over = False
        self._watched: dict[UUID, _Watched] = {}
        self._is_wanted = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        jobs: Jobs,
        *,
        every_seconds: float = POLL_SECONDS,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator["JobWatch"]:
        """Watch for as long as the block lasts."""
        watch = cls(jobs, every_seconds=every_seconds, is_stopping=is_stopping)
        looking = asyncio.create_task(watch._keep_looking())
        try:
            yield watch
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def changes(self, job: Job) -> AsyncIterator[Job]:
        """Yield the job as it is, then whenever it is another, until it has finished or we stop.

        A consumer that is slow misses what was in between, never the end. Raises JobNotFound when
        the job is removed.
        """
        with self._watching(job) as watched:
            while True:
                seen = watched.job
                yield seen
                if seen.is_finished:
                    return
                while watched.job == seen:
                    if self._is_over:
                        return
                    await watched.change()

    async def within(self, jobs: Sequence[Job], *, seconds: float) -> Sequence[Job]:
        """Return the jobs when all have finished, or as they are after so many seconds.

        Raises JobNotFound when one of them is removed.
        """
        with ExitStack() as stack:
            watched = [stack.enter_context(self._watching(job)) for job in jobs]
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    for each in watched:
                        while not (each.job.is_finished or self._is_over):
                            await each.change()
            return [each.job for each in watched]

    @contextmanager
    def _watching(self, job: Job) -> Iterator[_Watched]:
        watched = self._watched.setdefault(job.job_id, _Watched(job))
        watched.watchers += 1
        self._is_wanted.set()
        try:
            yield watched
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._watched.pop(job.job_id, None)

    async def _keep_looking(self) -> None:
        while True:
            await self._is_wanted.wait()
            await asyncio.sleep(self._every_seconds)
            if not self._watched:
                self._is_wanted.clear()
                continue
            if self._is_stopping():
                self._stop()
                return
            try:
                await self._look()
            except RagError as error:
                log.warning("waiting requests hear nothing of their jobs: %s", error)
            except Exception:
                # A bug: the edge that logs it, so that it doesn't silence every other request.
                log.exception("looking at watched jobs failed on a programming error")

    def _stop(self) -> None:
        self._is_over = True
        for watched in self._watched.values():
            watched.wake()

    async def _look(self) -> None:
        watched = dict(self._watched)
        found = {job.job_id: job for job in await self._jobs.jobs_by_id(list(watched))}
        for job_id, each in watched.items():
            each.see(found.get(job_id))
