"""Slots that all processes share, kept in Redis or Valkey."""

import asyncio
import itertools
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Final, cast
from uuid import uuid4

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

_SCRIPT: Final = files(__package__).joinpath("slots.lua")
_PREFIX: Final = "ragcore:slots"
_CHANNELS: Final = f"{_PREFIX}:process:"
"""A process hears on the channel of its own name."""
_TIMEOUT_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 5.0
"""After a failure nobody waits for Redis for so long."""
_LEASE_SECONDS: Final = 9.0
"""A process that does not renew for so long has lost its slots and its places in the queue."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Resource:
    """What this process has of one resource."""

    most: int
    held: set[str] = field(default_factory=set)
    waiting: dict[str, asyncio.Future[None]] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    """Given back, which Redis is yet to be told."""
    visiting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One visit at a time: of two that cross, the older would bring back what was released."""
    changes: int = 0
    told: int = 0
    """The changes up to this one are known to Redis."""


class RedisSlots:
    """`ports.SharedSlots` for one event loop of one process; closed with `aclose`.

    Each visit is one script, one round trip: it joins the queue, or takes a free slot at once. Who
    has to wait is told by a message when a slot was given to it; should the message get lost, the
    renewal of the leases tells it, a third of a lease later. The slots of a killed process are free
    when its lease ends. While Redis is away everybody gets a slot, which is logged once.
    """

    def __init__(self, redis_url: str, *, lease_seconds: float = _LEASE_SECONDS) -> None:
        self._client = redis.asyncio.Redis.from_url(
            redis_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # one more try, for a connection that went stale
            decode_responses=True,
        )
        # A message may be long in coming: the connection that waits for one has no time limit.
        self._listening_client = redis.asyncio.Redis.from_url(
            redis_url,
            socket_timeout=None,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            decode_responses=True,
        )
        self._visit_script = self._client.register_script(_SCRIPT.read_text())
        self._lease_seconds = lease_seconds
        self._process = uuid4().hex
        self._numbers = itertools.count()
        self._resources: defaultdict[str, _Resource] = defaultdict(lambda: _Resource(most=1))
        self._away_until = -math.inf
        self._is_away = False
        self._keeper: asyncio.Task[None] | None = None
        self._listener: asyncio.Task[None] | None = None
        self._visits: set[asyncio.Task[None]] = set()

    async def acquire(self, resource: str, *, most: int, is_question: bool) -> Callable[[], None]:
        """See the port."""
        if time.monotonic() < self._away_until:
            return _nothing
        self._keep()
        ticket = f"{self._process}/{next(self._numbers)}/{'q' if is_question else 'd'}"
        mine = self._resources[resource]
        mine.most = most
        turn = mine.waiting[ticket] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.shield(self._tell(resource))  # cut off it could be heard too late
            await turn
        except BaseException:
            mine.waiting.pop(ticket, None)
            self._release(resource, ticket)
            raise
        return lambda: self._release(resource, ticket)

    async def aclose(self) -> None:
        """Give everything back and close the connections."""
        tasks = [task for task in (self._keeper, self._listener) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._visits, return_exceptions=True)
        for name, mine in self._resources.items():
            mine.released |= mine.held
            mine.held.clear()
            if mine.released:
                await self._visit(name)
        await self._client.aclose()
        await self._listening_client.aclose()

    def _release(self, resource: str, ticket: str) -> None:
        """Give a slot back, or a place in the queue; Redis is told in the background."""
        mine = self._resources[resource]
        mine.held.discard(ticket)
        mine.released.add(ticket)
        self._tell(resource)

    def _tell(self, resource: str) -> asyncio.Task[None]:
        visit = asyncio.get_running_loop().create_task(self._visit(resource))
        self._visits.add(visit)
        visit.add_done_callback(self._visits.discard)
        return visit

    async def _visit(self, resource: str) -> None:
        """Tell Redis what this process has, and take note of what it was given.

        Whoever comes while a visit is under way shares the next one with all that come.
        """
        mine = self._resources[resource]
        mine.changes += 1
        change = mine.changes
        async with mine.visiting:
            if mine.told >= change:
                return
            told, released = mine.changes, tuple(mine.released)
            said = {
                "lease_ms": int(1000 * self._lease_seconds),
                "most": mine.most,
                "released": released,
                "held": tuple(mine.held),
                "waiting": tuple(mine.waiting),
            }
            try:
                granted = await self._visit_script(_keys(resource), [json.dumps(said), _CHANNELS])
            except (redis.RedisError, OSError) as error:
                self._note_failure(error)
                return
            self._note_success()
            mine.told = told
            mine.released.difference_update(released)
        for ticket in cast("list[str]", granted):
            self._grant(mine, ticket)

    def _grant(self, mine: _Resource, ticket: str) -> None:
        turn = mine.waiting.pop(ticket, None)
        if turn is not None and not turn.done():
            mine.held.add(ticket)
            turn.set_result(None)

    # --- in the background -------------------------------------------------------------

    def _keep(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.create_task(self._renew())
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen())

    async def _renew(self) -> None:
        """Renew all leases and places in the queue, three times as often as needed."""
        while True:
            await asyncio.sleep(self._lease_seconds / 3)
            for name, resource in list(self._resources.items()):
                if resource.held or resource.waiting or resource.released:
                    await self._visit(name)

    async def _listen(self) -> None:
        """Hear which tickets of this process were given a slot."""
        with suppress(redis.RedisError, OSError):  # begun anew by the next who waits
            async with self._listening_client.pubsub() as messages:
                await messages.subscribe(_CHANNELS + self._process)
                async for message in messages.listen():
                    self._hear(message)

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "subscribe":  # what was told before then went unheard
            for name, resource in self._resources.items():
                if resource.waiting:
                    self._tell(name)
        for resource in self._resources.values():
            self._grant(resource, str(message["data"]))

    # --- Redis away --------------------------------------------------------------------

    def _note_failure(self, error: Exception) -> None:
        self._away_until = time.monotonic() + _PAUSE_SECONDS
        if not self._is_away:
            self._is_away = True
            log.warning(
                "requests to models are limited by each process for itself while Redis does not "
                "answer (%s: %s)",
                type(error).__name__,
                error,
            )
        for resource in self._resources.values():
            for ticket in tuple(resource.waiting):
                self._grant(resource, ticket)

    def _note_success(self) -> None:
        self._away_until = -math.inf
        if self._is_away:
            self._is_away = False
            log.warning("Redis answers again: requests to models are limited for all processes")


def _keys(resource: str) -> list[str]:
    # In braces: of a cluster they must lie on one server.
    return [f"{_PREFIX}:{{{resource}}}:{part}" for part in ("held", "waiting", "alive", "arrivals")]


def _nothing() -> None:
    """Give back a slot that was never counted."""
