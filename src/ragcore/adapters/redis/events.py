"""Bucket notifications that MinIO writes to a list in Redis (`format=access`)."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from ragcore.errors import QueueUnavailable

_TIMEOUT_SECONDS = 5.0
_T = TypeVar("_T")


class RedisEvents:
    """`flows.events.EventList` over one key. Closed with `aclose`; connects on first use.

    Messages are looked at where they are and removed one by one, by what they hold: so a reader
    that is killed loses none, and two readers at once take nothing from one another.
    """

    def __init__(self, redis_url: str, *, key: str) -> None:
        self._key = key
        self._client = redis.Redis.from_url(
            redis_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),
        )
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bucket-events")

    async def waiting(self, limit: int) -> Sequence[bytes]:
        """Raises QueueUnavailable, also when the key is no list."""
        found = await self._call(lambda: self._client.lrange(self._key, 0, limit - 1))
        return cast("list[bytes]", found)

    async def remove(self, message: bytes) -> None:
        await self._call(lambda: self._client.lrem(self._key, 1, cast("str", message)))

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def _call(self, function: Callable[[], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, function)
        except (redis.RedisError, OSError) as error:
            raise QueueUnavailable(
                f"the list of bucket events {self._key!r} can't be read "
                f"({type(error).__name__}: {error}); nothing is lost"
            ) from error
