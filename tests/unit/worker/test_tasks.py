import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from ragcore.errors import StorageFull, StoreUnavailable
from ragcore.model import Job
from ragcore_worker.tasks import Answer, keep_small_lane


def job(name: str) -> Job:
    return Job(uuid4(), "default", name, "succeeded", outcome="created")


@dataclass
class Queue:
    """What `Work` does for a worker: it takes a job and is done at once, or when it is let go."""

    waiting: list[tuple[str, int]] = field(default_factory=list)
    """Names and sizes in bytes."""
    done: list[str] = field(default_factory=list)
    failure: Exception | None = None
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self, *, at_most_bytes: int | None = None) -> Job | None:
        if self.failure is not None:
            raise self.failure
        for place, (name, size) in enumerate(self.waiting):
            if at_most_bytes is None or size <= at_most_bytes:
                del self.waiting[place]
                if name.startswith("held"):
                    await self.let_go.wait()
                self.done.append(name)
                return job(name)
        return None


def answer(queue: Queue, **options: object) -> Answer:
    return Answer(queue, **options)  # type: ignore[arg-type]


async def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0)


async def test_one_ring_is_enough_for_all_that_waits() -> None:
    queue = Queue([("a", 1), ("b", 1), ("c", 1)])
    ended: list[Job] = []
    await answer(queue, on_end=ended.append)(uuid4())
    assert queue.done == [each.document_id for each in ended] == ["a", "b", "c"]


async def test_a_full_disk_leaves_jobs_waiting(caplog: pytest.LogCaptureFixture) -> None:
    queue = Queue([("a", 1)])

    def full() -> None:
        raise StorageFull("only 3 MiB are free")

    await answer(queue, require_room=full)(uuid4())
    assert queue.waiting
    assert "jobs are left waiting: only 3 MiB are free" in caplog.text


async def test_a_database_that_is_away_is_no_end_of_the_worker(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await answer(Queue(failure=StoreUnavailable("away")))(uuid4())
    assert "no job could be claimed: away" in caplog.text


async def test_a_worker_that_stops_finishes_its_job_and_takes_no_other() -> None:
    queue = Queue([("held", 1), ("next", 1)])
    answering = answer(queue)
    task = asyncio.create_task(answering(uuid4()))
    await until(lambda: answering.in_hand)
    answering.stopping.set()
    queue.let_go.set()
    await task
    assert queue.done == ["held"]
    assert queue.waiting == [("next", 1)]


async def lane_with(sizes: Sequence[tuple[str, int]], *, rings: int) -> Queue:
    """Keep the lane of a worker with one slot until it looked twice and found nothing to do."""
    queue = Queue(list(sizes))
    answering = answer(queue)
    ringing = [asyncio.create_task(answering(uuid4())) for _ in range(rings)]
    await asyncio.sleep(0)
    lane = asyncio.create_task(
        keep_small_lane(answering, slots=1, at_most_bytes=10, every_seconds=0)
    )
    for _ in range(20):
        await asyncio.sleep(0)
    queue.done.append("|")
    queue.let_go.set()
    answering.stopping.set()
    await asyncio.gather(lane, *ringing)
    return queue


async def test_small_documents_do_not_wait_for_the_large_ones_before_them() -> None:
    queue = await lane_with([("held", 99), ("large", 99), ("small", 9), ("tiny", 1)], rings=1)
    assert queue.done[:3] == ["small", "tiny", "|"]
    assert ("large", 99) in queue.waiting


async def test_the_lane_is_closed_while_a_slot_is_free() -> None:
    queue = await lane_with([("small", 9)], rings=0)
    assert queue.done == ["|"]


async def test_a_bug_does_not_close_the_lane(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    queue = Queue(failure=ZeroDivisionError("a bug"))
    answering = answer(queue)
    lane = asyncio.create_task(
        keep_small_lane(answering, slots=0, at_most_bytes=10, every_seconds=0)
    )
    await until(lambda: "a bug" in caplog.text)
    queue.failure, queue.waiting = None, [("small", 1)]
    await until(lambda: queue.done)
    answering.stopping.set()
    await lane
