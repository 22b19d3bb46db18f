"""The library behind the address of a service, for `--url`."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ragcore.cli import output
from ragcore.cli.library import Buckets, Intake, Refreshing
from ragcore.client import AsyncClient, CollectionInfo, DocumentChunk, GenerationInfo
from ragcore.errors import DocumentNotFound, InvalidInput, RagError
from ragcore.model import Passage
from ragcore.ports import ObjectNote, ObjectResult
from ragcore.steps.identity import id_from_uri

if TYPE_CHECKING:
    from ragcore.model import (
        Answer,
        ApiKey,
        AuditEntry,
        DeletionReceipt,
        Document,
        Job,
        JobStatus,
        ReadingReport,
        SearchMode,
        SearchResult,
    )
    from ragcore.ports import SwitchMode

_LOOK_SECONDS: Final = 1.0
_AT_ONCE: Final = 8
"""Documents under way at once, so that several workers have something to do."""


class RemoteIntake:
    """Documents in, followed until the service's workers are done with them."""

    at_once = _AT_ONCE

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ingest(
        self,
        source: str,
        *,
        collection: str | None,
        document_id: str | None,
        title: str | None,
        metadata: Mapping[str, Any] | None,
        on_progress: "Callable[[Job], None]",
    ) -> "Sequence[Job]":
        """Send a file, or have a URL fetched.

        The service knows an upload by its bytes. So that a changed file replaces what it was, its
        id is made of its path and of this machine's name, unless one is given.
        """
        if "://" not in source:
            path = Path(source).expanduser().resolve()
            document_id = document_id or id_from_uri(f"file://{socket.gethostname()}{path}")
        try:
            job = await self._client.ingest(
                source,
                collection=collection,
                document_id=document_id,
                title=title,
                metadata=metadata,
            )
        except OSError as error:  # of the file: those of the network are Unavailable
            raise InvalidInput(f"{source!r} can't be read: {error.strerror or error}") from error
        return [await self._followed(job, on_progress)]

    async def ingest_text(
        self,
        text: str,
        *,
        collection: str | None,
        document_id: str | None,
        title: str | None,
        metadata: Mapping[str, Any] | None,
        on_progress: "Callable[[Job], None]",
    ) -> "Job":
        job = await self._client.ingest_text(
            text, collection=collection, document_id=document_id, title=title, metadata=metadata
        )
        return await self._followed(job, on_progress)

    async def _followed(self, job: "Job", on_progress: "Callable[[Job], None]") -> "Job":
        """Follow a job to its end; interrupted, cancel it, as where it is worked on here."""
        try:
            async with aclosing(self._client.follow(job)) as seen:
                async for job in seen:
                    on_progress(job)
        except asyncio.CancelledError:
            with suppress(RagError):  # it goes on then, and `ragcore jobs cancel` stops it
                await asyncio.shield(self._client.cancel(job))
            raise
        return job


class RemoteRefreshing:
    """Documents of URLs, fetched again by the service."""

    def __init__(self, client: AsyncClient, collection: str | None) -> None:
        self._client = client
        self._collection = collection

    async def id_of(self, url: str) -> str:
        async for found in self._client.documents(uri=url, collection=self._collection):
            return found.document_id
        raise DocumentNotFound(f"no document came from {url!r}")

    async def all_ids(self) -> AsyncIterator[str]:
        from ragcore.flows.fetch import is_url

        async for document in self._client.documents(collection=self._collection):
            if is_url(document.uri):
                yield document.document_id

    async def refresh(self, document_id: str) -> "Job":
        job = await self._client.refresh(document_id, collection=self._collection)
        return await self._client.wait(job)


class RemoteBuckets:
    """Buckets of the service's settings."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ingest(
        self,
        uri: str,
        *,
        collection: str | None,
        metadata: Mapping[str, Any] | None,
        include: Sequence[str],
        exclude: Sequence[str],
        delete_missing: bool,
        max_delete_share: float,
        dry_run: bool,
        on_progress: "Callable[[Job], None]",
    ) -> "Job":
        bucket, _, prefix = uri[len("s3://") :].partition("/")
        job = await self._client.ingest_bucket(
            bucket,
            prefix,
            collection=collection,
            metadata=metadata,
            include=include,
            exclude=exclude,
            delete_missing=delete_missing,
            max_delete_share=max_delete_share,
            dry_run=dry_run,
        )
        return await _looked_at(self._client, job, on_progress)

    async def objects(self, job: "Job") -> AsyncIterator[ObjectResult]:
        async for told in self._client.job_objects(job):
            note = ObjectNote(told.key, told.action, told.reason)  # type: ignore[arg-type]  # as told
            yield ObjectResult(note, told.job_id, told.status, told.outcome, told.error)


class RemoteLibrary:
    """Opens a client for each command."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _client(self) -> AsyncClient:
        return AsyncClient(self._url)

    @asynccontextmanager
    async def intake(self) -> AsyncIterator[Intake]:
        async with self._client() as client:
            yield RemoteIntake(client)

    @asynccontextmanager
    async def refreshing(self, *, collection: str | None) -> AsyncIterator[Refreshing]:
        async with self._client() as client:
            yield RemoteRefreshing(client, collection)

    @asynccontextmanager
    async def buckets(self) -> AsyncIterator[Buckets]:
        async with self._client() as client:
            yield RemoteBuckets(client)

    async def search(
        self,
        question: str,
        *,
        collection: str | None,
        top_k: int | None,
        mode: "SearchMode",
        filters: Mapping[str, Any] | None,
        explain: bool,
    ) -> "SearchResult":
        async with self._client() as client:
            return await client.search(
                question,
                collection=collection,
                top_k=top_k,
                mode=mode,
                filters=filters,
                explain=explain,
            )

    async def ask(
        self,
        question: str,
        *,
        collection: str | None,
        top_k: int | None,
        mode: "SearchMode",
        filters: Mapping[str, Any] | None,
        explain: bool,
        generate: bool,
    ) -> "Answer":
        async with self._client() as client:
            return await client.ask(
                question,
                collection=collection,
                top_k=top_k,
                mode=mode,
                filters=filters,
                explain=explain,
                generate=generate,
            )

    # --- documents -------------------------------------------------------------------------

    async def documents(
        self,
        *,
        collection: str | None,
        filters: Mapping[str, Any] | None,
        doubtful: bool,
        limit: int,
        after: str | None,
    ) -> "Sequence[Document]":
        async with self._client() as client:
            found = client.documents(
                collection=collection,
                filters=filters,
                doubtful=doubtful,
                limit=limit,
                after=after,
            )
            return [document async for document in found]

    async def document(
        self, document_id: str, *, collection: str | None, chunks: bool
    ) -> "tuple[Document, ReadingReport | None, Sequence[Passage]]":
        async with self._client() as client:
            detail = await client.document(document_id, collection=collection)
            found: list[Passage] = []
            if chunks:
                told = client.chunks(document_id, collection=collection)
                found = [_passage(chunk, detail.document) async for chunk in told]
            return detail.document, detail.reading_report, found

    async def delete_documents(
        self, document_ids: Sequence[str], *, collection: str | None
    ) -> "DeletionReceipt":
        async with self._client() as client:
            wanted = {"document_id": {"$in": list(document_ids)}}
            return await client.delete_matching(wanted, collection=collection)

    # --- collections -----------------------------------------------------------------------

    async def collections(self) -> Sequence[Mapping[str, Any]]:
        async with self._client() as client:
            return [_as_object(collection) async for collection in client.collections()]

    async def create_collection(
        self, name: str, *, language: str | None, strict: bool
    ) -> Mapping[str, Any]:
        async with self._client() as client:
            made = await client.create_collection(name, language=language, strict=strict or None)
            return _as_object(made)

    async def delete_collection(self, name: str) -> "DeletionReceipt":
        async with self._client() as client:
            return await client.delete_collection(name)

    async def reindex(
        self,
        name: str,
        *,
        embedding_model: str | None,
        max_tokens: int | None,
        questions: Sequence[str],
        switch: "SwitchMode",
        on_progress: "Callable[[Job], None]",
    ) -> "Job":
        """Interrupted, it is cancelled, as where it is worked on here."""
        async with self._client() as client:
            job = await client.reindex(
                name,
                embedding_model=embedding_model,
                max_tokens=max_tokens,
                questions=questions,
                switch=switch,
            )
            try:
                return await _looked_at(client, job, on_progress)
            except asyncio.CancelledError:
                with suppress(RagError):  # it goes on then, and `ragcore reindex discard` stops it
                    await asyncio.shield(client.cancel(job))
                raise

    async def reindex_state(self, name: str) -> Mapping[str, Any]:
        async with self._client() as client:
            state = await client.reindex_state(name)
        return {
            "collection": _as_object(state.collection),
            "generations": [_generation(each) for each in state.generations],
        }

    async def switch_reindex(
        self, name: str, *, accept_loss: bool, on_progress: "Callable[[Job], None]"
    ) -> "Job":
        async with self._client() as client:
            job = await client.switch_reindex(name, accept_loss=accept_loss)
            return await _looked_at(client, job, on_progress)

    async def roll_back_reindex(self, name: str, *, accept_loss: bool) -> Mapping[str, Any]:
        async with self._client() as client:
            return _as_object(await client.roll_back_reindex(name, accept_loss=accept_loss))

    async def discard_reindex(self, name: str) -> Mapping[str, Any]:
        async with self._client() as client:
            return _as_object(await client.discard_reindex(name))

    # --- jobs ------------------------------------------------------------------------------

    async def jobs(
        self,
        *,
        status: "JobStatus | None",
        collection: str | None,
        document_id: str | None,
        limit: int,
        after: UUID | None,
    ) -> "Sequence[Job]":
        async with self._client() as client:
            found = client.jobs(
                status=status,
                collection=collection,
                document_id=document_id,
                limit=limit,
                after=after,
            )
            return [job async for job in found]

    async def job(self, job_id: UUID) -> "Job":
        async with self._client() as client:
            return await client.job(job_id)

    async def follow(self, job_id: UUID) -> "AsyncIterator[Job]":
        async with self._client() as client, aclosing(client.follow(job_id)) as seen:
            async for job in seen:
                yield job

    async def cancel(self, job_ids: Sequence[UUID]) -> "Sequence[Job]":
        async with self._client() as client:
            return [await client.cancel(job_id) for job_id in job_ids]

    async def retry(self, job_ids: Sequence[UUID]) -> "Sequence[Job]":
        async with self._client() as client:
            return [await client.retry(job_id) for job_id in job_ids]

    async def retry_failed(self, *, collection: str | None, code: str | None) -> "Sequence[Job]":
        async with self._client() as client:
            return await client.retry_failed(collection=collection, code=code)

    # --- keys and the audit trail ----------------------------------------------------------

    async def keys(self) -> "Sequence[ApiKey]":
        async with self._client() as client:
            return await client.keys()

    async def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str],
        collections: Sequence[str] | None,
        requests_per_minute: int | None,
        expires_at: datetime | None,
    ) -> "tuple[ApiKey, str]":
        async with self._client() as client:
            made = await client.create_key(
                name,
                scopes=scopes,  # type: ignore[arg-type]  # checked there
                collections=collections or None,
                requests_per_minute=requests_per_minute,
                expires_at=expires_at,
            )
            return made.key, made.secret

    async def revoke_key(self, key_id: UUID) -> "ApiKey":
        async with self._client() as client:
            return await client.revoke_key(key_id)

    async def audit(
        self, *, collections: Sequence[str] | None, action: str | None, limit: int
    ) -> "Sequence[AuditEntry]":
        """The service takes one collection at a time: what it tells of several is put together."""
        async with self._client() as client:
            found = [
                entry
                for name in collections or (None,)
                async for entry in client.audit(collection=name, action=action, limit=limit)
            ]
        found.sort(key=lambda entry: entry.entry_no or 0, reverse=True)
        return found[:limit]


async def _looked_at(
    client: AsyncClient, job: "Job", on_progress: "Callable[[Job], None]"
) -> "Job":
    """Wait for a job whose counts are of interest: they are in no event that could be followed."""
    while not job.is_finished:
        on_progress(job)
        with suppress(TimeoutError):
            job = await client.wait(job, timeout_seconds=_LOOK_SECONDS)
            break
        job = await client.job(job)
    on_progress(job)
    return job


def _passage(chunk: DocumentChunk, document: "Document") -> Passage:
    """Return a chunk as a database tells it: with what its document is called."""
    return Passage(
        chunk_id=chunk.chunk_id,
        document_id=document.document_id,
        collection=document.collection,
        ordinal=chunk.ordinal,
        text=chunk.text,
        title=document.title,
        uri=document.uri,
        headings=chunk.headings,
        places=chunk.places,
        language=chunk.language,
        metadata=document.metadata,
    )


def _generation(generation: GenerationInfo) -> Mapping[str, Any]:
    fields: dict[str, Any] = output.jsonable(generation)
    job = fields.pop("job")
    return fields | {"job_id": job and job["job_id"]}


def _as_object(collection: CollectionInfo) -> Mapping[str, Any]:
    """Tell a collection under the names that it has where a database tells it."""
    created = collection.created_at
    return {
        "name": collection.name,
        "embedding": {"model": collection.embedding_model, "dimension": collection.dimension},
        "chunker": collection.chunker,
        "language": collection.language,
        "strict": collection.strict,
        "created_at": None if created is None else created.isoformat(),
        "documents": collection.documents,
        "chunks": collection.chunks,
    }
