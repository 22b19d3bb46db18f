"""The library of this machine's settings: its database is opened by this very process."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from ragcore.cli import output, session
from ragcore.cli.library import Buckets, Intake, Refreshing
from ragcore.errors import CollectionNotFound

if TYPE_CHECKING:
    from ragcore.model import (
        Answer,
        ApiKey,
        AuditEntry,
        Collection,
        DeletionReceipt,
        Document,
        Filter,
        Generation,
        Job,
        JobStatus,
        Passage,
        ReadingReport,
        SearchMode,
        SearchResult,
    )
    from ragcore.ports import ObjectResult, SwitchMode
    from ragcore.rag import Rag
    from ragcore.runtime import Runtime

ACTOR: Final = "command line"
"""As the audit trail names whoever has the database's address anyway."""

_LOOK_SECONDS: Final = 0.25
_PAGE: Final = 200
_MORE_THAN_CONVERTED: Final = 2
"""Files under way beyond those being converted, so that embedding does not wait for them."""


class LocalIntake:
    """Documents in, worked on here unless a worker is faster."""

    def __init__(self, rag: "Rag") -> None:
        self._rag = rag

    @property
    def at_once(self) -> int:
        return self._rag.runtime.settings.conversion.processes + _MORE_THAN_CONVERTED

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
        return await self._rag.ingest(
            source,
            collection=collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            on_progress=on_progress,
        )

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
        return await self._rag.ingest_text(
            text,
            collection=collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            on_progress=on_progress,
        )


class LocalRefreshing:
    """Documents of URLs, fetched from here."""

    def __init__(self, rag: "Rag", collection: str) -> None:
        self._rag = rag
        self._collection = collection

    async def id_of(self, url: str) -> str:
        uri = self._rag.runtime.web.canonical(url)
        return (await self._rag.document_by_uri(uri, collection=self._collection)).document_id

    async def all_ids(self) -> AsyncIterator[str]:
        """A page in memory at a time."""
        from ragcore.flows.fetch import is_url

        await self._rag.runtime.collections.get(self._collection)
        after: str | None = None
        while page := await self._rag.documents(
            collection=self._collection, limit=_PAGE, after=after
        ):
            for document in page:
                if is_url(document.uri):
                    yield document.document_id
            after = page[-1].document_id

    async def refresh(self, document_id: str) -> "Job":
        return await self._rag.refresh(document_id, collection=self._collection)


class LocalBuckets:
    """Buckets of this machine's settings."""

    def __init__(self, rag: "Rag") -> None:
        self._rag = rag

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
        from ragcore.flows.sync import bucket_order

        order = bucket_order(
            uri,
            collection=collection or self._rag.collection,
            metadata=metadata,
            include=include,
            exclude=exclude,
            delete_missing=delete_missing,
            max_delete_share=max_delete_share,
            dry_run=dry_run,
        )
        return await self._rag.sync_order(order, on_progress=on_progress)

    async def objects(self, job: "Job") -> "AsyncIterator[ObjectResult]":
        after: str | None = None
        while page := await self._rag.bucket_objects(job.job_id, limit=1000, after=after):
            for each in page:
                yield each
            after = page[-1].note.key


class LocalLibrary:
    """Opens for each command no more than it needs: listing jobs takes no model."""

    @asynccontextmanager
    async def intake(self) -> AsyncIterator[Intake]:
        async with session.opened() as rag:
            yield LocalIntake(rag)

    @asynccontextmanager
    async def refreshing(self, *, collection: str | None) -> AsyncIterator[Refreshing]:
        async with session.opened() as rag:
            yield LocalRefreshing(rag, collection or rag.collection)

    @asynccontextmanager
    async def buckets(self) -> AsyncIterator[Buckets]:
        async with session.opened() as rag:
            yield LocalBuckets(rag)

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
        async with session.opened() as rag:
            return await rag.search(
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
        async with session.opened() as rag:
            return await rag.ask(
                question,
                collection=collection,
                top_k=top_k,
                mode=mode,
                filters=filters,
                generate=generate,
                explain=explain,
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
        async with session.opened_runtime() as runtime:
            return await runtime.catalog.documents(
                collection or runtime.settings.collection,
                filters=_parsed(filters),
                doubtful=doubtful,
                limit=limit,
                after=after,
            )

    async def document(
        self, document_id: str, *, collection: str | None, chunks: bool
    ) -> "tuple[Document, ReadingReport, Sequence[Passage]]":
        async with session.opened_runtime() as runtime:
            name = collection or runtime.settings.collection
            document = await runtime.catalog.document(name, document_id)
            report = await runtime.catalog.reading_report(name, document_id)
            found = await runtime.chunks.document_chunks(name, document_id) if chunks else ()
            return document, report, found

    async def delete_documents(
        self, document_ids: Sequence[str], *, collection: str | None
    ) -> "DeletionReceipt":
        async with session.opened_runtime() as runtime:
            name = collection or runtime.settings.collection
            return await runtime.forget.documents(name, document_ids)

    # --- collections -----------------------------------------------------------------------

    async def collections(self) -> Sequence[Mapping[str, Any]]:
        async with session.opened_runtime() as runtime:
            return [_as_object(*counted) for counted in await runtime.collections.list()]

    async def create_collection(
        self, name: str, *, language: str | None, strict: bool
    ) -> Mapping[str, Any]:
        from ragcore.steps.identity import checked_collection

        async with session.opened_runtime() as runtime:
            made = await runtime.open_collection(
                checked_collection(name), language=language, strict=strict
            )
        shown: dict[str, Any] = output.jsonable(made)
        return shown

    async def delete_collection(self, name: str) -> "DeletionReceipt":
        async with session.opened_runtime() as runtime:
            return await runtime.forget.collection(name)

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
        """Also of a collection that was made with another model than is configured now."""
        async with session.opened_runtime() as runtime:
            job = await runtime.reindex.start(
                name,
                embedding_model=embedding_model,
                max_tokens=max_tokens,
                questions=questions,
                switch=switch,
                submitted_by=ACTOR,
            )
            return await runtime.reindex.finish(job, on_progress=on_progress)

    async def reindex_state(self, name: str) -> Mapping[str, Any]:
        async with session.opened_runtime() as runtime:
            _, generations = await runtime.reindex.state(name)
            return {
                "collection": await _counted(runtime, name),
                "generations": [_generation(each) for each in generations],
            }

    async def switch_reindex(
        self, name: str, *, accept_loss: bool, on_progress: "Callable[[Job], None]"
    ) -> "Job":
        async with session.opened_runtime() as runtime:
            job = await runtime.reindex.switch(name, accept_loss=accept_loss, submitted_by=ACTOR)
            return await runtime.reindex.finish(job, on_progress=on_progress)

    async def roll_back_reindex(self, name: str, *, accept_loss: bool) -> Mapping[str, Any]:
        async with session.opened_runtime() as runtime:
            await runtime.reindex.roll_back(name, accept_loss=accept_loss, submitted_by=ACTOR)
            return await _counted(runtime, name)

    async def discard_reindex(self, name: str) -> Mapping[str, Any]:
        async with session.opened_runtime() as runtime:
            await runtime.reindex.discard(name, submitted_by=ACTOR)
            return await _counted(runtime, name)

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
        from ragcore.runtime import open_catalog

        async with open_catalog(session.load_settings()) as catalog:
            return await catalog.jobs(
                collections=None if collection is None else {collection},
                document_id=document_id,
                status=status,
                limit=limit,
                after=after,
            )

    async def job(self, job_id: UUID) -> "Job":
        from ragcore.runtime import open_catalog

        async with open_catalog(session.load_settings()) as catalog:
            return await catalog.job(job_id)

    async def follow(self, job_id: UUID) -> "AsyncIterator[Job]":
        import asyncio

        from ragcore.runtime import open_catalog

        async with open_catalog(session.load_settings()) as catalog:
            while True:
                job = await catalog.job(job_id)
                yield job
                if job.is_finished:
                    return
                await asyncio.sleep(_LOOK_SECONDS)

    async def cancel(self, job_ids: Sequence[UUID]) -> "Sequence[Job]":
        from ragcore.runtime import open_audit, open_catalog

        settings = session.load_settings()
        async with open_catalog(settings) as catalog, open_audit(settings) as audit:
            cancelled = []
            for job_id in job_ids:
                job = await catalog.job(job_id)
                if not job.is_finished:
                    await audit.record([_entry("job.cancel", job)])
                    job = await catalog.cancel(job_id)
                cancelled.append(job)
            return cancelled

    async def retry(self, job_ids: Sequence[UUID]) -> "Sequence[Job]":
        from ragcore.runtime import open_audit, open_catalog

        settings = session.load_settings()
        async with open_catalog(settings) as catalog, open_audit(settings) as audit:
            again = []
            for job_id in job_ids:
                await audit.record([_entry("job.retry", await catalog.job(job_id))])
                again.append(await catalog.run_again(job_id))
            return again

    async def retry_failed(self, *, collection: str | None, code: str | None) -> "Sequence[Job]":
        from ragcore.runtime import open_audit, open_catalog

        settings = session.load_settings()
        async with open_catalog(settings) as catalog, open_audit(settings) as audit:
            details = {"collection": collection, "code": code}
            await audit.record([_entry("job.retry", details=details)])
            collections = None if collection is None else {collection}
            return await catalog.run_failed_again(collections=collections, code=code)

    # --- keys and the audit trail ----------------------------------------------------------

    async def keys(self) -> "Sequence[ApiKey]":
        from ragcore.runtime import open_keys

        async with open_keys(session.load_settings()) as keys:
            return await keys.list()

    async def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str],
        collections: Sequence[str] | None,
        requests_per_minute: int | None,
        expires_at: datetime | None,
    ) -> "tuple[ApiKey, str]":
        from ragcore.runtime import open_keys

        async with open_keys(session.load_settings()) as keys:
            made = await keys.create(
                name,
                scopes=set(scopes),  # type: ignore[arg-type]  # checked there
                collections=set(collections) if collections else None,
                requests_per_minute=requests_per_minute,
                expires_at=expires_at,
                actor=ACTOR,
            )
            return made.key, made.secret

    async def revoke_key(self, key_id: UUID) -> "ApiKey":
        from ragcore.runtime import open_keys

        async with open_keys(session.load_settings()) as keys:
            return await keys.revoke(key_id, actor=ACTOR)

    async def audit(
        self, *, collections: Sequence[str] | None, action: str | None, limit: int
    ) -> "Sequence[AuditEntry]":
        from ragcore.runtime import open_audit

        async with open_audit(session.load_settings()) as audit:
            return await audit.entries(
                collections=set(collections) if collections else None, action=action, limit=limit
            )


def _parsed(filters: Mapping[str, Any] | None) -> "Filter | None":
    from ragcore.steps import filtering

    return None if filters is None else filtering.parse(filters)


async def _counted(runtime: "Runtime", name: str) -> Mapping[str, Any]:
    """Return a collection with what it holds. Raises CollectionNotFound."""
    for counted in await runtime.collections.list():
        if counted[0].name == name:
            return _as_object(*counted)
    raise CollectionNotFound(f"there is no collection {name!r}")


def _generation(generation: "Generation") -> Mapping[str, Any]:
    fields: dict[str, Any] = output.jsonable(generation)
    embedding = fields.pop("embedding")
    return fields | {
        "embedding_model": embedding["model"],
        "dimension": embedding["dimension"],
    }


def _as_object(collection: "Collection", documents: int, chunks: int) -> dict[str, Any]:
    fields: dict[str, Any] = output.jsonable(collection)
    return fields | {"documents": documents, "chunks": chunks}


def _entry(
    action: str, job: "Job | None" = None, *, details: Mapping[str, Any] | None = None
) -> "AuditEntry":
    from ragcore.model import AuditEntry

    return AuditEntry(
        action,
        ACTOR,
        collection=None if job is None else job.collection,
        target=None if job is None else str(job.job_id),
        details=details or {},
    )
