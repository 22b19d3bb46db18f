"""Document id → nothing left of it, and files that nobody refers to → gone."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from ragcore.flows.submit import version_prefix
from ragcore.model import DeletionReceipt
from ragcore.ports import BlobStore, Catalog, Collections

_AT_ONCE: Final = 1000
"""Versions that the catalogue is asked about at a time."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Delete documents or a whole collection, rows first.

    Once the rows are gone nothing answers from them any more. A kill before the files are gone
    leaves orphans that `SweepOrphans` removes; a repeat finds nothing and says so in its receipt.
    """

    catalog: Catalog
    collections: Collections
    blobs: BlobStore

    async def documents(self, collection: str, document_ids: Sequence[str]) -> DeletionReceipt:
        """Delete these documents; ids that don't exist are left out of the receipt."""
        versions = await self.catalog.version_ids(collection, document_ids)
        receipt = await self.catalog.forget(collection, document_ids)
        return replace(receipt, blobs=await self._delete_files(versions))

    async def collection(self, name: str) -> DeletionReceipt:
        """Delete a collection and all in it. Raises CollectionNotFound."""
        receipt, versions = await self.collections.delete(name)
        return replace(receipt, blobs=await self._delete_files(versions))

    async def _delete_files(self, versions: Sequence[UUID]) -> int:
        return sum([await self.blobs.delete_prefix(version_prefix(v)) for v in versions])


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
