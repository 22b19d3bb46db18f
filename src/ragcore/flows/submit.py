"""Upload → stored blob, catalogue row, queued job."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from ragcore.errors import DocumentTooLarge, QueueUnavailable
from ragcore.model import Job
from ragcore.ports import BlobStore, Catalog, Doorbell, Submission
from ragcore.steps.identity import (
    checked_collection,
    checked_document_id,
    checked_metadata,
    clean_filename,
    clean_title,
    id_from_bytes,
    id_from_uri,
)

log = logging.getLogger(__name__)

_PIECE_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Upload:
    """What a caller says about the bytes. Nothing in it is trusted."""

    collection: str
    document_id: str | None = None
    filename: str | None = None
    mime_type: str | None = None
    title: str | None = None
    uri: str | None = None
    metadata: Mapping[str, Any] | None = None
    priority: int = 0
    idempotency_key: str | None = None
    idempotency_scope: str = ""
    body_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Submit:
    """Make an upload durable and queue its job.

    The blob is written first and the rows after it, so a kill in between leaves a file that no
    version refers to, which the sweep of orphans removes; never a job without its bytes. Ringing
    comes last and may fail: the job is in PostgreSQL, where the sweep finds it.
    """

    catalog: Catalog
    blobs: BlobStore
    doorbell: Doorbell | None
    fingerprint: str
    max_bytes: int

    async def stream(self, chunks: AsyncIterator[bytes], upload: Upload) -> Job:
        """Store bytes as they arrive, never whole in memory, and queue their job.

        Raises InvalidInput, DocumentTooLarge, CollectionNotFound, IdempotencyConflict, or
        Unavailable, upon which a repeat is safe.
        """
        _check(upload)
        version_id = uuid4()
        digest = hashlib.sha256()
        size = await self.blobs.put(original_key(version_id), self._measured(chunks, digest))
        return await self._record(upload, version_id, digest.digest(), size)

    async def file(self, path: Path, upload: Upload, *, sha256: bytes, size: int) -> Job:
        """Queue a local file; an unchanged one is answered without copying a byte of it.

        `sha256` and `size` say whether it is unchanged. One that changes while it is copied is
        recorded as it was copied. Raises as `stream` does, and OSError for a file that went away.
        """
        _check(upload)
        if size > self.max_bytes:
            raise self._too_large()
        submission = self._submission(upload, uuid4(), sha256, size)
        unchanged = await self.catalog.settle_unchanged(submission)
        return unchanged or await self.stream(_pieces(path), upload)

    async def _record(self, upload: Upload, version_id: UUID, sha256: bytes, size: int) -> Job:
        submission = self._submission(upload, version_id, sha256, size)
        submitted = await self.catalog.submit(submission)
        if not submitted.needs_blob:
            await self.blobs.delete_prefix(version_prefix(version_id))
        elif self.doorbell is not None:
            try:
                await self.doorbell.ring(submitted.job.job_id, priority=upload.priority)
            except QueueUnavailable as error:
                log.warning("job %s waits for the sweep: %s", submitted.job.job_id, error)
        return submitted.job

    def _submission(self, upload: Upload, version_id: UUID, sha256: bytes, size: int) -> Submission:
        return Submission(
            collection=upload.collection,
            document_id=upload.document_id or _derived_id(upload, sha256),
            version_id=version_id,
            sha256=sha256,
            size_bytes=size,
            filename=clean_filename(upload.filename),
            mime_type=clean_filename(upload.mime_type),
            title=clean_title(upload.title),
            uri=upload.uri,
            metadata=None if upload.metadata is None else checked_metadata(upload.metadata),
            fingerprint=self.fingerprint,
            priority=upload.priority,
            idempotency_key=upload.idempotency_key,
            idempotency_scope=upload.idempotency_scope,
            body_hash=upload.body_hash,
        )

    async def _measured(
        self, chunks: AsyncIterator[bytes], digest: "hashlib._Hash"
    ) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self.max_bytes:
                raise self._too_large()
            digest.update(chunk)
            yield chunk

    def _too_large(self) -> DocumentTooLarge:
        return DocumentTooLarge(
            f"the document is over {self.max_bytes} bytes; "
            "RAGCORE_CONVERSION__MAX_FILE_MB raises the limit"
        )


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
            yield piece
    finally:
        file.close()


def version_prefix(version_id: UUID) -> str:
    """Return the prefix of all files of one version."""
    return f"versions/{version_id}/"


def original_key(version_id: UUID) -> str:
    return version_prefix(version_id) + "original"


def docling_key(version_id: UUID) -> str:
    return version_prefix(version_id) + "docling.json.gz"


def markdown_key(version_id: UUID) -> str:
    return version_prefix(version_id) + "document.md"


def _check(upload: Upload) -> None:
    """Refuse what can't be recorded before a byte is stored."""
    checked_collection(upload.collection)
    if upload.document_id is not None:
        checked_document_id(upload.document_id)
    if upload.metadata is not None:
        checked_metadata(upload.metadata)


def _derived_id(upload: Upload, sha256: bytes) -> str:
    return id_from_uri(upload.uri) if upload.uri else id_from_bytes(sha256)
