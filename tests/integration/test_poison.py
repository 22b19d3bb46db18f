"""A job that takes its worker down again and again must not do so for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import cast
from uuid import uuid4

import pytest

from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.errors import LeaseLost, ModelUnavailable, StoreUnavailable
from ragcore.flows.ingest import Ingest, Report
from ragcore.flows.work import MOST_CRASHES, Work
from ragcore.model import EmbeddingSpec, Job, JobFailure
from ragcore.ports import Catalog, Lease, Settled, Submission
from ragcore.testing.memory.catalog import MemoryCatalog


class WorkerKilled(BaseException):
    """Nothing after it runs, as after a kill."""


async def deadly(_: Lease, __: Report) -> Settled:
    raise WorkerKilled


@pytest.fixture(params=["memory", "postgres"])
async def catalog(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Catalog]:
    if request.param == "memory":
        yield MemoryCatalog("default")
        return
    async with open_pool(database_url, size=2) as pool:
        spec = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)
        await PostgresCollections(pool).open("default", embedding=spec, chunker="test")
        yield PostgresCatalog(pool)


def worker(catalog: Catalog, ingest: object, **options: timedelta) -> Work:
    options = {"lease": timedelta(seconds=-1), **options}
    return Work(
        catalog,
        cast(Ingest, ingest),
        owner="worker",
        backoff=(timedelta(), timedelta()),
        hand_in=(timedelta(), timedelta()),
        **options,  # type: ignore[arg-type]
    )


async def submit(catalog: Catalog, name: str, *, priority: int = 0) -> Job:
    made = Submission(
        collection="default",
        document_id=name,
        version_id=uuid4(),
        sha256=name.encode(),
        size_bytes=1,
        priority=priority,
    )
    return (await catalog.submit(made)).job


async def test_a_job_that_kills_its_workers_ends_and_the_queue_goes_on(catalog: Catalog) -> None:
    await submit(catalog, "poison", priority=1)
    await submit(catalog, "harmless")
    work = worker(catalog, deadly)
    for _ in range(MOST_CRASHES):
        with pytest.raises(WorkerKilled):
            await work.next()
        await catalog.release_expired()
    given_up = await work.next()
    assert given_up is not None
    assert (given_up.document_id, given_up.status) == ("poison", "failed")
    assert given_up.error is not None
    assert f"{MOST_CRASHES} workers died" in given_up.error.detail
    with pytest.raises(WorkerKilled):
        await work.next()
    (running,) = await catalog.jobs(status="running")
    assert running.document_id == "harmless"


async def test_a_poisonous_job_that_is_run_again_starts_anew(catalog: Catalog) -> None:
    job = await submit(catalog, "poison")
    work = worker(catalog, deadly)
    for _ in range(MOST_CRASHES):
        with suppress(WorkerKilled):
            await work.next()
        await catalog.release_expired()
    await work.next()
    await catalog.run_again(job.job_id)
    with pytest.raises(WorkerKilled):
        await work.next()


async def test_a_job_interrupted_by_shutdowns_is_no_poison(catalog: Catalog) -> None:
    job = await submit(catalog, "slow")

    for _ in range(2 * MOST_CRASHES):
        started = asyncio.Event()

        async def slow(_: Lease, __: Report, started: asyncio.Event = started) -> Settled:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        working = asyncio.create_task(worker(catalog, slow, lease=timedelta(seconds=60)).next())
        await started.wait()
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
    again = await catalog.job(job.job_id)
    assert (again.status, again.attempts) == ("queued", 0)
    with pytest.raises(WorkerKilled):
        await worker(catalog, deadly).next()


async def test_crashes_leave_a_failure_that_passes_its_own_tries(catalog: Catalog) -> None:
    job = await submit(catalog, "unlucky")
    for _ in range(MOST_CRASHES - 1):
        with pytest.raises(WorkerKilled):
            await worker(catalog, deadly).next()
        await catalog.release_expired()

    async def away(_: Lease, __: Report) -> Settled:
        raise ModelUnavailable("no answer")

    states = [await worker(catalog, away).next() for _ in range(3)]
    assert [each and each.status for each in states] == ["queued", "queued", "failed"]
    assert (await catalog.job(job.job_id)).attempts == MOST_CRASHES - 1 + 3


async def test_a_worker_that_stood_still_is_no_crash(catalog: Catalog) -> None:
    job = await submit(catalog, "slow")

    async def stand_still(lease: Lease, __: Report) -> Settled:
        await catalog.release_expired()
        raise LeaseLost("woken up")

    for _ in range(2 * MOST_CRASHES):
        await worker(catalog, stand_still).next()
    assert (await catalog.job(job.job_id)).status == "queued"
    with pytest.raises(WorkerKilled):
        await worker(catalog, deadly).next()


class Away(MemoryCatalog):
    """A catalogue that is away for the first so many endings."""

    def __init__(self, times: int) -> None:
        super().__init__("default")
        self.times = times

    async def fail(self, lease: Lease, failure: JobFailure) -> None:
        if self.times:
            self.times -= 1
            raise StoreUnavailable("PostgreSQL is away")
        await super().fail(lease, failure)


async def broken(_: Lease, __: Report) -> Settled:
    raise ZeroDivisionError


async def test_the_end_of_a_job_outlasts_a_short_absence_of_the_database() -> None:
    catalog = Away(2)
    await submit(catalog, "a")
    done = await worker(catalog, broken).next()
    assert done is not None and done.status == "failed"


async def test_a_long_absence_leaves_the_job_to_the_sweep() -> None:
    catalog = Away(3)
    await submit(catalog, "a")
    with pytest.raises(StoreUnavailable):
        await worker(catalog, broken).next()
    assert [job.status for job in await catalog.release_expired()] == ["queued"]


async def test_what_a_parser_says_can_always_be_recorded(catalog: Catalog) -> None:
    await submit(catalog, "a")

    async def cryptic(_: Lease, __: Report) -> Settled:
        raise ModelUnavailable("bad\0 \udce9 byte")

    done = await worker(catalog, cryptic).next()
    assert done is not None and done.error is not None
    assert done.error.detail == "bad  ? byte"
