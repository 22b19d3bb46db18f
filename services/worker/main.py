"""The worker process: open everything, answer the bell, stop when told to."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Final

from ragcore import logs
from ragcore.adapters.prometheus import Gauges
from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.errors import RagError, Unavailable
from ragcore.flows.events import DrainEvents, EventList
from ragcore.flows.sweep import Sweep
from ragcore.runtime import Runtime, open_bucket_events, open_doorbell, open_runtime
from ragcore.settings import Settings
from ragcore_worker.metrics import WorkerMetrics, alive, served
from ragcore_worker.tasks import Answer, keep_doing, keep_small_lane

_OPEN_AGAIN_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 1.0
_OFTEN_SECONDS: Final = 2.0
_MINUTE: Final = 60.0
_HOUR: Final = 3600.0

log = logging.getLogger(__name__)


def main() -> None:
    """Work until SIGTERM or SIGINT. Exits with 1 and one line when it can't start."""
    settings = Settings()
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    os.nice(settings.worker.niceness)
    try:
        asyncio.run(serve(settings))
    except RagError as error:
        log.error("%s: %s", error.code, error)
        sys.exit(1)


async def serve(settings: Settings) -> None:
    """Answer the bell until told to stop; killed at any line, its jobs go to others.

    While a server is away that it can't do without, it waits for that and says so. Raises
    Unsupported or one of its children for what waiting does not help.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = WorkerMetrics()
    async with AsyncExitStack() as stack:
        if settings.worker.metrics_port:
            pages = {"/metrics": metrics.exposition, "/health": alive}
            address = settings.worker.metrics_host, settings.worker.metrics_port
            await stack.enter_async_context(served(pages, host=address[0], port=address[1]))
        while not stop.is_set():
            try:
                await _work(settings, metrics, stop)
            except Unavailable as error:
                log.warning("no work before this is back: %s: %s", error.code, error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), _OPEN_AGAIN_SECONDS)


async def _work(settings: Settings, metrics: WorkerMetrics, stop: asyncio.Event) -> None:
    slots = settings.worker.jobs or settings.conversion.processes + 1  # one embeds, others are read
    small_bytes = settings.conversion.small_file_kb * 1024
    async with (
        open_doorbell(settings) as doorbell,
        open_bucket_events(settings) as events,
        open_runtime(settings, doorbell=doorbell, meter=metrics.meter) as runtime,
    ):
        answer = Answer(runtime.work, require_room=runtime.room.require, on_end=metrics.job_ended)
        metrics.busy.set_function(lambda: answer.in_hand)
        metrics.gauges = _gauges(runtime, doorbell)
        async with (
            _Lane(answer, slots=slots, at_most_bytes=small_bytes) as lane,
            doorbell.answered_by(
                answer, at_once=slots, grace_seconds=settings.worker.grace_seconds
            ),
            _chores(runtime, doorbell, events),
        ):
            log.info("worker is ready")
            await stop.wait()
            log.info("worker is stopping")
            answer.stopping.set()
            lane.end_within(settings.worker.grace_seconds)


class _Lane:
    """The lane of small documents, open for as long as the block lasts."""

    def __init__(self, answer: Answer, *, slots: int, at_most_bytes: int) -> None:
        self._keep = partial(keep_small_lane, answer, slots=slots, at_most_bytes=at_most_bytes)
        self._left_until = 0.0

    def end_within(self, seconds: float) -> None:
        """Let the job in hand go on for so long at the end of the block; else it is given back."""
        self._left_until = monotonic() + seconds

    async def __aenter__(self) -> "_Lane":
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait([self._task], timeout=max(0.0, self._left_until - monotonic()))
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Chore:
    named: str
    do: Callable[[], Awaitable[int]]
    every_seconds: float
    is_shared: bool = False
    """Whether several workers may do it at once."""


@asynccontextmanager
async def _chores(
    runtime: Runtime, doorbell: RedisDoorbell, events: EventList | None
) -> AsyncIterator[None]:
    """Do all chores until the block ends. Each is safe to stop at any line."""
    tasks = [
        asyncio.create_task(
            keep_doing(
                chore.do,
                named=chore.named,
                every_seconds=chore.every_seconds,
                pool=None if chore.is_shared else runtime.pool,
            )
        )
        for chore in _chores_of(runtime, doorbell, events)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _chores_of(runtime: Runtime, doorbell: RedisDoorbell, events: EventList | None) -> list[_Chore]:
    chores = [
        _Chore("jobs rung for again", Sweep(runtime.catalog, doorbell), _OFTEN_SECONDS),
        _Chore("buckets listed", partial(_list_bucket, runtime), _LOOK_SECONDS, is_shared=True),
        _Chore("collections reindexed", partial(_reindex, runtime), _LOOK_SECONDS, is_shared=True),
        _Chore("outdated generations dropped", runtime.reindex.tidy, _MINUTE),
        _Chore("jobs of buckets ended", runtime.sync.settle, _OFTEN_SECONDS),
        _Chore("listings of buckets queued", runtime.start_due_syncs, _OFTEN_SECONDS),
        _Chore("callbacks delivered", runtime.deliver_callbacks, _OFTEN_SECONDS, is_shared=True),
        _Chore("kept long enough", runtime.retain, _MINUTE),
        _Chore("orphaned files deleted", runtime.sweep_orphans, _HOUR),
    ]
    if days := runtime.settings.retention.unused_vectors_days:
        forget = partial(runtime.cache.forget_unused, days=days)
        chores.append(_Chore("cached vectors forgotten", forget, _HOUR))
    if events is not None:
        drain = DrainEvents(events, runtime.hear_events)
        chores.append(_Chore("bucket events heard", drain, _LOOK_SECONDS))
    return chores


async def _list_bucket(runtime: Runtime) -> int:
    """Work on one bucket's job, beside documents: it waits for servers most of the time."""
    return int(await runtime.sync.next() is not None)


async def _reindex(runtime: Runtime) -> int:
    """Work on one collection's reindex, beside documents; who finds no job has asked one query."""
    return int(await runtime.reindex.next() is not None)


def _gauges(runtime: Runtime, doorbell: RedisDoorbell) -> Gauges:
    return Gauges(
        queue_state=runtime.catalog.queue_state,
        unheard=doorbell.unheard,
        pool=runtime.pool,
        free_bytes=lambda: runtime.room.free_bytes,
        sync_ages=runtime.start_due_syncs.ages,
    )
