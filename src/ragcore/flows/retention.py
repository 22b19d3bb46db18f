"""What has been kept long enough → gone."""

import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ragcore.flows.forget import Forget
from ragcore.ports import Catalog, Retention

log = logging.getLogger(__name__)

ACTOR: Final = "retention"
"""Who deleted an expired document, in the audit trail."""

_AT_ONCE: Final = 1000
_EXPIRED_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Retain:
    """Delete expired documents, and what is older than it is to be kept.

    In small transactions: safe to repeat, and to kill at any line. None keeps for ever.
    """

    catalog: Catalog
    retention: Retention
    forget: Forget
    finished_jobs: timedelta | None
    audit_trail: timedelta | None

    async def __call__(self) -> int:
        """Return how many documents, jobs, versions, keys and entries went. Raises Unavailable."""
        gone = {"expired documents": await self._forget_expired()}
        if (kept := self.finished_jobs) is not None:
            gone["finished jobs"] = await _until_done(
                lambda: self.retention.forget_jobs(older_than=kept, limit=_AT_ONCE)
            )
        gone["versions"] = await _until_done(lambda: self.retention.forget_versions(limit=_AT_ONCE))
        gone["idempotency keys"] = await _until_done(
            lambda: self.retention.forget_idempotency_keys(limit=_AT_ONCE)
        )
        if (trail := self.audit_trail) is not None:
            gone["audit entries"] = await _until_done(
                lambda: self.retention.forget_audit(older_than=trail, limit=_AT_ONCE)
            )
        if told := ", ".join(f"{count} {what}" for what, count in gone.items() if count):
            log.info("kept long enough: %s", told)
        return sum(gone.values())

    async def _forget_expired(self) -> int:
        deleted = 0
        while expired := await self.catalog.expired(limit=_EXPIRED_AT_ONCE):
            by_collection: dict[str, list[str]] = defaultdict(list)
            for collection, document_id in expired:
                by_collection[collection].append(document_id)
            for collection, document_ids in by_collection.items():
                deleted += await self._forget_of(collection, document_ids)
        return deleted

    async def _forget_of(self, collection: str, document_ids: list[str]) -> int:
        """Delete those that are still expired once nobody can change them."""
        receipt = await self.forget.documents(
            collection, document_ids, only_expired=True, actor=ACTOR
        )
        return len(receipt.document_ids)


async def _until_done(forget_some: Callable[[], Awaitable[int]]) -> int:
    total = 0
    while count := await forget_some():
        total += count
    return total
