"""Requests of one caller in a minute, counted in Redis or Valkey by the `limits` library."""

import logging
import math
import time
from dataclasses import dataclass
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
_TAKEN_SHARE: Final = 600
"""Of its requests a minute, a process takes this fraction at once to give away within a second: so
few that ten processes together, none of which uses up what it took, stay within the limit."""
_TAKEN_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Taken:
    """Requests of a caller that are counted and not yet made."""

    left: int
    until: float
    """By the clock of `time.monotonic`."""


class RedisLimits:
    """Counts for all processes together. One per process; closed with `aclose`.

    The window slides: the minute before counts with the share of it that is still less than a
    minute ago. Refused requests are not counted. Of a high limit a process takes several requests
    at once, so that not each of them waits for Redis; what it has not used in a second is lost.
    While Redis is away everybody is let through: a limit guards against haste, and is not worth an
    outage.
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
        self._taken: dict[str, _Taken] = {}
        self._away_until = -math.inf
        self._silent_until = -math.inf

    async def count(self, caller: str, *, per_minute: int) -> None:
        """Count one request of a caller. Raises RateLimited when its minute is used up."""
        now = time.monotonic()
        if self._has_left(caller, now) or now < self._away_until:
            return
        limit = RateLimitItemPerMinute(per_minute)
        many = per_minute // _TAKEN_SHARE
        try:
            if many > 1 and await self._window.hit(limit, caller, cost=many):
                self._taken[caller] = _Taken(many - 1, now + _TAKEN_SECONDS)
                return
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

    def _has_left(self, caller: str, now: float) -> bool:
        """Use one of the requests that were taken before, if there is any."""
        taken = self._taken.get(caller)
        if taken is None:
            return False
        if taken.left > 0 and now < taken.until:
            taken.left -= 1
            return True
        del self._taken[caller]
        return False

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
