"""Object of a bucket → the bytes of a version, as they were read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ragcore.errors import InvalidInput, SourceUnavailable
from ragcore.flows.submit import Submit
from ragcore.model import BucketObject
from ragcore.ports import Buckets, DocumentLease, Sources
from ragcore.steps.identity import checked_metadata


@dataclass(frozen=True, slots=True)
class FetchBucketObject:
    """Copy an object into the blob store, and record what it turned out to be.

    Whatever the object is by now is taken, and its marks are recorded with its bytes: an object
    that changed since it was listed is stored as what it is. The blob comes first and the row
    after it, so a kill in between costs a second download and nothing else.
    """

    buckets: Buckets
    sources: Sources
    submit: Submit

    async def __call__(self, lease: DocumentLease, source: BucketObject) -> Sequence[str]:
        """Return warnings. Raises ObjectGone, DocumentTooLarge, SourceUnavailable, LeaseLost …"""
        async with self.buckets.open(source.bucket, source.key) as found:
            stored = await self.submit.store(found.pieces, version_id=lease.version_id)
        if stored.size != found.object.size_bytes:
            raise SourceUnavailable(
                f"{source.uri} ended after {stored.size} of {found.object.size_bytes} bytes"
            )
        metadata, warnings = _storable(found.metadata)
        await self.sources.fetched(
            lease, found, sha256=stored.sha256, size_bytes=stored.size, metadata=metadata
        )
        return (*found.warnings, *warnings)


def _storable(metadata: Mapping[str, object]) -> tuple[Mapping[str, object], Sequence[str]]:
    """Leave out what can't be stored: it is the bucket's, and no reason to refuse the object."""
    kept: dict[str, object] = {}
    warnings: list[str] = []
    for name, value in metadata.items():
        try:
            kept |= checked_metadata({name: value})
        except InvalidInput as error:
            warnings.append(f"the object's metadata {name[:80]!r} is left out: {error}")
    return kept, warnings
