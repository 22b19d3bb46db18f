"""Stored blob → converted document → chunks → vectors → rows. The whole of ingestion."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ragcore.errors import BucketNotFound, LeaseLost, StorageFull, UnfitModel
from ragcore.flows.submit import docling_key, markdown_key, original_key, version_prefix
from ragcore.model import (
    BucketObject,
    Collection,
    ConvertedDocument,
    EmbeddingSpec,
    Stage,
    Vectors,
)
from ragcore.ports import (
    BlobStore,
    Catalog,
    Collections,
    ConversionRequest,
    Converter,
    DocumentLease,
    IndexedVersion,
    Settled,
)

Report = Callable[[Stage, float], None]
"""Called with a stage and how far it is, 0…1."""


class FetchObject(Protocol):
    """What ingestion asks of `flows.objects`."""

    async def __call__(self, lease: DocumentLease, source: BucketObject) -> Sequence[str]:
        """Make the object's bytes the version's own, and return warnings."""
        ...


async def no_bucket(lease: DocumentLease, source: BucketObject) -> Sequence[str]:
    """Stand in where no bucket is configured any more. Raises BucketNotFound."""
    raise BucketNotFound(f"bucket {source.bucket!r} is not configured here")


class DocumentEmbedding(Protocol):
    """What ingestion asks of `flows.embedding`."""

    @property
    def spec(self) -> EmbeddingSpec: ...

    async def documents(
        self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None
    ) -> tuple[Vectors, Sequence[str]]:
        """Return unit vectors, shape (len(texts), dimension), and warnings about single texts."""
        ...


@dataclass(frozen=True, slots=True)
class Ingest:
    """Make one document's new version searchable.

    Nothing is visible before the last step, one transaction under the job's lease; so it may be
    killed at any line and run again, and leaves the same rows. Files it stored for a version that
    never got in place are deleted with that version, or by the sweep of orphans.
    """

    catalog: Catalog
    collections: Collections
    blobs: BlobStore
    converter: Converter
    embedding: DocumentEmbedding
    directory: Path
    """Where downloads and results rest while a document is worked on."""
    fingerprint: str
    """Of the whole pipeline, recorded with what it makes."""
    chunker: str
    """Fingerprint that the collection must have been made with."""
    max_tokens: int
    tokenizer: str
    """Name of the counter that the conversion child loads; see `ports.ConversionRequest`."""
    fetch_object: FetchObject = no_bucket
    """Brings an object of a bucket into the blob store."""

    async def __call__(self, lease: DocumentLease, report: Report) -> Settled:
        """Return how it ended. Raises LeaseLost, Rejected, ConversionError, Unavailable …"""
        settled = await self.catalog.settle_repeated(lease)
        warnings: Sequence[str] = ()
        if settled is None and lease.source is not None:
            report("fetching", 0.0)
            warnings = await self.fetch_object(lease, lease.source)
            settled = await self.catalog.settle_repeated(lease)  # now that its bytes are known
            lease = replace(lease, source=None)
        if settled is None:
            collection = await self._collection(lease.job.collection)
            with self._workplace() as directory:
                try:
                    settled = await self._work(lease, collection, Path(directory), report, warnings)
                except LeaseLost:
                    await self._drop_unneeded_files(lease)
                    raise
        for version_id in settled.retired:
            await self.blobs.delete_prefix(version_prefix(version_id))
        return settled

    def _workplace(self) -> "tempfile.TemporaryDirectory[str]":
        try:
            return tempfile.TemporaryDirectory(dir=self.directory, prefix="ingest-")
        except OSError as error:
            raise StorageFull(f"there is no room to work in: {error}") from error

    async def _drop_unneeded_files(self, lease: DocumentLease) -> None:
        """Delete what was stored for a document that was deleted while it was worked on."""
        if not await self.catalog.are_live([lease.version_id]):
            await self.blobs.delete_prefix(version_prefix(lease.version_id))

    async def _work(
        self,
        lease: DocumentLease,
        collection: Collection,
        directory: Path,
        report: Report,
        fetch_warnings: Sequence[str],
    ) -> Settled:
        clock = _Clock()
        report("fetching", 0.0)
        original = directory / "original"
        await self.blobs.fetch(original_key(lease.version_id), original)
        clock.lap("fetch")
        document = await self.converter.convert(
            self._request(lease, collection, original, directory), progress=report
        )
        clock.lap("convert")
        warnings = [
            *fetch_warnings,
            *document.report.warnings,
            *self._fitness(collection, document),
        ]
        report("embedding", 0.0)
        vectors, embedding_warnings = await self.embedding.documents(
            [chunk.embedding_text for chunk in document.chunks],
            progress=lambda done: report("embedding", done),
        )
        clock.lap("embed")
        report("storing", 0.0)
        await self._keep_results(lease, document)
        clock.lap("keep")
        return await self.catalog.put_in_place(
            lease,
            IndexedVersion(
                chunks=document.chunks,
                vectors=vectors,
                title=document.title,
                language=document.language,
                extracted=document.extracted,
                report=document.report,
                timings_ms=clock.milliseconds,
                warnings=[*warnings, *embedding_warnings],
                fingerprint=self.fingerprint,
            ),
        )

    async def _collection(self, name: str) -> Collection:
        """Open the collection; refuses one that was made with another model or chunker."""
        return await self.collections.open(
            name,
            embedding=self.embedding.spec,
            chunker=self.chunker,
            create=False,
        )

    def _request(
        self, lease: DocumentLease, collection: Collection, original: Path, directory: Path
    ) -> ConversionRequest:
        return ConversionRequest(
            path=original,
            filename=lease.filename,
            mime_type=lease.mime_type,
            directory=directory,
            max_tokens=self.max_tokens,
            tokenizer=self.tokenizer,
            prefix=self.embedding.spec.document_prefix,
            seed=lease.job.document_id,
            language=collection.language,
        )

    def _fitness(self, collection: Collection, document: ConvertedDocument) -> Sequence[str]:
        """Warn of text that the embedding model can't serve; raise UnfitModel when strict."""
        served = self.embedding.spec.languages
        if served is None or document.language is None or document.language in served:
            return ()
        message = (
            f"the text is in {document.language!r}, which the embedding model "
            f"{self.embedding.spec.model!r} does not serve: it will hardly be found; "
            "reindex the collection with a multilingual model"
        )
        if collection.strict:
            raise UnfitModel(message)
        return (message,)

    async def _keep_results(self, lease: DocumentLease, document: ConvertedDocument) -> None:
        """Keep the DoclingDocument and its Markdown: a new chunker or model never parses again."""
        results = (
            (docling_key(lease.version_id), document.docling_path),
            (markdown_key(lease.version_id), document.markdown_path),
        )
        await asyncio.gather(
            *(self.blobs.put_file(key, Path(path)) for key, path in results if path is not None)
        )


class _Clock:
    """Wall time of each stage in milliseconds."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.milliseconds[stage] = round((now - self._last) * 1000, 1)
        self._last = now
