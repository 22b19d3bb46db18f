"""A waiting job → a finished one: the lease, its heartbeat, and the one retry decision."""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from ragcore.errors import LeaseLost, RagError, Unavailable
from ragcore.flows.ingest import Ingest, Report
from ragcore.logs import about
from ragcore.model import Job, JobFailure, Stage
from ragcore.ports import UNTRACED, Catalog, JobTrace, Lease, Tracer

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=6)
RENEW_EVERY = timedelta(seconds=2)
BACKOFF = tuple(timedelta(seconds=s) for s in (1, 5, 30, 120, 600))
"""Waits before the second, third … attempt at a job whose failure may pass; then it fails."""

MOST_CRASHES = 8
"""Workers that may die over one job. Not fewer: where workers are killed for other reasons, every
job in their hands counts as a suspect, and a harmless one should get through. Of a thousand
documents under 300 kills, three had met 5 (benchmarks/faults.py)."""

HAND_IN = tuple(timedelta(seconds=s) for s in (0.5, 1, 2, 4, 8))
"""Waits before it is tried again to record how a job ended, when the database is away."""


Task = Callable[[Report], Awaitable[object]]
"""What is done under a lease."""


@dataclass(slots=True)
class _Progress:
    stage: Stage | None = None
    done: float = 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """Claim jobs and bring them to an end, in a worker or inline: it is the same code.

    A job is held by a lease that a heartbeat renews; whoever stops renewing loses it, and whoever
    lost it can't write. Cancelling the call gives the job back to the queue, as if it had not been
    claimed. A job whose workers die again and again is failed, so that the queue goes on.
    """

    catalog: Catalog
    ingest: Ingest
    owner: str
    lease: timedelta = LEASE
    renew_every: timedelta = RENEW_EVERY
    backoff: tuple[timedelta, ...] = BACKOFF
    most_crashes: int = MOST_CRASHES
    hand_in: tuple[timedelta, ...] = HAND_IN
    tracer: Tracer = field(default=UNTRACED, repr=False)

    async def next(
        self,
        *,
        job_id: UUID | None = None,
        parent_id: UUID | None = None,
        at_most_bytes: int | None = None,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job | None:
        """Claim the best waiting job, or that one, and run it; None when there is none to claim.

        `parent_id` claims only children of that job, `at_most_bytes` passes over jobs whose file
        is larger.
        """
        lease = await self.catalog.claim(
            owner=self.owner,
            lease=self.lease,
            job_id=job_id,
            parent_id=parent_id,
            at_most_bytes=at_most_bytes,
        )
        if lease is None:
            return None
        return await self.finish(
            lease, lambda report: self.ingest(lease, report), on_progress=on_progress
        )

    async def finish(
        self,
        lease: Lease,
        task: Task,
        *,
        on_progress: Callable[[Job], None] | None = None,
    ) -> Job:
        """Run a job that was claimed, whatever it does, and return it as it is afterwards.

        The task ends the job itself when it goes well; otherwise it raises.
        """
        job = lease.job
        with (
            about(
                job_id=str(job.job_id),
                document_id=job.document_id,
                collection=job.collection,
                request_id=lease.request_id,
            ),
            self.tracer.job(job) as trace,
        ):
            if lease.crashes >= self.most_crashes:
                await self._fail(lease, _poisonous(lease))
            else:
                await self._run(lease, task, trace, on_progress)
            ended = await self.catalog.job(job.job_id)
            trace.ended(ended)
            return ended

    async def _run(
        self,
        lease: Lease,
        task: Task,
        trace: JobTrace,
        on_progress: Callable[[Job], None] | None,
    ) -> None:
        progress = _Progress()

        def report(stage: Stage, done: float) -> None:
            progress.stage, progress.done = stage, min(max(done, 0.0), 1.0)
            trace.reached(stage)
            if on_progress is not None:
                on_progress(replace(lease.job, stage=stage, progress=progress.done))

        try:
            async with self._held(lease, progress):
                await task(report)
        except LeaseLost as lost:
            await self._survive(lease, lost)
        except asyncio.CancelledError:
            await asyncio.shield(self._give_back(lease))
            raise
        except RagError as error:
            await self._settle_failure(lease, error)
        except Exception:
            # A bug: the edge that logs it in full and records it, so that the queue goes on.
            log.exception("job %s failed on a programming error", lease.job.job_id)
            detail = "internal error; the log has the details"
            await self._fail(lease, JobFailure("internal", detail, retryable=False))

    async def _settle_failure(self, lease: Lease, error: RagError) -> None:
        failure = JobFailure(error.code, _plain(str(error)), error.retryable)
        if error.retryable and lease.tries <= len(self.backoff):
            after = self.backoff[lease.tries - 1] * random.uniform(0.8, 1.2)  # noqa: S311
            log.warning("job %s waits %s: %s", lease.job.job_id, after, error)
            await self._hand_in(lease, lambda: self.catalog.retry(lease, failure, after=after))
        else:
            await self._fail(lease, failure)

    async def _fail(self, lease: Lease, failure: JobFailure) -> None:
        await self._hand_in(lease, lambda: self.catalog.fail(lease, failure))

    async def _hand_in(self, lease: Lease, record: Callable[[], Awaitable[None]]) -> None:
        """Record how the job ended, and outlast a short absence of the database."""
        for pause in (*self.hand_in, None):
            try:
                await record()
            except LeaseLost as lost:
                await self._survive(lease, lost)
            except Unavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause.total_seconds())
                continue
            return

    async def _survive(self, lease: Lease, lost: LeaseLost) -> None:
        """Say that this worker lives: that its lease ran out is not the job's fault."""
        log.info("job %s given up: %s", lease.job.job_id, lost)
        try:
            await self.catalog.survived(lease)
        except RagError as error:
            log.info("job %s counts as a crash: %s", lease.job.job_id, error)

    async def _give_back(self, lease: Lease) -> None:
        """Let others take the job at once, where waiting for the lease to run out would do too."""
        try:
            await self.catalog.give_back(lease)
        except RagError as error:
            log.info("job %s waits for its lease to run out: %s", lease.job.job_id, error)

    @asynccontextmanager
    async def _held(self, lease: Lease, progress: _Progress) -> AsyncIterator[None]:
        """Renew the lease while the block runs; a lost lease stops the block with LeaseLost."""
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                heartbeat = tasks.create_task(self._renew(lease, progress))
                try:
                    yield
                finally:
                    heartbeat.cancel()
        except BaseExceptionGroup as group:
            failure = _first(group)
        if failure is not None:
            raise failure  # out here, so that it keeps its own `__cause__`

    async def _renew(self, lease: Lease, progress: _Progress) -> None:
        while True:
            await asyncio.sleep(self.renew_every.total_seconds())
            try:
                await self.catalog.renew(
                    lease, duration=self.lease, stage=progress.stage, progress=progress.done
                )
            except LeaseLost:
                raise
            except RagError as error:
                # PostgreSQL may be back before the lease runs out; the fence decides in the end.
                log.warning("lease of job %s not renewed: %s", lease.job.job_id, error)


def _poisonous(lease: Lease) -> JobFailure:
    log.error("job %s is given up: its workers died", lease.job.job_id)
    detail = (
        f"given up: {lease.crashes} workers died while they worked on it; "
        "see the workers' logs before you run it again"
    )
    return JobFailure("internal", detail, retryable=False)


def _plain(text: str) -> str:
    """Return what a parser said as text that PostgreSQL stores: no NUL, no lone surrogates."""
    return text.replace("\0", " ").encode(errors="replace").decode()


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the error that matters: a lost lease over what the cancelled work made of it."""
    lost, rest = group.split(LeaseLost)
    chosen = lost or rest or group
    error: BaseException = chosen
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
