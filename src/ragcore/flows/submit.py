"""Upload → stored blob, catalogue row, queued job."""

import asyncio
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from ragcore.errors import DocumentTooLarge, InvalidInput, QueueUnavailable, RagError
from ragcore.model import Job, PageMarks
from ragcore.ports import BlobStore, Catalog, Doorbell, Idempotency, Submission
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
    expires_at: datetime | None = None
    callback_url: str | None = None
    """Checked by whoever took it in: it will be called from here."""
    priority: int = 0
    submitted_by: str | None = None
    request_id: str | None = None
    marks: PageMarks | None = None
    """Of the page that it was fetched from."""


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """Bytes that are durable, and not yet anybody's."""

    version_id: UUID
    sha256: bytes
    size: int


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
    moved_to: Callable[[str], str] | None = None
    """Tells the fingerprint of a collection's own pipeline; None: all have the configured one."""
    require_room: Callable[[], None] = lambda: None
    """Raises StorageFull when the disk can't take more; asked for every piece of an upload."""

    async def stream(
        self,
        chunks: AsyncIterator[bytes],
        upload: Upload,
        *,
        idempotency_key: str | None = None,
        idempotency_scope: str = "",
    ) -> Job:
        """Store bytes as they arrive, never whole in memory, and queue their job.

        Raises InvalidInput, DocumentTooLarge, CollectionNotFound, IdempotencyConflict, or
        Unavailable, upon which a repeat is safe.
        """
        check(upload)
        return await self.record(
            upload,
            await self.store(chunks),
            idempotency_key=idempotency_key,
            idempotency_scope=idempotency_scope,
        )

    async def store(
        self, chunks: AsyncIterator[bytes], *, version_id: UUID | None = None
    ) -> StoredUpload:
        """Make bytes durable before it is known what they are: to be recorded, or discarded.

        `version_id` names them when they have a version already. Those that are neither go with
        the sweep of orphans. Raises DocumentTooLarge, StorageFull and BlobsUnavailable, and leaves
        nothing then.
        """
        version_id = version_id or uuid4()
        digest = hashlib.sha256()
        size = await self.blobs.put(original_key(version_id), self._measured(chunks, digest))
        return StoredUpload(version_id, digest.digest(), size)

    async def discard(self, stored: StoredUpload) -> None:
        """Delete bytes that will not be recorded. Not after `record` failed: that sees to them."""
        await self.blobs.delete_prefix(version_prefix(stored.version_id))

    async def record(
        self,
        upload: Upload,
        stored: StoredUpload,
        *,
        idempotency_key: str | None = None,
        idempotency_scope: str = "",
        asked: bytes | None = None,
    ) -> Job:
        """Do what `record_all` does, for one."""
        (job,) = await self.record_all(
            [(upload, stored)],
            idempotency_key=idempotency_key,
            idempotency_scope=idempotency_scope,
            asked=asked,
        )
        return job

    async def record_all(
        self,
        uploads: Sequence[tuple[Upload, StoredUpload]],
        *,
        idempotency_key: str | None = None,
        idempotency_scope: str = "",
        asked: bytes | None = None,
    ) -> Sequence[Job]:
        """Queue the jobs of stored uploads: all or none, answered in the order given.

        The key stands for the whole request: the same bytes in the same order, with the same words
        about them, answer with the first jobs. `asked` is a hash of the request where that did not
        hold the bytes, but told where they are. Bytes that nobody needs are deleted, also when the
        request is refused; after Unavailable they stay, because the rows may be there. Raises
        InvalidInput, CollectionNotFound, IdempotencyConflict, or Unavailable, upon which a repeat
        is safe.
        """
        try:
            submissions = [self._submission(upload, stored) for upload, stored in uploads]
            idempotency = idempotency_key and Idempotency(
                idempotency_key, asked or _body_hash(submissions), scope=idempotency_scope
            )
            recorded = await self.catalog.submit_all(submissions, idempotency=idempotency or None)
        except RagError as error:
            if not error.retryable:
                await self._discard_all(stored for _, stored in uploads)
            raise
        await self._discard_all(
            stored
            for (_, stored), submitted in zip(uploads, recorded, strict=True)
            if not submitted.needs_blob
        )
        await self.ring([each.job for each in recorded if each.needs_blob])
        return [each.job for each in recorded]

    async def file(self, path: Path, upload: Upload, *, sha256: bytes, size: int) -> Job:
        """Queue a local file; an unchanged one is answered without copying a byte of it.

        `sha256` and `size` say whether it is unchanged. One that changes while it is copied is
        recorded as it was copied. Raises as `stream` does, and OSError for a file that went away.
        """
        if size > self.max_bytes:
            raise self._too_large()
        unchanged = await self.settle(upload, sha256=sha256, size=size)
        return unchanged or await self.stream(_pieces(path), upload)

    async def settle(self, upload: Upload, *, sha256: bytes, size: int) -> Job | None:
        """Answer an upload of bytes that are in place already; None when there is work.

        Nothing is stored. Raises as `stream` does.
        """
        submission = self._submission(upload, StoredUpload(uuid4(), sha256, size))
        return await self.catalog.settle_unchanged(submission)

    def fingerprint_of(self, collection: str) -> str:
        """Return what a version that is submitted to the collection now will be known by."""
        return self.fingerprint if self.moved_to is None else self.moved_to(collection)

    async def _discard_all(self, uploads: Iterable[StoredUpload]) -> None:
        for stored in uploads:
            await self.discard(stored)

    async def ring(self, jobs: Sequence[Job]) -> None:
        """Tell the workers; not again and again once the bell is found to be away."""
        if self.doorbell is None:
            return
        for place, job in enumerate(jobs):
            try:
                await self.doorbell.ring(job.job_id)
            except QueueUnavailable as error:
                waiting = ", ".join(str(job.job_id) for job in jobs[place:])
                log.warning("job %s waits for the sweep: %s", waiting, error)
                return

    def _submission(self, upload: Upload, stored: StoredUpload) -> Submission:
        check(upload)
        return Submission(
            collection=upload.collection,
            document_id=upload.document_id or _derived_id(upload, stored.sha256),
            version_id=stored.version_id,
            sha256=stored.sha256,
            size_bytes=stored.size,
            filename=clean_filename(upload.filename),
            mime_type=clean_filename(upload.mime_type),
            title=clean_title(upload.title),
            uri=upload.uri,
            metadata=None if upload.metadata is None else checked_metadata(upload.metadata),
            fingerprint=self.fingerprint_of(upload.collection),
            priority=upload.priority,
            expires_at=upload.expires_at,
            callback_url=upload.callback_url,
            submitted_by=upload.submitted_by,
            request_id=upload.request_id,
            marks=upload.marks,
        )

    async def _measured(
        self, chunks: AsyncIterator[bytes], digest: "hashlib._Hash"
    ) -> AsyncIterator[bytes]:
        size = 0
        self.require_room()  # before a byte is read
        async for chunk in chunks:
            self.require_room()
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


def check(upload: Upload) -> None:
    """Refuse what can't be recorded before a byte is stored."""
    checked_collection(upload.collection)
    if upload.document_id is not None:
        checked_document_id(upload.document_id)
    if upload.metadata is not None:
        checked_metadata(upload.metadata)
    if upload.expires_at is not None and upload.expires_at.tzinfo is None:
        raise InvalidInput(
            f"expires_at {upload.expires_at.isoformat()!r} has no time zone; add one, or 'Z'"
        )


def _body_hash(submissions: Sequence[Submission]) -> bytes:
    """Hash what a request asks for: not who asks, nor how soon it is done."""
    asked = [
        {
            "collection": each.collection,
            "document_id": each.document_id,
            "sha256": each.sha256.hex(),
            "filename": each.filename,
            "mime_type": each.mime_type,
            "title": each.title,
            "uri": each.uri,
            "metadata": each.metadata,
            "expires_at": each.expires_at and each.expires_at.astimezone(UTC).isoformat(),
            "callback_url": each.callback_url,
        }
        for each in submissions
    ]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).digest()


def _derived_id(upload: Upload, sha256: bytes) -> str:
    return id_from_uri(upload.uri) if upload.uri else id_from_bytes(sha256)
