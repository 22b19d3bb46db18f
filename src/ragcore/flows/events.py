"""Bucket notifications → the objects that they name, looked at. Also buckets whose time has come.

An event only says where to look. So events may come twice, late, or in any order, and one that is
lost is made good by the next listing.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragcore.errors import InvalidInput
from ragcore.flows.sync import Sync
from ragcore.model import Job
from ragcore.ports import BucketOrder
from ragcore.steps.bucket_events import objects_in

log = logging.getLogger(__name__)

_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ScheduledSync:
    """What an operator wants kept alike."""

    name: str
    order: BucketOrder
    every_seconds: float
    """0: only on request, and by events."""


@dataclass(frozen=True, slots=True)
class HearEvents:
    """Look at the objects that a notification names, wherever a configured sync wants them."""

    sync: Sync
    syncs: Sequence[ScheduledSync]
    open_collection: Callable[[str], Awaitable[object]]
    """Makes a collection that is not there yet."""

    async def __call__(self, message: object) -> int:
        """Return of how many objects there was news; their jobs are durable then.

        Raises InvalidInput for what is no notification, SourceUnavailable and StoreUnavailable,
        upon which a repeat is safe.
        """
        news = 0
        for bucket, key in objects_in(message):
            for each in self.syncs:
                if each.order.bucket == bucket:
                    await self.open_collection(each.order.collection)
                    news += await self.sync.touch(each.order, key)
        return news


class EventList(Protocol):
    """Notifications that wait in a list elsewhere, the oldest first."""

    async def waiting(self, limit: int) -> Sequence[bytes]: ...

    async def remove(self, message: bytes) -> None:
        """Take one away that has been heard; nothing happens when it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class DrainEvents:
    """Hear the notifications of a list; each is removed when its jobs are durable, not before."""

    events: EventList
    hear: HearEvents

    async def __call__(self) -> int:
        """Return how many were heard. Raises Unavailable: what is left is heard the next time."""
        heard = 0
        while messages := await self.events.waiting(_AT_ONCE):
            for message in messages:
                try:
                    await self.hear(json.loads(message))
                except (ValueError, RecursionError, InvalidInput) as error:
                    log.warning("a bucket event is dropped: %s: %.200r", error, message)
                await self.events.remove(message)
                heard += 1
        return heard


@dataclass(frozen=True, slots=True)
class StartDueSyncs:
    """Queue the jobs of the buckets that are to be listed now and then. One process at a time."""

    sync: Sync
    syncs: Sequence[ScheduledSync]
    open_collection: Callable[[str], Awaitable[object]]

    async def __call__(self) -> int:
        """Return how many jobs were queued."""
        started = 0
        for each in self.syncs:
            if each.every_seconds and await self._is_due(each):
                await self.start(each)
                started += 1
        return started

    async def start(self, wanted: ScheduledSync) -> Job:
        """Queue the job of one now, or find the one that waits already."""
        await self.open_collection(wanted.order.collection)
        return await self.sync.start(wanted.order, submitted_by=f"sync {wanted.name}"[:100])

    async def ages(self) -> Mapping[str, float | None]:
        """Return how many seconds ago each last ended well, by name; None: never."""
        return {
            each.name: (await self.sync.sources.state(each.order)).succeeded_seconds_ago
            for each in self.syncs
        }

    async def _is_due(self, wanted: ScheduledSync) -> bool:
        state = await self.sync.sources.state(wanted.order)
        if state.is_under_way:
            return False
        ago = state.started_seconds_ago
        return ago is None or ago >= wanted.every_seconds
