"""Bucket listing → what is new, changed, gone → jobs for documents, and deletions.

The bucket is the truth. Nothing that a listing or an event says is believed where it matters: a
worker stores what it reads, and a document goes when the bucket itself says so of its object.
"""

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from ragcore.errors import DeletionRefused, InvalidInput, StorageFull
from ragcore.flows.forget import Forget
from ragcore.flows.ingest import Report
from ragcore.flows.spool import Spool
from ragcore.flows.submit import Submit
from ragcore.flows.work import Work
from ragcore.logs import about
from ragcore.model import AuditEntry, BucketObject, Job, JobFailure, KnownObject
from ragcore.ports import (
    UNMETERED,
    Audit,
    BucketLease,
    BucketOrder,
    Buckets,
    Meter,
    ObjectAction,
    ObjectNote,
    Sources,
    Submission,
)
from ragcore.steps.comparing import Pair, decide, paired, too_many_are_gone
from ragcore.steps.filenames import bare_name
from ragcore.steps.identity import checked_collection, checked_metadata, id_from_uri
from ragcore.steps.selecting import Selection, selection, why_skipped

log = logging.getLogger(__name__)

_PAGE: Final = 2000
_BATCH: Final = 200
"""Objects whose jobs are made in one transaction, or that are looked for at a time."""
_MOST_NOTES: Final = 10_000
"""Of each kind; the rest is only counted. Jobs of documents are all told of."""
_LONGEST_PREFIX: Final = 1024


@dataclass(frozen=True, slots=True)
class Sync:
    """Make a collection like a bucket, by jobs.

    A bucket's job lists, compares and makes a job for each new or changed object, then is parked:
    it ends with the last of those. It may be killed at any line and run again: what it did shows
    when the two are compared anew.
    """

    buckets: Buckets
    sources: Sources
    submit: Submit
    forget: Forget
    audit: Audit
    work: Work
    """Holds the lease of a bucket's job as it does a document's."""
    directory: Path
    """Where listings rest while they are compared."""
    meter: Meter = field(default=UNMETERED, repr=False)

    async def start(
        self, order: BucketOrder, *, submitted_by: str, request_id: str | None = None
    ) -> Job:
        """Queue a bucket's job, once for as long as it has not begun. Asks no server.

        The collection must be there. Raises InvalidInput, BucketNotFound, Forbidden,
        StoreUnavailable.
        """
        checked_order(order)
        self.buckets.require(order.bucket, collection=order.collection)
        return await self.sources.start(order, submitted_by=submitted_by, request_id=request_id)

    async def next(self, *, job_id: UUID | None = None) -> Job | None:
        """Claim the oldest waiting job of a bucket, or that one, and work on it.

        None when there is none. The job is then parked, or failed, or waits for another attempt.
        """
        lease = await self.sources.claim(
            owner=self.work.owner, lease=self.work.lease, job_id=job_id
        )
        if lease is None:
            return None
        job = await self.work.finish(lease, partial(self._run, lease))
        if job.status != "running":
            return job
        await self.settle()  # where it has no children, it ends at once
        return await self.work.catalog.job(job.job_id)

    async def settle(self) -> int:
        """End the parked jobs whose children have ended; return how many those are."""
        ended = await self.sources.settle_parked()
        for job in ended:
            with about(job_id=str(job.job_id), collection=job.collection):
                told = ", ".join(f"{count} {what}" for what, count in job.counts.items() if count)
                log.info("job %s of a bucket: %s: %s", job.job_id, job.status, told)
            self.meter.synced(job.counts)
        return len(ended)

    async def touch(self, order: BucketOrder, key: str) -> bool:
        """Look at one object, and do what a listing would do about it; tell whether that was news.

        Durable when it returns. Safe to repeat, and in any order: what is known is read before the
        bucket is asked, so whatever comes in between wins.
        """
        if not key.startswith(order.prefix) or not _selection(order).wants(key):
            return False
        known = await self.sources.known_one(order.collection, order.bucket, key)
        found = await self.buckets.find(order.bucket, key)
        if found is None:
            is_told = known is not None and order.delete_missing
            return is_told and bool(await self._remove(order, [_there(known)], actor=EVENTS))
        if why_skipped(found, max_bytes=self.submit.max_bytes) is not None:
            return False
        if decide(found, known) not in ("new", "changed"):
            return False
        submission = self._submission(order, found, submitted_by=EVENTS)
        jobs = await self.sources.take([submission])
        await self.submit.ring(jobs)
        return bool(jobs)

    # --- one run ---------------------------------------------------------------------------

    async def _run(self, lease: BucketLease, report: Report) -> None:
        order = lease.order
        self.buckets.require(order.bucket, collection=order.collection)
        report("listing", 0.0)
        try:
            place = tempfile.TemporaryDirectory(dir=self.directory, prefix="listing-")
        except OSError as error:
            raise StorageFull(f"there is no room to work in: {error}") from error
        with place as directory:
            spool = await self._list(order, Path(directory))
            plan = _Plan(order, max_bytes=self.submit.max_bytes, job_id=lease.job.job_id)
            async for pairs in self._pairs(order, spool):
                for pair in pairs:
                    plan.count(*pair)
            failure = plan.refusal()
            if plan.has_work:
                await self._act(lease, plan, spool, report, may_delete=failure is None)
        await self.sources.park(lease, plan.told, failure)

    async def _list(self, order: BucketOrder, directory: Path) -> Spool:
        """Write the whole listing down; whatever cuts it short raises, and nothing is done."""
        spool = Spool(directory)
        listing = self.buckets.list(order.bucket, order.prefix)
        async with aclosing(listing):
            async for page in listing:
                try:
                    await asyncio.to_thread(spool.add, page)
                except OSError as error:
                    raise StorageFull(f"the listing can't be written down: {error}") from error
        return spool

    async def _pairs(self, order: BucketOrder, spool: Spool) -> AsyncIterator[Sequence[Pair]]:
        """Yield what is listed beside what is known, in order of keys, some at a time."""
        known = _Known(self.sources, order)
        with closing(spool.objects()) as objects:
            while listed := await asyncio.to_thread(_some, objects):
                yield [*await known.beside(listed)]
        while rest := await known.rest():
            yield [(None, each) for each in rest]

    async def _act(
        self, lease: BucketLease, plan: "_Plan", spool: Spool, report: Report, *, may_delete: bool
    ) -> None:
        done = 0
        async for pairs in self._pairs(lease.order, spool):
            for first in range(0, len(pairs), _BATCH):
                await self._act_on(lease, plan, pairs[first : first + _BATCH], may_delete)
            done += len(pairs)
            report("listing", done / max(plan.seen, 1))

    async def _act_on(
        self, lease: BucketLease, plan: "_Plan", pairs: Sequence[Pair], may_delete: bool
    ) -> None:
        order = lease.order
        wanted: list[BucketObject] = []
        gone: list[KnownObject] = []
        notes: list[ObjectNote] = []
        for listed, known in pairs:
            note = plan.note(listed, known)
            if note is None:
                continue
            if note.action in ("new", "changed") and not order.dry_run:
                assert listed is not None
                wanted.append(listed)
            elif note.action == "gone" and order.delete_missing and not order.dry_run:
                if may_delete:
                    gone.append(_there(known))
            elif plan.has_room_for(note):
                notes.append(note)
        jobs = await self.sources.take(
            [
                self._submission(order, each, submitted_by=lease.submitted_by, lease=lease)
                for each in wanted
            ],
            lease=lease,
        )
        await self.submit.ring(jobs)
        if gone:
            actor = lease.submitted_by or EVENTS
            deleted = await self._remove(order, gone, actor=actor, request_id=lease.request_id)
            notes += [ObjectNote(key, "deleted") for key in deleted]
        if notes:
            await self.sources.note(lease, notes)

    async def _remove(
        self,
        order: BucketOrder,
        candidates: Sequence[KnownObject],
        *,
        actor: str,
        request_id: str | None = None,
    ) -> Sequence[str]:
        """Delete the documents of objects that are gone, by the bucket's own word; return the keys.

        One that comes back meanwhile has a newer version by then, and stays.
        """
        found = await asyncio.gather(
            *(self.buckets.find(order.bucket, each.key) for each in candidates)
        )
        gone = {
            each.document_id: each
            for each, is_there in zip(candidates, found, strict=True)
            if is_there is None
        }
        if not gone:
            return ()
        entries = [
            AuditEntry(
                "document.delete",
                actor,
                collection=order.collection,
                target=document_id,
                request_id=request_id,
                details={"gone": f"s3://{order.bucket}/{each.key}"},
            )
            for document_id, each in gone.items()
        ]
        await self.audit.record(entries)
        receipt = await self.forget.documents(
            order.collection,
            list(gone),
            unless_after={document_id: each.sequence for document_id, each in gone.items()},
        )
        return [gone[document_id].key for document_id in receipt.document_ids]

    def _submission(
        self,
        order: BucketOrder,
        listed: BucketObject,
        *,
        submitted_by: str | None,
        lease: BucketLease | None = None,
    ) -> Submission:
        return Submission(
            collection=order.collection,
            document_id=id_from_uri(listed.uri),
            version_id=uuid4(),
            sha256=b"",
            size_bytes=listed.size_bytes,
            filename=bare_name(listed.key),
            uri=listed.uri,
            metadata=order.metadata,
            fingerprint=self.submit.fingerprint_of(order.collection),
            priority=-1 if lease is not None else 0,
            submitted_by=submitted_by,
            request_id=None if lease is None else lease.request_id,
            source=listed,
            parent_id=None if lease is None else lease.job.job_id,
        )


EVENTS: Final = "bucket events"
"""Who ingests and deletes because a bucket told of it, in the audit trail."""


def is_bucket(source: str) -> bool:
    """Say whether a source is a bucket's URI."""
    return source[:5].lower() == "s3://"


def bucket_order(
    uri: str,
    *,
    collection: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
    delete_missing: bool = False,
    max_delete_share: float = 0.2,
    dry_run: bool = False,
) -> BucketOrder:
    """Make an order of `s3://bucket/prefix`. Raises InvalidInput."""
    bucket, _, prefix = uri[5:].partition("/")
    if not is_bucket(uri) or not bucket:
        raise InvalidInput(f"{uri[:200]!r} is no bucket: write s3://bucket or s3://bucket/prefix")
    return checked_order(
        BucketOrder(
            collection=collection,
            bucket=bucket,
            prefix=prefix,
            include=tuple(include),
            exclude=tuple(exclude),
            metadata=None if metadata is None else checked_metadata(metadata),
            delete_missing=delete_missing,
            max_delete_share=max_delete_share,
            dry_run=dry_run,
        )
    )


def checked_order(order: BucketOrder) -> BucketOrder:
    """Return it. Raises InvalidInput."""
    checked_collection(order.collection)
    selection(order.include, order.exclude)
    if order.metadata is not None:
        checked_metadata(order.metadata)
    if len(order.prefix) > _LONGEST_PREFIX or "\0" in order.prefix:
        raise InvalidInput(f"a prefix has at most {_LONGEST_PREFIX} characters, and no NUL")
    if not 0 <= order.max_delete_share <= 1:
        raise InvalidInput(f"max_delete_share {order.max_delete_share!r} must be 0 to 1")
    return order


def _selection(order: BucketOrder) -> Selection:
    return selection(order.include, order.exclude)


class _Plan:
    """What a comparison comes to, counted; flat however long the listing is."""

    def __init__(self, order: BucketOrder, *, max_bytes: int, job_id: UUID) -> None:
        self._order = order
        self._selection = _selection(order)
        self._max_bytes = max_bytes
        self._job_id = job_id
        self._counts: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._known = 0

    @property
    def seen(self) -> int:
        return self._counts["listed"] + self._counts["gone"]

    @property
    def has_work(self) -> bool:
        return any(self._counts[each] for each in _NOTED)

    @property
    def told(self) -> Mapping[str, int]:
        """The counts that hold whatever comes of the jobs. Those of jobs are counted from them."""
        left_out = () if self._order.dry_run else ("new", "changed")
        return {name: self._counts[name] for name in _COUNTED if name not in left_out}

    def count(self, listed: BucketObject | None, known: KnownObject | None) -> None:
        self._known += known is not None and self._selection.wants(known.key)
        self._counts["listed"] += listed is not None
        self._counts[self._decided(listed, known)[0]] += 1

    def note(self, listed: BucketObject | None, known: KnownObject | None) -> ObjectNote | None:
        """Return what is to be done, or told, about an object; None: nothing."""
        decided, reason = self._decided(listed, known)
        action = _NOTED.get(decided)
        if action is None:
            return None
        key = listed.key if listed is not None else _there(known).key
        return ObjectNote(key, action, reason)

    def has_room_for(self, note: ObjectNote) -> bool:
        """Say whether one more of its kind is to be written down."""
        self._notes[note.action] += 1
        return self._notes[note.action] <= _MOST_NOTES

    def refusal(self) -> JobFailure | None:
        """Say why nothing is deleted though objects are gone; None: it may be."""
        order, gone = self._order, self._counts["gone"]
        if not order.delete_missing or not too_many_are_gone(
            gone=gone,
            known=self._known,
            listed=self._counts["listed"],
            most_share=order.max_delete_share,
        ):
            return None
        detail = (
            f"{gone} of {self._known} known objects are not in {order.uri} any more, over a share "
            f"of {order.max_delete_share:g}: nothing was deleted; if it is meant, repeat with "
            "max_delete_share 1"
        )
        return JobFailure(DeletionRefused.code, detail, retryable=False)

    def _decided(
        self, listed: BucketObject | None, known: KnownObject | None
    ) -> tuple[str, str | None]:
        if listed is None:
            return self._decided_gone(_there(known))
        if not self._selection.wants(listed.key):
            return "excluded", None
        why = why_skipped(listed, max_bytes=self._max_bytes)
        if why is not None:
            return "skipped", why
        action = decide(listed, known)
        if known is not None and known.parent_id == self._job_id and known.newest == listed:
            return "taken", None  # by this very job, before it was interrupted
        if action == "failed_before":
            assert known is not None and known.failure is not None
            return action, f"{known.failure.code}: {known.failure.detail}"
        return action, None

    def _decided_gone(self, known: KnownObject) -> tuple[str, str | None]:
        """Leave alone what this order does not look at: another one may have brought it."""
        return ("gone" if self._selection.wants(known.key) else "excluded_known"), None


_NOTED: Final[Mapping[str, ObjectAction]] = {
    "new": "new",
    "changed": "changed",
    "gone": "gone",
    "skipped": "skipped",
    "failed_before": "failed_before",
}
"""Decisions that something follows from, or somebody is told of."""
_COUNTED: Final = (
    "listed", "excluded", "skipped", "failed_before", "unchanged", "under_way", "new", "changed",
    "gone",
)  # fmt: skip


class _Known:
    """What is known under a prefix, a page at a time, brought beside what is listed."""

    def __init__(self, sources: Sources, order: BucketOrder) -> None:
        self._sources = sources
        self._order = order
        self._page: list[KnownObject] = []
        self._after: str | None = None
        self._is_over = False

    async def beside(self, listed: Sequence[BucketObject]) -> Iterator[Pair]:
        """Pair the objects, in order, with all that is known up to the last of them."""
        known: list[KnownObject] = []
        last = listed[-1].key
        while True:
            await self._fill()
            upto = [each for each in self._page if each.key <= last]
            known += upto
            self._page = self._page[len(upto) :]
            if self._page or self._is_over:
                return paired(listed, known)

    async def rest(self) -> Sequence[KnownObject]:
        """Return what is known after all that was listed, some at a time; nothing at the end."""
        await self._fill()
        page, self._page = self._page, []
        return page

    async def _fill(self) -> None:
        if self._page or self._is_over:
            return
        self._page = list(
            await self._sources.known(
                self._order.collection,
                self._order.bucket,
                prefix=self._order.prefix,
                after=self._after,
                limit=_PAGE,
            )
        )
        if self._page:
            self._after = self._page[-1].key
        self._is_over = len(self._page) < _PAGE


def _there(known: KnownObject | None) -> KnownObject:
    assert known is not None  # of a pair one is always there
    return known


def _some(objects: Iterator[BucketObject]) -> list[BucketObject]:
    return list(islice(objects, _PAGE))
