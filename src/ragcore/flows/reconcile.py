"""What is stored, compared with itself → what disagrees, and on request puts that right."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ragcore.errors import BlobNotFound, BucketNotFound
from ragcore.flows.submit import (
    StoredUpload,
    Submit,
    docling_key,
    markdown_key,
    original_key,
    version_prefix,
)
from ragcore.flows.sync import Sync
from ragcore.model import Drift, DriftKind
from ragcore.ports import (
    BlobStore,
    BucketOrder,
    Catalog,
    Inventory,
    ListedFiles,
    StandingVersion,
    Submission,
)

_AT_ONCE: Final = 1000
_EXAMPLES: Final = 5
_FOREIGN: Final = UUID(int=0)

_LOOK_SECONDS: Final = 0.2

ACTOR: Final = "reconcile"
"""Who looked into buckets, in the audit trail."""


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Compare files, documents, chunks, words, counts and cached vectors with one another.

    In pages, with memory that stays flat, while everything goes on: what was found is looked at
    again before it is told or touched. A document whose original is there and that lacks anything
    else is queued to be read again; one whose original is gone can only be sent again. Safe to
    repeat, and to kill at any line.
    """

    inventory: Inventory
    catalog: Catalog
    blobs: BlobStore
    submit: Submit
    sync: Sync
    grace_seconds: float = 24 * 3600
    """Younger files may belong to an upload under way, younger vectors to a job."""

    async def __call__(self, *, repair: bool = False, buckets: bool = False) -> Sequence[Drift]:
        """Return every kind of drift that was looked for, also those that were not found.

        `buckets`: list those that documents came from, too; what differs there is told, and taken
        over by a sync alone. Raises Unavailable.
        """
        drifts = [*await self._files(repair)]
        for table in await self.inventory.tables():
            drifts += [
                await self.inventory.orphaned_chunks(table, repair=repair),
                await self.inventory.orphaned_words(table, repair=repair),
                await self.inventory.missing_words(table, repair=repair),
                await self.inventory.miscounted(table, repair=repair),
            ]
        drifts += [
            await self._miscounted_documents(repair),
            await self.inventory.stranded_versions(repair=repair),
            await self.inventory.unused_vectors(
                older_than_seconds=self.grace_seconds, repair=repair
            ),
        ]
        if buckets:
            for collection, bucket in await self.inventory.bucket_prefixes():
                drifts.append(await self._bucket(collection, bucket))
        return summed(drifts)

    # --- files -----------------------------------------------------------------------------

    async def _files(self, repair: bool) -> Sequence[Drift]:
        async with self.inventory.files() as listed:
            unknown = await self._list(listed)
            orphaned = _Tally("orphaned_files")
            async for version_id in self._orphaned(listed):
                repaired = repair and await self._delete(version_id)
                orphaned.add(version_prefix(version_id), repaired=repaired)
            originals, results = _Tally("missing_originals"), _Tally("missing_results")
            async for version in self._lacking(listed):
                there = await self._names(version.version_id)
                if not await self._still_needed(version):
                    continue
                if _ORIGINAL not in there:
                    originals.add(version.name)
                elif version.is_in_place and not there >= _RESULTS:
                    repaired = repair and await self._read_again(version)
                    results.add(version.name, repaired=repaired)
        return [unknown.drift, orphaned.drift, originals.drift, results.drift]

    async def _list(self, listed: ListedFiles) -> "_Tally":
        """Take in the whole listing; return the files that are none of ours."""
        unknown = _Tally("unknown_files")
        files: list[tuple[UUID, str, float]] = []
        listing = self.blobs.list()
        async for key, age in listing:
            version_id, name = _parts(key)
            if version_id == _FOREIGN:
                unknown.add(key)
                continue
            files.append((version_id, name, age))
            if len(files) == _AT_ONCE:
                await listed.add(files)
                files = []
        if files:
            await listed.add(files)
        return unknown

    async def _orphaned(self, listed: ListedFiles) -> AsyncIterator[UUID]:
        after: UUID | None = None
        while found := await listed.orphaned(
            older_than_seconds=self.grace_seconds, limit=_AT_ONCE, after=after
        ):
            needed = await self.catalog.are_live(found)
            for version_id in found:
                if version_id not in needed:
                    yield version_id
            after = found[-1]

    async def _delete(self, version_id: UUID) -> bool:
        await self.blobs.delete_prefix(version_prefix(version_id))
        return True

    async def _lacking(self, listed: ListedFiles) -> AsyncIterator[StandingVersion]:
        after: UUID | None = None
        names = [_ORIGINAL, *sorted(_RESULTS)]
        while found := await listed.lacking(names=names, limit=_AT_ONCE, after=after):
            for version in found:
                yield version
            after = found[-1].version_id

    async def _names(self, version_id: UUID) -> frozenset[str]:
        """Ask the store itself: a file may have come since it was listed."""
        prefix = version_prefix(version_id)
        return frozenset([key.removeprefix(prefix) async for key, _ in self.blobs.list(prefix)])

    async def _still_needed(self, version: StandingVersion) -> bool:
        return bool(await self.catalog.are_live([version.version_id]))

    # --- documents -------------------------------------------------------------------------

    async def _miscounted_documents(self, repair: bool) -> Drift:
        tally = _Tally("miscounted_documents")
        after: UUID | None = None
        while found := await self.inventory.miscounted_documents(limit=_AT_ONCE, after=after):
            for version in found:
                repaired = repair and await self._read_again(version)
                tally.add(version.name, repaired=repaired)
            after = found[-1].version_id
        return tally.drift

    async def _read_again(self, version: StandingVersion) -> bool:
        """Queue a document once more, from its stored original; tell whether that could be done.

        As a new version without a fingerprint, which no other is a repeat of. One that something
        newer is on its way for needs no repair.
        """
        try:
            stored = await self.submit.store(self.blobs.open(original_key(version.version_id)))
        except BlobNotFound:
            return False
        if stored.sha256 != version.sha256:  # the stored file is not what was sent
            await self.submit.discard(stored)
            return False
        job = await self.inventory.queue_again(
            _repeat(version, stored), instead_of=version.version_id
        )
        if job is None:
            await self.submit.discard(stored)
        else:
            await self.submit.ring([job])
        return True

    # --- buckets ---------------------------------------------------------------------------

    async def _bucket(self, collection: str, bucket: str) -> Drift:
        """Count the objects that are other than what is stored of them, or gone, by a dry run."""
        place = f"s3://{bucket}/ in {collection}"
        order = BucketOrder(collection, bucket, dry_run=True)
        try:
            job = await self.sync.start(order, submitted_by=ACTOR)
        except BucketNotFound as error:
            return Drift("bucket_changes", 1, 0, [f"{place}: {error}"])
        while not job.is_finished:
            ran = await self.sync.next(job_id=job.job_id)
            job = ran or await self.catalog.job(job.job_id)
            if not job.is_finished:  # a worker has it
                await asyncio.sleep(_LOOK_SECONDS)
        if job.error is not None:
            return Drift("bucket_changes", 1, 0, [f"{place}: {job.error.detail}"])
        changed, gone = job.counts.get("changed", 0), job.counts.get("gone", 0)
        told = [f"{place}: {changed} changed, {gone} gone"] if changed or gone else []
        return Drift("bucket_changes", changed + gone, 0, told)


def summed(drifts: Iterable[Drift]) -> Sequence[Drift]:
    """Return one drift a kind, in the order in which they first come."""
    by_kind: dict[DriftKind, Drift] = {}
    for drift in drifts:
        before = by_kind.get(drift.kind, Drift(drift.kind, 0))
        by_kind[drift.kind] = replace(
            before,
            found=before.found + drift.found,
            repaired=before.repaired + drift.repaired,
            examples=[*before.examples, *drift.examples][:_EXAMPLES],
        )
    return list(by_kind.values())


class _Tally:
    """A drift that is being counted."""

    def __init__(self, kind: DriftKind) -> None:
        self.drift = Drift(kind, 0)

    def add(self, example: str, *, repaired: bool = False) -> None:
        before = self.drift
        room = len(before.examples) < _EXAMPLES
        self.drift = replace(
            before,
            found=before.found + 1,
            repaired=before.repaired + repaired,
            examples=[*before.examples, example] if room else before.examples,
        )


def _name(key: str) -> str:
    return key.rpartition("/")[2]


_ORIGINAL: Final = _name(original_key(_FOREIGN))
_RESULTS: Final = frozenset({_name(docling_key(_FOREIGN)), _name(markdown_key(_FOREIGN))})


def _parts(key: str) -> tuple[UUID, str]:
    """Return the version and the name of a file; `_FOREIGN` for one that has no version."""
    parts = key.split("/")
    if len(parts) != 3 or parts[0] != "versions":
        return _FOREIGN, key
    try:
        return UUID(parts[1]), parts[2]
    except ValueError:
        return _FOREIGN, key


def _repeat(version: StandingVersion, stored: StoredUpload) -> Submission:
    return Submission(
        collection=version.collection,
        document_id=version.document_id,
        version_id=stored.version_id,
        sha256=stored.sha256,
        size_bytes=stored.size,
        filename=version.filename,
        mime_type=version.mime_type if version.marks is None else version.marks.mime_type,
        title=version.title,
        uri=version.uri,
        fingerprint="",
        priority=-1,
        source=version.source,
        marks=version.marks,
    )
