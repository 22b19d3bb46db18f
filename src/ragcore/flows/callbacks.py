"""A finished job → whoever gave a `callback_url` is told, signed, until they have heard."""

import asyncio
import hashlib
import hmac
import json
import logging
import random
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from uuid import UUID

from ragcore.errors import RagError
from ragcore.logs import about
from ragcore.model import Job
from ragcore.ports import UNMETERED, Callback, Callbacks, Meter

EVENT: Final = "job.finished"

_GONE: Final = 410
_FACTOR: Final = 3.0
_LONGEST_WAIT: Final = timedelta(hours=1)

log = logging.getLogger(__name__)


class Post(Protocol):
    """Sends a body and returns the status. Raises a RagError when there is none."""

    async def __call__(self, url: str, *, content: bytes, headers: Mapping[str, str]) -> int: ...


@dataclass(frozen=True, slots=True)
class DeliverCallbacks:
    """Tell of finished jobs. Any number of workers may do so at once.

    Each delivery is held by a lease while it is tried, so a worker that is killed in between leaves
    it due: it is made at least once, and its receiver may hear of it twice, under the same
    `X-Ragcore-Delivery`. What is not answered by 2xx is tried again after growing waits, at most
    `attempts` times; 410 says that nobody wants to hear any more.
    """

    callbacks: Callbacks
    post: Post
    secret: bytes | None = field(repr=False)
    """Signs what is sent; None: it is not signed."""
    attempts: int = 8
    lease: timedelta = timedelta(seconds=60)
    """Longer than a post may take."""
    first_wait: timedelta = timedelta(seconds=10)
    at_once: int = 20
    meter: Meter = field(default=UNMETERED, repr=False)

    async def __call__(self) -> int:
        """Try what is due and return how many were delivered. Raises StoreUnavailable."""
        due = await self.callbacks.claim_due(lease=self.lease, limit=self.at_once)
        return sum(await asyncio.gather(*map(self._deliver, due)))

    async def _deliver(self, due: Callback) -> bool:
        with about(job_id=str(due.job.job_id)):
            complaint, may_help = await self._try(due)
            if complaint is None:
                await self.callbacks.delivered(due.job.job_id)
                self.meter.called_back("delivered")
                return True
            tried = due.attempts + 1
            after = self._wait(tried) if may_help and tried < self.attempts else None
            await self.callbacks.failed(due.job.job_id, error=complaint, after=after)
            self.meter.called_back("given_up" if after is None else "failed")
            what_next = "given up" if after is None else f"tried again in {after.seconds} s"
            log.warning("callback to %r: %s; %s", urlsplit(due.url).netloc, complaint, what_next)
            return False

    async def _try(self, due: Callback) -> tuple[str | None, bool]:
        """Return what went wrong, None for nothing, and whether another try may help."""
        content = json.dumps(job_content(due.job), ensure_ascii=False).encode()
        try:
            status = await self.post(
                due.url, content=content, headers=self._headers(due.job, content)
            )
        except RagError as error:
            # Also an unknown host or a forbidden address: a container may start, a setting change.
            return f"{error.code}: {error}", True
        if 200 <= status < 300:
            return None, False
        return f"the receiver answered {status}", status != _GONE

    def _headers(self, job: Job, content: bytes) -> dict[str, str]:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-Ragcore-Event": EVENT,
            "X-Ragcore-Delivery": delivery_id(job),
            "X-Ragcore-Timestamp": timestamp,
        }
        if self.secret is not None:
            headers["X-Ragcore-Signature"] = signature(self.secret, timestamp, content)
        return headers

    def _wait(self, tried: int) -> timedelta:
        wait = min(self.first_wait * _FACTOR ** (tried - 1), _LONGEST_WAIT)
        return wait * random.uniform(0.8, 1.2)  # noqa: S311 - spreads receivers' load


def signature(secret: bytes, timestamp: str, content: bytes) -> str:
    """Return what proves that the content is ours and not older than its timestamp says."""
    signed = timestamp.encode() + b"." + content
    return "sha256=" + hmac.new(secret, signed, hashlib.sha256).hexdigest()


def delivery_id(job: Job) -> str:
    """Name one end of one job: the same in every try, another when the job was run again."""
    assert job.finished_at is not None
    return f"{job.job_id}.{int(job.finished_at.timestamp() * 1000)}"


def job_content(job: Job) -> dict[str, Any]:
    """Return a job in the shape of `GET /jobs/{job_id}`, as plain types."""
    content = {name: _plain(value) for name, value in asdict(job).items()}
    return content | {"status_url": f"/jobs/{job.job_id}"}


def _plain(value: Any) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return list(value) if isinstance(value, tuple) else value
