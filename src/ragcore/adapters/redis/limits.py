"""Requests of one caller in a minute, counted in Redis or Valkey by the `limits` library."""

import logging
import math
import time
from typing import Final

import redis.asyncio
from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from ragcore.errors import RateLimited

_TIMEOUT_SECONDS: Final = 0.5
_MOST_CONNECTIONS: Final = 16
_WAIT_SECONDS: Final = 5.0
"""For one of them: many requests at once are no failure of Redis."""
_PAUSE_SECONDS: Final = 5.0
"""After a failure nobody waits for Redis for so long."""
_LOG_EVERY_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


class RedisLimits:
    """Counts for all processes together. One per process; closed with `aclose`.

    The window slides: the minute before counts with the share of it that is still less than a
    minute ago. Refused requests are not counted. While Redis is away everybody is let through: a
    limit guards against haste, and is not worth an outage.
    """

    def __init__(self, redis_url: str) -> None:
        self._pool = redis.asyncio.BlockingConnectionPool.from_url(
            redis_url,
            max_connections=_MOST_CONNECTIONS,
            timeout=_WAIT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # one more try, for a connection that went stale
        )
        storage = RedisStorage(
            "async+redis://",  # the pool knows the address
            implementation="redispy",
            key_prefix="ragcore:limits",
            connection_pool=self._pool,  # type: ignore[arg-type]  # handed on to redis-py
        )
        self._window = SlidingWindowCounterRateLimiter(storage)
        self._away_until = -math.inf
        self._silent_until = -math.inf

    async def count(self, caller: str, *, per_minute: int) -> None:
        """Count one request of a caller. Raises RateLimited when its minute is used up."""
        if time.monotonic() < self._away_until:
            return
        limit = RateLimitItemPerMinute(per_minute)
        try:
            if await self._window.hit(limit, caller):
                return
            reset_at, _ = await self._window.get_window_stats(limit, caller)
        except (redis.RedisError, OSError) as error:
            self._note_failure(error)
            return
        raise RateLimited(
            f"this key has used up its {per_minute} requests a minute; wait, or ask an "
            "administrator for a higher limit",
            retry_after_seconds=max(1.0, math.ceil(reset_at - time.time())),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._pool.aclose()

    def _note_failure(self, error: Exception) -> None:
        now = time.monotonic()
        self._away_until = now + _PAUSE_SECONDS
        if now >= self._silent_until:
            self._silent_until = now + _LOG_EVERY_SECONDS
            log.warning(
                "requests are not limited while Redis does not answer (%s: %s)",
                type(error).__name__,
                error,
            )
