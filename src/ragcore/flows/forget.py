"""Document id → nothing left of it, and files that nobody refers to → gone."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ragcore.flows.submit import version_prefix
from ragcore.model import DeletionReceipt, Filter
from ragcore.ports import NOTHING_CACHED, BlobStore, CachedTexts, Catalog, Collections

_AT_ONCE: Final = 1000
"""Documents or versions that the catalogue is asked about at a time."""

_PREFIXES_AT_ONCE: Final = 16
"""Versions whose files are deleted at the same time: the store may be far away."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete documents or a whole collection: cached vectors, then rows, then files.

    Vectors are found by the texts in the rows, so they go first; losing them costs time alone. Once
    the rows are gone nothing answers from them any more. A kill before the files are gone leaves
    orphans that `SweepOrphans` removes; a repeat finds nothing and says so in its receipt.
    """

    catalog: Catalog
    collections: Collections
    blobs: BlobStore
    cached: CachedTexts = NOTHING_CACHED

    async def documents(
        self,
        collection: str,
        document_ids: Sequence[str],
        *,
        only_expired: bool = False,
        unless_after: Mapping[str, int] | None = None,
        actor: str | None = None,
    ) -> DeletionReceipt:
        """Delete these documents; ids that don't exist are left out of the receipt.

        With `only_expired` those stay that were sent anew, or given a later date, meanwhile; with
        `unless_after` those that have a newer version than the sequence given for their id. An
        `actor` has them recorded in the audit trail, in the same transaction.
        """
        vectors = await self.cached.forget(collection, document_ids)
        receipt, versions = await self.catalog.forget(
            collection,
            document_ids,
            only_expired=only_expired,
            unless_after=unless_after,
            actor=actor,
        )
        deleted = await self._delete_files(versions)
        return replace(receipt, blobs=deleted, cached_vectors=vectors)

    async def matching(
        self, collection: str, filters: Filter, *, dry_run: bool = False
    ) -> DeletionReceipt:
        """Delete the documents that match, also those on their way; the receipt adds up.

        A thousand at a time, each in a transaction: a kill leaves the rest, which a repeat deletes.
        `dry_run` tells what would go, files apart, and changes nothing. Raises InvalidFilter,
        CollectionNotFound.
        """
        await self.collections.get(collection)
        total = DeletionReceipt(collection, (), chunks=0, versions=0, blobs=0)
        after: str | None = None
        while found := await self.catalog.matching(
            collection, filters, limit=_AT_ONCE, after=after
        ):
            act = self.catalog.to_forget if dry_run else self.documents
            total = _sum(total, await act(collection, found))
            after = found[-1]
        return total

    async def collection(self, name: str) -> DeletionReceipt:
        """Delete a collection and all in it. Raises CollectionNotFound."""
        await self.collections.get(name)
        vectors = await self.cached.forget(name, None)
        receipt, versions = await self.collections.delete(name)
        deleted = await self._delete_files(versions)
        return replace(receipt, blobs=deleted, cached_vectors=vectors)

    async def _delete_files(self, versions: Sequence[UUID]) -> int:
        deleted = 0
        for first in range(0, len(versions), _PREFIXES_AT_ONCE):
            some = versions[first : first + _PREFIXES_AT_ONCE]
            deletions = (self.blobs.delete_prefix(version_prefix(version)) for version in some)
            deleted += sum(await asyncio.gather(*deletions))
        return deleted


def _sum(one: DeletionReceipt, other: DeletionReceipt) -> DeletionReceipt:
    return DeletionReceipt(
        collection=one.collection,
        document_ids=(*one.document_ids, *other.document_ids),
        chunks=one.chunks + other.chunks,
        versions=one.versions + other.versions,
        blobs=one.blobs + other.blobs,
        cached_vectors=one.cached_vectors + other.cached_vectors,
    )


@dataclass(frozen=True, slots=True)
class SweepOrphans:
    """Delete files of versions that the catalogue does not need. Safe to repeat at any time.

    Only files older than `grace_seconds` are looked at: an upload's blob is written before its row.
    """

    catalog: Catalog
    blobs: BlobStore
    grace_seconds: float = 24 * 3600

    async def __call__(self) -> int:
        """Return how many files were deleted."""
        deleted = 0
        old: set[UUID] = set()
        async for key, age in self.blobs.list("versions/"):
            version = _version_of(key)
            if version is not None and age > self.grace_seconds:
                old.add(version)
            if len(old) == _AT_ONCE:
                deleted += await self._delete_orphans(old)
                old = set()
        return deleted + await self._delete_orphans(old)

    async def _delete_orphans(self, versions: Set[UUID]) -> int:
        orphans = versions - await self.catalog.are_live(list(versions))
        return sum([await self.blobs.delete_prefix(version_prefix(v)) for v in orphans])


def _version_of(key: str) -> UUID | None:
    try:
        return UUID(key.split("/")[1])
    except (IndexError, ValueError):
        return None
