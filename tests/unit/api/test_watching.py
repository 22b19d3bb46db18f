import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from ragcore.errors import JobNotFound, StoreUnavailable
from ragcore.model import Job
from ragcore_api.watching import JobWatch


class Jobs:
    """A catalogue of jobs that remembers how often it was asked, and for how many."""

    def __init__(self) -> None:
        self.jobs: dict[UUID, Job] = {}
        self.asked: list[int] = []
        self.questions: asyncio.Queue[int] = asyncio.Queue()
        self.is_away = False

    def add(self) -> Job:
        job = Job(uuid4(), "default", "d", "queued")
        self.jobs[job.job_id] = job
        return job

    def change(self, job: Job, **values: object) -> Job:
        self.jobs[job.job_id] = replace(self.jobs[job.job_id], **values)  # type: ignore[arg-type]  # fields of Job
        return self.jobs[job.job_id]

    async def job(self, job_id: UUID) -> Job:
        return self.jobs[job_id]

    async def jobs_by_id(self, job_ids: Sequence[UUID]) -> Sequence[Job]:
        self.asked.append(len(job_ids))
        self.questions.put_nowait(len(job_ids))
        if self.is_away:
            raise StoreUnavailable("away")
        return [self.jobs[job_id] for job_id in job_ids if job_id in self.jobs]


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
async def watch(jobs: Jobs) -> AsyncIterator[JobWatch]:
    async with JobWatch.open(jobs, every_seconds=0.01) as watch:
        yield watch


async def test_each_change_is_told_once_up_to_the_end(watch: JobWatch, jobs: Jobs) -> None:
    job, told = jobs.add(), []
    steps = iter([{"status": "running", "stage": "converting"}, {"status": "succeeded"}])
    async for latest in watch.changes(job):
        told.append((latest.status, latest.stage))
        if not latest.is_finished:
            jobs.change(job, **next(steps))
    assert told == [("queued", None), ("running", "converting"), ("succeeded", "converting")]


async def test_a_finished_job_is_told_without_asking(watch: JobWatch, jobs: Jobs) -> None:
    job = jobs.change(jobs.add(), status="succeeded")
    assert [latest async for latest in watch.changes(job)] == [job]
    assert jobs.asked == []


async def test_any_number_of_requests_take_one_question(watch: JobWatch, jobs: Jobs) -> None:
    several = [jobs.add() for _ in range(200)]
    waits = [
        asyncio.create_task(watch.within([job], seconds=300)) for job in several for _ in range(2)
    ]
    await jobs.questions.get()
    for job in several:
        jobs.change(job, status="succeeded")
    ended = await asyncio.gather(*waits)
    assert all(job.is_finished for (job,) in ended)
    assert set(jobs.asked) == {200}
    assert len(jobs.asked) < 20


async def test_nobody_waits_and_nothing_is_asked(watch: JobWatch, jobs: Jobs) -> None:
    await watch.within([jobs.add()], seconds=0.05)
    asked = len(jobs.asked)
    await asyncio.sleep(0.05)
    assert 0 < asked == len(jobs.asked)


async def test_jobs_are_told_as_they_are_when_the_time_is_over(watch: JobWatch, jobs: Jobs) -> None:
    one, other = jobs.add(), jobs.add()
    done = jobs.change(one, status="failed")
    assert await watch.within([one, other], seconds=0.1) == [done, other]


async def test_a_job_that_is_removed_is_not_waited_for(watch: JobWatch, jobs: Jobs) -> None:
    job = jobs.add()
    wait = asyncio.create_task(watch.within([job], seconds=300))
    await jobs.questions.get()
    del jobs.jobs[job.job_id]
    with pytest.raises(JobNotFound):
        await wait


async def test_waiting_outlasts_a_database_that_is_away(watch: JobWatch, jobs: Jobs) -> None:
    job = jobs.add()
    jobs.is_away = True
    wait = asyncio.create_task(watch.within([job], seconds=300))
    for _ in range(3):
        await jobs.questions.get()
    jobs.is_away = False
    done = jobs.change(job, status="succeeded")
    assert await wait == [done]


async def test_whoever_goes_away_is_forgotten(watch: JobWatch, jobs: Jobs) -> None:
    changes = watch.changes(jobs.add())
    await anext(changes)
    await changes.aclose()  # type: ignore[attr-defined]  # it is a generator
    asked = len(jobs.asked)
    await asyncio.sleep(0.05)
    assert len(jobs.asked) == asked


async def test_a_server_that_stops_answers_all_that_wait(jobs: Jobs) -> None:
    is_stopping = False
    async with JobWatch.open(jobs, every_seconds=0.01, is_stopping=lambda: is_stopping) as watch:
        job = jobs.add()
        wait = asyncio.create_task(watch.within([job], seconds=300))
        changes = watch.changes(job)
        assert await anext(changes) == job
        is_stopping = True
        assert await wait == [job]
        assert [change async for change in changes] == []
        assert await watch.within([job], seconds=300) == [job]  # one that comes late
