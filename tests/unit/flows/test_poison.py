"""A job that takes its worker down again and again must not do so for ever."""

from datetime import timedelta
from typing import cast
from uuid import uuid4

import pytest

from ragcore.flows.ingest import Ingest, Report
from ragcore.flows.work import MOST_ATTEMPTS, Work
from ragcore.ports import Lease, Settled, Submission
from ragcore.testing.memory.catalog import MemoryCatalog


class WorkerKilled(BaseException):
    """Nothing after it runs, as after a kill."""


async def deadly(_: Lease, __: Report) -> Settled:
    raise WorkerKilled


async def test_a_job_that_kills_its_workers_ends_and_the_queue_goes_on() -> None:
    catalog = MemoryCatalog("default")
    for name in ("poison", "harmless"):
        await catalog.submit(
            Submission(
                collection="default",
                document_id=name,
                version_id=uuid4(),
                sha256=name.encode(),
                size_bytes=1,
                priority=1 if name == "poison" else 0,
            )
        )
    work = Work(catalog, cast(Ingest, deadly), owner="worker", lease=timedelta(seconds=-1))
    for _ in range(MOST_ATTEMPTS):
        with pytest.raises(WorkerKilled):
            await work.next()
        await catalog.release_expired()
    given_up = await work.next()
    assert given_up is not None
    assert (given_up.document_id, given_up.status) == ("poison", "failed")
    assert given_up.error is not None
    assert f"after {MOST_ATTEMPTS} attempts" in given_up.error.detail
    with pytest.raises(WorkerKilled):
        await work.next()
    (running,) = await catalog.jobs(status="running")
    assert running.document_id == "harmless"
