"""Stored blob → converted document → chunks → vectors → rows. The whole of ingestion."""

import asyncio
import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Protocol

from ragcore.errors import (
    BucketNotFound,
    GenerationSwitched,
    LeaseLost,
    RagError,
    StorageFull,
    UnfitModel,
)
from ragcore.flows.pipelines import DocumentEmbedding, Pipeline, Pipelines
from ragcore.flows.submit import docling_key, markdown_key, original_key, version_prefix
from ragcore.model import (
    BucketObject,
    Collection,
    ConvertedDocument,
    EmbeddingSpec,
    Stage,
)
from ragcore.ports import (
    BlobStore,
    Catalog,
    Collections,
    ConversionRequest,
    Converter,
    DocumentLease,
    Generations,
    IndexedChunks,
    IndexedVersion,
    Settled,
)

log = logging.getLogger(__name__)

_MOST_TURNS: Final = 3
"""A document whose collection is switched while it is made is made for the new generation."""

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
    pipelines: Pipelines | None = None
    """Those of collections that were moved to another model or chunker; None: none was."""
    generations: Generations | None = None
    """Knows what else than what answers a document is made for; None: nothing."""

    async def __call__(self, lease: DocumentLease, report: Report) -> Settled:
        """Return how it ended. Raises LeaseLost, Rejected, ConversionError, Unavailable …"""
        settled = await self.catalog.settle_repeated(lease)
        warnings: Sequence[str] = ()
        if settled is None and lease.source is not None:
            report("fetching", 0.0)
            warnings = await self.fetch_object(lease, lease.source)
            settled = await self.catalog.settle_repeated(lease)  # now that its bytes are known
            lease = replace(lease, source=None)
        for turn in range(1, _MOST_TURNS + 1):
            if settled is not None:
                break
            with self._workplace() as directory:
                try:
                    settled = await self._work(lease, Path(directory), report, warnings)
                except LeaseLost:
                    await self._drop_unneeded_files(lease)
                    raise
                except GenerationSwitched:
                    if turn == _MOST_TURNS:
                        raise
                    log.info("made once more: collection %r moved on", lease.job.collection)
        assert settled is not None
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
        directory: Path,
        report: Report,
        fetch_warnings: Sequence[str],
    ) -> Settled:
        clock = _Clock()
        collection = await self._collection(lease.job.collection)
        pipeline = await self._pipeline(collection)
        report("fetching", 0.0)
        original = directory / "original"
        await self.blobs.fetch(original_key(lease.version_id), original)
        clock.lap("fetch")
        request = self._request(lease, collection, pipeline, original, directory)
        document = await self.converter.convert(request, progress=report)
        clock.lap("convert")
        warnings = [
            *fetch_warnings,
            *document.report.warnings,
            *fitness(collection, pipeline.embedding.spec, document.language),
        ]
        report("embedding", 0.0)
        vectors, embedding_warnings = await pipeline.embedding.documents(
            [chunk.embedding_text for chunk in document.chunks],
            progress=lambda done: report("embedding", done),
        )
        clock.lap("embed")
        beside, omitted = await self._beside(collection, request, document)
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
                warnings=[*warnings, *embedding_warnings, *omitted],
                fingerprint=pipeline.fingerprint,
                generation=collection.generation,
                beside=beside,
            ),
        )

    async def _collection(self, name: str) -> Collection:
        """Open the collection; refuses one made with what is not configured, unless moved to it."""
        return await self.collections.open(
            name,
            embedding=self.embedding.spec,
            chunker=self.chunker,
            create=False,
        )

    async def _pipeline(self, collection: Collection) -> Pipeline:
        """Return the pipeline that the collection has. Raises CollectionMismatch, Unavailable."""
        if collection.generation == 1 or self.pipelines is None:
            return Pipeline(
                self.embedding, self.chunker, self.max_tokens, self.tokenizer, self.fingerprint
            )
        return await self.pipelines.of(collection.embedding, collection.chunker)

    async def _beside(
        self, collection: Collection, request: ConversionRequest, document: ConvertedDocument
    ) -> tuple[Mapping[int, IndexedChunks], Sequence[str]]:
        """Make the document for every other generation of its collection, too.

        One whose model fails must not keep it from answering: that one lacks the document then,
        until a reindex that fills it gets there. Such are told in warnings. Raises
        GenerationSwitched when the collection, looked up before, is one of the others by now: what
        answers in its place would lack the document.
        """
        if self.generations is None or self.pipelines is None:
            return {}, ()
        made: dict[int, IndexedChunks] = {}
        omitted: list[str] = []
        for other in await self.generations.of(collection.name, counted=False):
            if other.generation == collection.generation:
                raise GenerationSwitched(f"collection {collection.name!r} is switched: once more")
            try:
                pipeline = await self.pipelines.of(other.embedding, other.chunker)
                made[other.generation] = await self._made_for(pipeline, request, document)
            except RagError as error:
                log.warning("left out of generation %d: %s", other.generation, error)
                omitted.append(
                    f"not in generation {other.generation} ({other.embedding.model}) of the"
                    f" collection: {error}"
                )
        return made, omitted

    async def _made_for(
        self, pipeline: Pipeline, request: ConversionRequest, document: ConvertedDocument
    ) -> IndexedChunks:
        chunks = document.chunks
        wanted = (pipeline.max_tokens, pipeline.tokenizer, pipeline.embedding.spec.document_prefix)
        if wanted != (request.max_tokens, request.tokenizer, request.prefix):
            chunks = (await self.converter.convert(_cut(request, document, pipeline))).chunks
        vectors, _ = await pipeline.embedding.documents([chunk.embedding_text for chunk in chunks])
        return IndexedChunks(chunks, vectors, pipeline.fingerprint)

    def _request(
        self,
        lease: DocumentLease,
        collection: Collection,
        pipeline: Pipeline,
        original: Path,
        directory: Path,
    ) -> ConversionRequest:
        return ConversionRequest(
            path=original,
            filename=lease.filename,
            mime_type=lease.mime_type,
            directory=directory,
            max_tokens=pipeline.max_tokens,
            tokenizer=pipeline.tokenizer,
            prefix=pipeline.embedding.spec.document_prefix,
            seed=lease.job.document_id,
            language=collection.language,
        )

    async def _keep_results(self, lease: DocumentLease, document: ConvertedDocument) -> None:
        """Keep the DoclingDocument and its Markdown: a new chunker or model never parses again."""
        results = (
            (docling_key(lease.version_id), document.docling_path),
            (markdown_key(lease.version_id), document.markdown_path),
        )
        await asyncio.gather(
            *(self.blobs.put_file(key, Path(path)) for key, path in results if path is not None)
        )


def fitness(
    collection: Collection, embedding: EmbeddingSpec, language: str | None
) -> Sequence[str]:
    """Warn of text that the embedding model can't serve; raise UnfitModel when strict."""
    served = embedding.languages
    if served is None or language is None or language in served:
        return ()
    message = (
        f"the text is in {language!r}, which the embedding model {embedding.model!r} does not "
        "serve: it will hardly be found; reindex the collection with a multilingual model"
    )
    if collection.strict:
        raise UnfitModel(message)
    return (message,)


def _cut(
    request: ConversionRequest, document: ConvertedDocument, pipeline: Pipeline
) -> ConversionRequest:
    """Ask for the document that was just read to be cut as another pipeline wants it."""
    assert document.docling_path is not None  # a converter that knows `is_kept` leaves it
    return replace(
        request,
        path=Path(document.docling_path),
        is_kept=True,
        max_tokens=pipeline.max_tokens,
        tokenizer=pipeline.tokenizer,
        prefix=pipeline.embedding.spec.document_prefix,
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
