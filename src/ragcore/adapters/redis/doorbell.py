"""The doorbell over Redis or Valkey, by dramatiq.

A message carries the id of a job and nothing else. What it says is "look": whoever hears it claims
the best waiting job in PostgreSQL, so lost, repeated or late messages cost a moment and no data.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar
from uuid import UUID

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import BrokerConnectionError
from redis.backoff import NoBackoff
from redis.retry import Retry

from ragcore.errors import QueueUnavailable

_ACTOR = "work"
_TIMEOUT_SECONDS = 2.0
_HEARTBEAT_MS = 5_000
"""After so long without a sign of life a worker's unheard messages go to the others."""
_MAINTENANCE_CHANCE = 100_000
"""In a million: how often a worker that fetches looks for such messages."""
_IDLE_POLL_MS = 100

Result = TypeVar("Result")


class RedisDoorbell:
    """Rings, and answers to rings. One per process; closed with `aclose`.

    dramatiq's retries, time limits and results are left out: the work loop decides those.
    """

    def __init__(self, redis_url: str, *, queue: str = "ragcore") -> None:
        self._queue = queue
        self._client = redis.Redis.from_url(
            redis_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # one more try, for a connection that went stale
        )
        self._broker = RedisBroker(  # type: ignore[no-untyped-call]  # dramatiq's is untyped
            client=self._client,
            middleware=[],
            heartbeat_timeout=_HEARTBEAT_MS,
            maintenance_chance=_MAINTENANCE_CHANCE,
        )
        self._broker.declare_queue(queue)
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="doorbell")

    async def ring(self, job_id: UUID) -> None:
        """Raises QueueUnavailable. Which job is best is PostgreSQL's affair, not the message's."""
        message: dramatiq.Message[Any] = dramatiq.Message(
            queue_name=self._queue,
            actor_name=_ACTOR,
            args=(),
            kwargs={"job_id": str(job_id)},
            options={},
        )
        await self._call(lambda: self._broker.enqueue(message))

    async def unheard(self) -> int:
        """Return how many messages no worker has taken yet. Raises QueueUnavailable."""
        length = await self._call(lambda: self._client.llen(f"dramatiq:{self._queue}"))
        return int(length)

    async def server_version(self) -> str:
        """Return the server's version as it names itself. Raises QueueUnavailable."""
        info: Any = await self._call(lambda: self._client.info("server"))
        return str(info.get("valkey_version") or info["redis_version"])

    @asynccontextmanager
    async def answered_by(
        self, hear: Callable[[UUID], Awaitable[None]], *, at_once: int, grace_seconds: float
    ) -> AsyncIterator[None]:
        """Have `hear` called on this loop for each message, at most so many at the same time.

        At the end no new message is taken; those in hand are waited for, and cancelled after
        `grace_seconds`. What `hear` raises is logged by dramatiq, and the message is done.
        """
        hearing = _Hearing(hear)
        actor = dramatiq.actor(broker=self._broker, actor_name=_ACTOR, queue_name=self._queue)
        actor(hearing.work)
        worker = dramatiq.Worker(
            self._broker,
            queues={self._queue},
            worker_timeout=_IDLE_POLL_MS,
            worker_threads=at_once,
        )
        worker.start()
        try:
            yield
        finally:
            stopping = asyncio.create_task(asyncio.to_thread(worker.stop))
            await asyncio.wait([stopping], timeout=grace_seconds)
            hearing.cancel()
            await stopping

    async def aclose(self) -> None:
        """Close the connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _call(self, function: Callable[[], Result]) -> Result:
        with _translated():
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)


class _Hearing:
    """Calls on the event loop from dramatiq's threads."""

    def __init__(self, hear: Callable[[UUID], Awaitable[None]]) -> None:
        self._hear = hear
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def work(self, job_id: str) -> None:
        """What a thread of dramatiq does for a message: wait for the answer."""
        answer = asyncio.run_coroutine_threadsafe(self._answer(UUID(job_id)), self._loop)
        with suppress(CancelledError):
            answer.result()

    def cancel(self) -> None:
        """Cancel what is in hand; it ends in its own time."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, job_id: UUID) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._hear(job_id)
        finally:
            self._tasks.discard(task)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, BrokerConnectionError, OSError) as error:
        raise QueueUnavailable(
            f"Redis did not answer ({type(error).__name__}: {error}); nothing is lost, "
            "jobs start when it is back"
        ) from error
