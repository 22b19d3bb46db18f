from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from ragcore.errors import QueueUnavailable
from ragcore.flows.sweep import Sweep
from ragcore.model import Job
from ragcore.ports import Submission
from ragcore.testing.memory.catalog import MemoryCatalog


class Bell:
    """A doorbell in memory: rings stay unheard until a test takes them."""

    def __init__(self) -> None:
        self.rings: list[UUID] = []

    async def ring(self, job_id: UUID) -> None:
        self.rings.append(job_id)

    async def unheard(self) -> int:
        return len(self.rings)


class BrokenBell(Bell):
    async def unheard(self) -> int:
        raise QueueUnavailable("Redis is away")


@pytest.fixture
def catalog() -> MemoryCatalog:
    return MemoryCatalog("default")


async def submit(catalog: MemoryCatalog, document_id: str, *, priority: int = 0) -> Job:
    submitted = await catalog.submit(
        Submission(
            collection="default",
            document_id=document_id,
            version_id=uuid4(),
            sha256=document_id.encode(),
            size_bytes=1,
            priority=priority,
        )
    )
    return submitted.job


async def test_nothing_waits_and_nothing_is_rung(catalog: MemoryCatalog) -> None:
    bell = Bell()
    assert await Sweep(catalog, bell)() == 0
    assert bell.rings == []


async def test_a_job_nobody_heard_of_is_rung_for_once(catalog: MemoryCatalog) -> None:
    bell = Bell()
    job = await submit(catalog, "a")
    assert await Sweep(catalog, bell)() == 1
    assert await Sweep(catalog, bell)() == 0
    assert bell.rings == [job.job_id]


async def test_there_are_never_more_unheard_rings_than_waiting_jobs(catalog: MemoryCatalog) -> None:
    bell = Bell()
    for name in "abc":
        await bell.ring((await submit(catalog, name)).job_id)
    await submit(catalog, "d")
    assert await Sweep(catalog, bell)() == 1
    assert len(bell.rings) == 4


async def test_a_backlog_is_rung_for_a_piece_at_a_time(catalog: MemoryCatalog) -> None:
    bell = Bell()
    for number in range(7):
        await submit(catalog, f"d{number}")
    sweep = Sweep(catalog, bell, at_most=3)
    assert await sweep() == 3
    assert await sweep() == 0
    bell.rings.clear()
    assert await sweep() == 3


async def test_a_job_that_its_worker_left_waits_again(catalog: MemoryCatalog) -> None:
    bell = Bell()
    job = await submit(catalog, "a")
    await catalog.claim(owner="dead", lease=timedelta(seconds=-1))
    assert (await catalog.job(job.job_id)).status == "running"
    assert await Sweep(catalog, bell)() == 1
    assert (await catalog.job(job.job_id)).status == "queued"
    assert bell.rings == [job.job_id]


async def test_a_job_in_good_hands_is_left_alone(catalog: MemoryCatalog) -> None:
    bell = Bell()
    await submit(catalog, "a")
    await catalog.claim(owner="alive", lease=timedelta(minutes=1))
    assert await Sweep(catalog, bell)() == 0


async def test_without_redis_abandoned_jobs_are_taken_back_all_the_same(
    catalog: MemoryCatalog,
) -> None:
    job = await submit(catalog, "a")
    await catalog.claim(owner="dead", lease=timedelta(seconds=-1))
    with pytest.raises(QueueUnavailable):
        await Sweep(catalog, BrokenBell())()
    assert (await catalog.job(job.job_id)).status == "queued"
