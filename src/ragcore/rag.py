"""`Rag`: the library's front door, for notebooks, scripts and the command line."""

import asyncio
import gzip
import hashlib
import tempfile
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from ragcore.errors import (
    BlobNotFound,
    InvalidInput,
    NotConfigured,
    Rejected,
    SourceUnavailable,
)
from ragcore.flows.fetch import is_url
from ragcore.flows.submit import Upload, markdown_key
from ragcore.flows.sync import bucket_order, is_bucket
from ragcore.llamaindex.bridge import Bridged
from ragcore.model import (
    Answer,
    AnswerEvent,
    Asker,
    Collection,
    ConvertedDocument,
    DeletionReceipt,
    Document,
    Feedback,
    Filter,
    Generation,
    Job,
    JobFailure,
    JobStatus,
    Message,
    PageImage,
    Passage,
    ReadingReport,
    SearchMode,
    SearchResult,
    Version,
)
from ragcore.ports import (
    UNMETERED,
    BucketOrder,
    ConversionRequest,
    Converter,
    Doorbell,
    Embedder,
    Meter,
    ObjectResult,
    QuestionTrace,
    Reranker,
    SwitchMode,
)
from ragcore.runtime import (
    CollectionEmbedding,
    Runtime,
    as_embedder,
    open_converter,
    open_runtime,
)
from ragcore.settings import Settings
from ragcore.steps import filtering
from ragcore.steps.feedback import checked_feedback
from ragcore.steps.identity import (
    checked_collection,
    checked_metadata,
    clean_title,
    id_from_uri,
)

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.vector_stores.types import MetadataFilters
    from llama_index.vector_stores.supabase import SupabaseVectorStore

    from ragcore.llamaindex.embedding import RagEmbedding
    from ragcore.llamaindex.postprocessors import Rerank
    from ragcore.llamaindex.query_engine import RagQueryEngine
    from ragcore.llamaindex.retriever import RagRetriever
    from ragcore.llamaindex.vector_store import RagVectorStore

Source = str | Path | bytes
Url = str
Filters = Mapping[str, Any] | Filter
OnProgress = Callable[[Job], None]

NOBODY = Asker()
"""For questions without a user or a session."""

_HERE = "ragcore"
"""Who submits what is done here: no key of the API, but whoever imports the library."""

_UNFINISHED: tuple[JobStatus, ...] = ("queued", "running")

_INLINE_BACKOFF = (timedelta(seconds=1), timedelta(seconds=5))
"""Somebody waits for the answer: give up sooner than a worker would."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """A file as it was understood; nothing of it is stored."""

    document: ConvertedDocument
    markdown: str
    docling_json: str
    """The DoclingDocument."""


class Rag:
    """Documents in, cited answers out, over one default collection.

    Opened by `await Rag.open()` and closed by `await rag.close()`, or by `async with Rag.open()`.
    Every method that changes something may be repeated safely.
    """

    def __init__(
        self,
        runtime: Runtime,
        anywhere: "Bridged[Runtime]",
        stack: AsyncExitStack,
        collection: str,
    ) -> None:
        self._runtime = runtime
        self._anywhere = anywhere
        self._stack = stack
        self.collection = collection
        """The collection used when a call names none."""

    @classmethod
    def open(
        cls,
        settings: Settings | None = None,
        *,
        collection: str | None = None,
        data_dir: str | Path | None = None,
        embedding: "Embedder | BaseEmbedding | None" = None,
        other_embeddings: "Sequence[Embedder | BaseEmbedding]" = (),
        llm: "LLM | None" = None,
        reranker: "Reranker | BaseNodePostprocessor | None" = None,
        doorbell: Doorbell | None = None,
        meter: Meter = UNMETERED,
    ) -> "Opening":
        """Open everything: to be awaited, or used by `async with`.

        Settings come from the environment when none are given; without a configured database an
        embedded PostgreSQL is started, or joined, in `data_dir`. `embedding`, `llm` (any
        LlamaIndex language model) and `reranker` replace the configured ones and stay their
        owner's to close; so do `other_embeddings`, to which collections may be moved beside those
        that settings can name; `doorbell` tells workers of submitted jobs. Raises
        CollectionMismatch when the collection was made with another model and was never moved,
        or when the one it was moved to is missing; Unsupported, Unavailable and their children.
        """
        settings = settings or Settings()
        if data_dir is not None:
            settings = settings.model_copy(update={"data_dir": Path(data_dir).resolve()})
        return Opening(
            settings,
            collection or settings.collection,
            embedding,
            other_embeddings,
            llm,
            reranker,
            doorbell,
            meter,
        )

    async def close(self) -> None:
        """Close all connections and children. The embedded server stops with its last user."""
        await self._stack.aclose()

    @property
    def runtime(self) -> Runtime:
        """The open resources and flows underneath, for what this class does not offer."""
        return self._runtime

    # --- documents in ----------------------------------------------------------------------

    async def ingest(
        self,
        source: Source,
        *,
        collection: str | None = None,
        document_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        filename: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> list[Job]:
        """Make a file, a folder of files, a URL or bytes searchable; return how each ended.

        A file is known by its path, a page of the web by its URL: ingesting it again replaces it
        when it changed and does nothing when it did not. Only the open internet is fetched from,
        and the hosts of RAGCORE_FETCH__ALLOWED_HOSTS. A document that can't be had or read is a
        failed job, not an exception.
        Raises InvalidInput for arguments that can't be meant, Unavailable when a server is away.
        """
        if isinstance(source, str) and is_bucket(source):
            if document_id is not None or title is not None:
                raise InvalidInput(f"{source!r} may be many documents: they name themselves")
            job = await self.sync(
                source, collection=collection, metadata=metadata, on_progress=on_progress
            )
            children = await self._children(job)
            return children if job.error is None else [*children, job]
        if isinstance(source, bytes):
            upload = self._upload(
                collection=collection,
                document_id=document_id,
                title=title,
                metadata=metadata,
                filename=filename,
            )
            return [await self._ingest_bytes(source, upload, on_progress)]
        places = _places(source)
        if document_id is not None and len(places) != 1:
            raise InvalidInput(
                f"document_id {document_id!r} names one document; {source!r} is many"
            )
        upload = self._upload(
            collection=collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            filename=filename if len(places) == 1 else None,
        )
        return [job async for job in self._ingest_places(places, upload, on_progress)]

    async def sync(
        self,
        source: str,
        *,
        collection: str | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        delete_missing: bool = False,
        max_delete_share: float = 0.2,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Ingest what is new or changed under `s3://bucket/prefix`; return the bucket's job.

        The bucket must be configured (`RAGCORE_BUCKETS__SERVERS__…`). `counts` of the job say what
        was found and done, `bucket_objects` tells it object by object. With `delete_missing`
        documents go whose objects are gone; more than `max_delete_share` of them are not believed.
        A listing that fails is a failed job. Raises BucketNotFound, InvalidInput, Unavailable.
        """
        order = bucket_order(
            source,
            collection=checked_collection(collection or self.collection),
            include=include,
            exclude=exclude,
            metadata=metadata,
            delete_missing=delete_missing,
            max_delete_share=max_delete_share,
            dry_run=dry_run,
        )
        return await self.sync_order(order, on_progress=on_progress)

    async def sync_order(self, order: BucketOrder, *, on_progress: OnProgress | None = None) -> Job:
        """Do what `sync` does for an order that is made already."""
        await self._runtime.open_collection(order.collection)
        job = await self._runtime.sync.start(order, submitted_by=_HERE)
        earlier = () if order.dry_run else await self._earlier(job)
        return await self._finish_bucket(job, on_progress, earlier=earlier)

    async def bucket_objects(
        self, job_id: UUID, *, limit: int = 100, after: str | None = None
    ) -> Sequence[ObjectResult]:
        """Tell what a bucket's job decided, in order of keys, and what became of it.

        Objects that needed nothing are only counted.
        """
        return await self._runtime.sources.objects(job_id, limit=limit, after=after)

    async def ingest_text(
        self,
        text: str,
        *,
        collection: str | None = None,
        document_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        filename: str = "text.txt",
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Make a text searchable; `filename="text.md"` says that it is Markdown."""
        upload = self._upload(
            collection=collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            filename=filename,
        )
        return await self._ingest_bytes(text.encode(errors="replace"), upload, on_progress)

    def ingest_many(
        self,
        sources: Iterable[str | Path],
        *,
        collection: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> AsyncIterator[Job]:
        """Ingest files, folders and URLs several at a time; yields each job as it ends."""
        places = [place for source in sources for place in _places(source)]
        upload = self._upload(collection=collection, metadata=metadata)
        return self._ingest_places(places, upload, on_progress)

    async def refresh(
        self,
        document_id: str,
        *,
        collection: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Fetch the URL of a document again; `unchanged` when it holds what is in place.

        Raises DocumentNotFound, InvalidInput for a document that did not come from a URL,
        ForbiddenUrl, UnsupportedFormat, DocumentTooLarge, SourceUnavailable, Unavailable.
        """
        job = await self._runtime.fetch.again(collection or self.collection, document_id)
        return await self._finish(job, on_progress)

    async def convert(
        self,
        source: str | Path | bytes,
        *,
        filename: str | None = None,
        password: str | None = None,
    ) -> Conversion:
        """Read a file and store nothing. Raises UnsupportedFormat, ConversionError …"""
        runtime = self._runtime
        return await convert(
            runtime.settings,
            source,
            filename=filename,
            password=password,
            converter=runtime.converter,
            tokenizer=runtime.work.ingest.tokenizer,
            max_tokens=runtime.work.ingest.max_tokens,
            directory=runtime.work.ingest.directory,
        )

    # --- questions -------------------------------------------------------------------------

    async def search(
        self,
        question: str,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: Filters | None = None,
        explain: bool = False,
        generate: bool = True,
    ) -> SearchResult:
        """Return the passages that fit a question, best first.

        `generate` False never calls a language model, where one rewrites or reranks. Raises
        CollectionNotFound, InvalidFilter, InvalidInput, Unavailable.
        """
        return await self._runtime.search(
            question,
            collection=self.collection if collection is None else collection,
            top_k=self._top_k(top_k),
            mode=mode,
            filters=_filter(filters),
            explain=explain,
            language_models=generate,
        )

    async def ask(
        self,
        question: str,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: Filters | None = None,
        explain: bool = False,
        generate: bool = True,
        history: Sequence[Message] = (),
        asker: Asker = NOBODY,
    ) -> Answer:
        """Answer a question from the documents, with citations checked against them.

        Without a language model, or with `generate` False, the answer is made of the passages'
        own best sentences. `history` are the turns before the question, oldest first; what a
        follow-up means is found out by the language model. `asker` is for traces, where they are
        made: the answer's `trace_id` then names its own. Raises as `search` does.
        """
        engine = self.query_engine(
            collection=collection,
            top_k=top_k,
            mode=mode,
            filters=filters,
            explain=explain,
            generate=generate,
            history=history,
        )
        trace = self._trace(question, collection, asker, mode=mode, generate=generate)
        with trace:
            with trace.inside():
                answer = await engine.ask(question)
            return trace.answered(answer)

    def ask_stream(
        self,
        question: str,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: Filters | None = None,
        explain: bool = False,
        generate: bool = True,
        history: Sequence[Message] = (),
        asker: Asker = NOBODY,
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as `ask` does: first its passages, then its text in pieces, last the answer."""
        engine = self.query_engine(
            collection=collection,
            top_k=top_k,
            mode=mode,
            filters=filters,
            explain=explain,
            generate=generate,
            history=history,
        )
        trace = self._trace(question, collection, asker, mode=mode, generate=generate)
        return _traced(engine.ask_stream(question), trace)

    async def feedback(
        self, trace_id: str, score: float, *, comment: str | None = None, given_by: str = ""
    ) -> None:
        """Say what an answer was worth, 0…1, to be kept with its trace.

        A second opinion of the same `given_by` takes the place of the first. It is sent in the
        background. Raises InvalidInput, TraceNotFound for what is no `trace_id` of an answer,
        TracingOff where no traces are made, and Busy (retry).
        """
        self._runtime.tracer.score(checked_feedback(Feedback(trace_id, score, comment, given_by)))

    # --- LlamaIndex ------------------------------------------------------------------------

    def retriever(
        self,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: "Filters | MetadataFilters | None" = None,
        explain: bool = False,
        generate: bool = True,
    ) -> "RagRetriever":
        """Return a LlamaIndex retriever over the collection.

        `generate` False never calls a language model, where one rewrites or reranks.
        """
        from ragcore.llamaindex.retriever import RagRetriever

        return RagRetriever(
            self._anywhere.part(lambda runtime: runtime.search),
            collection=self.collection if collection is None else collection,
            top_k=self._top_k(top_k),
            mode=mode,
            filters=_filter(filters) if isinstance(filters, Mapping) else filters,
            explain=explain,
            language_models=generate,
        )

    def query_engine(
        self,
        *,
        collection: str | Sequence[str] | None = None,
        top_k: int | None = None,
        mode: SearchMode = "hybrid",
        filters: "Filters | MetadataFilters | None" = None,
        explain: bool = False,
        node_postprocessors: "Sequence[BaseNodePostprocessor]" = (),
        generate: bool = True,
        history: Sequence[Message] = (),
    ) -> "RagQueryEngine":
        """Return the LlamaIndex query engine that `ask` runs through.

        `generate` False never calls a language model. `history`: what every question of this
        engine comes after.
        """
        from ragcore.llamaindex.query_engine import (
            AnswererSynthesizer,
            Conversation,
            RagQueryEngine,
        )

        retriever = self.retriever(
            collection=collection,
            top_k=top_k,
            mode=mode,
            filters=filters,
            explain=explain,
            generate=generate,
        )
        answerer = self._anywhere.part(
            lambda runtime: runtime.answerer if generate else runtime.extractive
        )
        condenser = self._anywhere.part(lambda runtime: runtime.condenser if generate else None)
        asked = self.collection if collection is None else collection
        return RagQueryEngine(
            retriever,
            AnswererSynthesizer(answerer, history=history),
            node_postprocessors,
            conversation=Conversation(
                history, condenser, collection=asked if isinstance(asked, str) else None
            ),
        )

    def rerank(self, *, top_n: int | None = None) -> "Rerank":
        """Return the configured reranker as a LlamaIndex node postprocessor.

        Searches use it by themselves: this is for retrievers of other origin. Raises NotConfigured
        where there is none.
        """
        from ragcore.llamaindex.postprocessors import Rerank

        if self._runtime.search.reranker is None:
            raise NotConfigured("there is no reranker: set RAGCORE_RERANK__BY")
        return Rerank(self._anywhere.part(_reranker_of), top_n=top_n)

    def vector_store(self, *, collection: str | None = None) -> "RagVectorStore":
        """Return a LlamaIndex vector store over the collection's chunks."""
        from ragcore.llamaindex.vector_store import RagVectorStore

        name = checked_collection(collection or self.collection)
        nodes = self._anywhere.part(lambda runtime: runtime.nodes(name))
        return RagVectorStore(nodes, collection=name)

    def embed_model(self, *, collection: str | None = None) -> "RagEmbedding":
        """Return a collection's embedding model, for LlamaIndex's indexes and pipelines.

        After a reindex it is the new one.
        """
        from ragcore.llamaindex.embedding import as_llama_embedding

        name = checked_collection(collection or self.collection)
        return as_llama_embedding(
            self._anywhere.part(lambda runtime: CollectionEmbedding(runtime, name))
        )

    def supabase_vector_store(self, *, collection: str | None = None) -> "SupabaseVectorStore":
        """Return the stock Supabase vector store over the same collection, for reading.

        Raises MissingExtra without `ragcore[supabase]`.
        """
        from ragcore.llamaindex.supabase import supabase_vector_store

        return supabase_vector_store(
            self._runtime.database_url,
            collection=collection or self.collection,
            dimension=self._runtime.embedder.spec.dimension,
        )

    # --- documents and collections ---------------------------------------------------------

    async def documents(
        self,
        *,
        collection: str | None = None,
        filters: Filters | None = None,
        doubtful: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Sequence[Document]:
        """Return documents in order of their ids, after the id `after`.

        `doubtful`: only those that were badly read, as their `reading_report` tells.
        """
        return await self._runtime.catalog.documents(
            collection or self.collection,
            filters=_filter(filters),
            doubtful=doubtful,
            limit=limit,
            after=after,
        )

    async def document(self, document_id: str, *, collection: str | None = None) -> Document:
        """Raises DocumentNotFound."""
        return await self._runtime.catalog.document(collection or self.collection, document_id)

    async def reading_report(
        self, document_id: str, *, collection: str | None = None
    ) -> ReadingReport:
        """Tell how well a document could be read. Raises DocumentNotFound."""
        return await self._runtime.catalog.reading_report(
            collection or self.collection, document_id
        )

    async def document_by_uri(self, uri: str, *, collection: str | None = None) -> Document:
        """Return the document that came from there. Raises DocumentNotFound."""
        return await self._runtime.catalog.document_by_uri(collection or self.collection, uri)

    async def versions(
        self, document_id: str, *, collection: str | None = None
    ) -> Sequence[Version]:
        """Return what became of each upload of a document, the newest first.

        Raises DocumentNotFound.
        """
        return await self._runtime.catalog.versions(collection or self.collection, document_id)

    async def chunks(
        self,
        document_id: str,
        *,
        collection: str | None = None,
        first: int = 0,
        limit: int | None = None,
    ) -> Sequence[Passage]:
        """Return a document's chunks in reading order, from the one numbered `first`, from 0."""
        return await self._runtime.chunks.document_chunks(
            collection or self.collection, document_id, first=first, limit=limit
        )

    async def markdown(self, document_id: str, *, collection: str | None = None) -> str:
        """Return a document as it was understood. Raises DocumentNotFound, BlobNotFound."""
        document = await self.document(document_id, collection=collection)
        pieces = [p async for p in self._runtime.blobs.open(markdown_key(version_of(document)))]
        return b"".join(pieces).decode()

    async def page_image(
        self,
        document_id: str,
        page: int,
        *,
        collection: str | None = None,
        dots_per_inch: int = 110,
    ) -> PageImage:
        """Return a page, counted from 1, as a picture: the page that a citation points at.

        Raises DocumentNotFound, BlobNotFound, ConversionError, and PageNotFound, also for a
        document that is neither a PDF nor a picture.
        """
        document = await self.document(document_id, collection=collection)
        return await self._runtime.draw_page(
            version_of(document), page, dots_per_inch=dots_per_inch
        )

    async def update(
        self,
        document_id: str,
        *,
        collection: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> Document:
        """Change a document's title, metadata or last day; nothing is embedded again.

        `metadata` replaces the whole object; `never_expires` takes a last day away. Raises
        DocumentNotFound, InvalidInput for metadata that can't be stored.
        """
        return await self._runtime.catalog.update_document(
            collection or self.collection,
            document_id,
            title=clean_title(title),
            metadata=None if metadata is None else checked_metadata(metadata),
            expires_at=expires_at,
            never_expires=never_expires,
        )

    async def delete(
        self, document_ids: str | Sequence[str], *, collection: str | None = None
    ) -> DeletionReceipt:
        """Remove documents, their chunks and files; ids that don't exist are not in the receipt."""
        ids = [document_ids] if isinstance(document_ids, str) else list(document_ids)
        return await self._runtime.forget.documents(collection or self.collection, ids)

    async def delete_matching(
        self, filters: Filters, *, collection: str | None = None, dry_run: bool = False
    ) -> DeletionReceipt:
        """Remove the documents that match, those on their way in included.

        With `dry_run` nothing is removed, and the receipt tells what would be. Safe to repeat.
        Raises InvalidFilter.
        """
        wanted = filtering.parse(filters) if isinstance(filters, Mapping) else filters
        return await self._runtime.forget.matching(
            collection or self.collection, wanted, dry_run=dry_run
        )

    async def collections(self) -> Sequence[tuple[Collection, int, int]]:
        """Return every collection with its number of documents and of chunks."""
        return await self._runtime.collections.list()

    async def create_collection(
        self, name: str, *, language: str | None = None, strict: bool = False
    ) -> Collection:
        """Open a collection, made when it is missing. Raises CollectionMismatch, InvalidInput."""
        return await self._runtime.open_collection(
            checked_collection(name), language=language, strict=strict
        )

    async def delete_collection(self, name: str) -> DeletionReceipt:
        """Remove a collection and all in it. Raises CollectionNotFound."""
        return await self._runtime.forget.collection(name)

    # --- another model or chunker ----------------------------------------------------------

    async def reindex(
        self,
        *,
        collection: str | None = None,
        embedding_model: str | None = None,
        max_tokens: int | None = None,
        questions: Sequence[str] = (),
        switch: SwitchMode = "auto",
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Move a collection to another embedding model or length of chunks; return the job's end.

        It answers as before until the new vectors are complete, and then is switched, in `manual`
        mode by `switch_reindex`. `embedding_model` is named with its provider, such as
        `ollama:bge-m3`; what is not given stays. Old and new answers to `questions`, or to some
        drawn from the collection, are compared in `result["comparison"]`. Raises
        CollectionNotFound, InvalidInput, Conflict when nothing is to be changed, ReindexUnderWay.
        """
        job = await self._runtime.reindex.start(
            collection or self.collection,
            embedding_model=embedding_model,
            max_tokens=max_tokens,
            questions=questions,
            switch=switch,
            submitted_by=_HERE,
        )
        return await self._runtime.reindex.finish(job, on_progress=on_progress)

    async def switch_reindex(
        self,
        *,
        collection: str | None = None,
        accept_loss: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Switch to what `reindex` has filled, also without documents that could not be taken over
        when that loss is accepted. Raises GenerationNotFound, ReindexUnderWay.
        """
        job = await self._runtime.reindex.switch(
            collection or self.collection, accept_loss=accept_loss, submitted_by=_HERE
        )
        return await self._runtime.reindex.finish(job, on_progress=on_progress)

    async def roll_back_reindex(
        self, *, collection: str | None = None, accept_loss: bool = False
    ) -> Collection:
        """Have what answered before the last switch answer again; once more undoes that.

        Raises GenerationNotFound when it is no longer kept, ReindexUnderWay, Busy, and
        RollbackLoses for documents that it lacks, unless that loss is accepted.
        """
        return await self._runtime.reindex.roll_back(
            collection or self.collection, accept_loss=accept_loss, submitted_by=_HERE
        )

    async def discard_reindex(self, *, collection: str | None = None) -> None:
        """Give up a reindex that runs, or that was filled and not switched to.

        Raises GenerationNotFound.
        """
        await self._runtime.reindex.discard(collection or self.collection, submitted_by=_HERE)

    async def generations(self, *, collection: str | None = None) -> Sequence[Generation]:
        """Return what a collection has beside what answers: what is filled, what answered before.

        Raises CollectionNotFound.
        """
        _, generations = await self._runtime.reindex.state(collection or self.collection)
        return generations

    # --- helpers ---------------------------------------------------------------------------

    def _upload(
        self,
        *,
        collection: str | None = None,
        document_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        filename: str | None = None,
    ) -> Upload:
        return Upload(
            collection=collection or self.collection,
            document_id=document_id,
            title=title,
            metadata=metadata,
            filename=filename,
        )

    async def _ingest_bytes(
        self, content: bytes, upload: Upload, on_progress: OnProgress | None
    ) -> Job:
        await self._runtime.open_collection(upload.collection)
        job = await self._runtime.submit.stream(_single(content), upload)
        return await self._finish(job, on_progress)

    async def _ingest_places(
        self, places: "Sequence[Path | Url]", upload: Upload, on_progress: OnProgress | None
    ) -> AsyncIterator[Job]:
        """Keep a few more documents under way than are converted at once, so that neither the
        conversion children nor the embedding threads wait for the other."""
        await self._runtime.open_collection(upload.collection)
        waiting = iter(places)
        under_way: set[asyncio.Task[Job]] = set()
        most = self._runtime.settings.conversion.processes + 2
        try:
            while True:
                while len(under_way) < most and (place := next(waiting, None)) is not None:
                    work = self._ingest_place(place, upload, on_progress)
                    under_way.add(asyncio.create_task(work))
                if not under_way:
                    return
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in under_way:
                task.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)

    async def _ingest_place(
        self, place: "Path | Url", upload: Upload, on_progress: OnProgress | None
    ) -> Job:
        """Ingest one of perhaps many: one that can't be taken must not stop the others."""
        uri = place if isinstance(place, str) else place.as_uri()
        upload = replace(upload, uri=uri)
        try:
            if isinstance(place, str):
                job = await self._runtime.fetch(place, upload)
            else:
                job = await self._submit_file(place, upload)
        except (Rejected, SourceUnavailable, OSError) as error:
            return _refused(upload, error)
        return await self._finish(job, on_progress)

    async def _submit_file(self, file: Path, upload: Upload) -> Job:
        upload = replace(upload, filename=upload.filename or file.name)
        sha256, size = await asyncio.to_thread(_hashed, file)
        return await self._runtime.submit.file(file, upload, sha256=sha256, size=size)

    async def _finish_bucket(
        self, job: Job, on_progress: OnProgress | None, *, earlier: Sequence[Job] = ()
    ) -> Job:
        """Run a bucket's job and its children here, beside workers if there are some; before it
        the jobs that came `earlier`, whose documents are under way and no part of this one."""
        try:
            for each in earlier:
                await self._run_bucket(each, on_progress)
            return await self._run_bucket(job, on_progress)
        except asyncio.CancelledError:
            await asyncio.shield(self._runtime.catalog.cancel(job.job_id))
            raise

    async def _earlier(self, job: Job) -> Sequence[Job]:
        """Return other unfinished jobs for the same bucket and prefix: a killed process left them,
        or a worker is at them, which then is waited for."""
        return [
            each
            for status in _UNFINISHED
            for each in await self._runtime.catalog.jobs(
                collections={job.collection}, document_id=job.document_id, status=status
            )
            if each.kind == "bucket" and each.job_id != job.job_id
        ]

    async def _run_bucket(self, job: Job, on_progress: OnProgress | None) -> Job:
        runtime = self._runtime
        while not job.is_finished:
            if await runtime.sync.next(job_id=job.job_id) is None:
                if not await self._work_on_children(job, on_progress):
                    await runtime.catalog.release_expired()
                    await asyncio.sleep(0.2)
                await runtime.sync.settle()
            job = await runtime.catalog.job(job.job_id)
            if on_progress is not None:
                on_progress(job)
        return job

    async def _work_on_children(self, job: Job, on_progress: OnProgress | None) -> bool:
        """Run waiting children, several at a time, until none waits; tell whether any did."""
        work = replace(self._runtime.work, backoff=_INLINE_BACKOFF)
        worked = False

        async def keep_working() -> None:
            nonlocal worked
            while ran := await work.next(parent_id=job.job_id, on_progress=on_progress):
                worked = True
                if on_progress is not None:
                    on_progress(ran)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._runtime.settings.conversion.processes + 2):
                tasks.create_task(keep_working())
        return worked

    async def _children(self, job: Job) -> list[Job]:
        found: list[Job] = []
        after: str | None = None
        while page := await self.bucket_objects(job.job_id, limit=1000, after=after):
            ids = [each.job_id for each in page if each.job_id is not None]
            found += await self._runtime.catalog.jobs_by_id(ids)
            after = page[-1].note.key
        return found

    async def _finish(self, job: Job, on_progress: OnProgress | None) -> Job:
        """Run the job here, unless a worker is faster, and return how it ended."""
        catalog = self._runtime.catalog
        work = replace(self._runtime.work, backoff=_INLINE_BACKOFF)
        try:
            while not job.is_finished:
                ran = await work.next(job_id=job.job_id, on_progress=on_progress)
                if (
                    ran is None
                ):  # a worker has it, perhaps one that died: where none is, none sweeps
                    await catalog.release_expired()
                job = ran or await catalog.job(job.job_id)
                if not job.is_finished:
                    await asyncio.sleep(0.2)
        except asyncio.CancelledError:
            await asyncio.shield(catalog.cancel(job.job_id))
            raise
        if on_progress is not None:
            on_progress(job)
        return job

    def _trace(
        self,
        question: str,
        collection: str | Sequence[str] | None,
        asker: Asker,
        **options: str | int | bool,
    ) -> QuestionTrace:
        names = self.collection if collection is None else collection
        return self._runtime.tracer.question(
            question,
            collections=[names] if isinstance(names, str) else names,
            asker=asker,
            options=options,
        )

    def _top_k(self, top_k: int | None) -> int:
        return self._runtime.settings.search.top_k if top_k is None else top_k


class Opening:
    """What `Rag.open` returns: await it, or enter it."""

    def __init__(
        self,
        settings: Settings,
        collection: str,
        embedding: "Embedder | BaseEmbedding | None",
        other_embeddings: "Sequence[Embedder | BaseEmbedding]",
        llm: "LLM | None",
        reranker: "Reranker | BaseNodePostprocessor | None",
        doorbell: Doorbell | None,
        meter: Meter,
    ) -> None:
        self._settings = settings
        self._llm = llm
        self._reranker = reranker
        self._meter = meter
        self._doorbell = doorbell
        self._collection = checked_collection(collection)
        self._embedding = embedding
        self._other_embeddings = other_embeddings
        self._rag: Rag | None = None

    def __await__(self) -> Generator[Any, None, Rag]:
        return self._open().__await__()

    async def __aenter__(self) -> Rag:
        self._rag = await self._open()
        return self._rag

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._rag is not None
        await self._rag.close()

    async def _open(self) -> Rag:
        async with AsyncExitStack() as stack:
            embedder = None
            if self._embedding is not None:
                embedder = await self._embedder(self._embedding, stack)
            others = [await self._embedder(other, stack) for other in self._other_embeddings]
            runtime = await stack.enter_async_context(
                open_runtime(
                    self._settings,
                    embedder=embedder,
                    other_embedders=others,
                    llm=self._llm,
                    reranker=self._reranker,
                    doorbell=self._doorbell,
                    meter=self._meter,
                )
            )
            opened = await runtime.open_collection(self._collection)
            await runtime.pipelines.of(opened.embedding, opened.chunker)  # or say why not
            if embedder is None and runtime.model.spec.model.startswith("bundled:"):
                embedder = runtime.model  # bound to no event loop, so one in memory is enough
            anywhere = Bridged.opened_by(
                lambda: open_runtime(
                    self._settings,
                    embedder=embedder,
                    other_embedders=others,
                    llm=self._llm,
                    reranker=self._reranker,
                ),
                home=runtime,
            )
            stack.push_async_callback(anywhere.aclose)
            return Rag(runtime, anywhere, stack.pop_all(), self._collection)

    async def _embedder(self, given: "Embedder | BaseEmbedding", stack: AsyncExitStack) -> Embedder:
        embedder = await as_embedder(given, self._settings)
        if embedder is not given:  # made here around a model of LlamaIndex
            stack.push_async_callback(embedder.aclose)
        return embedder


async def convert(
    settings: Settings,
    source: Source,
    *,
    filename: str | None = None,
    password: str | None = None,
    converter: Converter | None = None,
    tokenizer: str = "bundled",
    max_tokens: int | None = None,
    directory: Path | None = None,
) -> Conversion:
    """Read one file without any database. Raises UnsupportedFormat, ConversionError …

    Its chunks are counted in the bundled model's tokens, unless another counter is named. What is
    worked on rests in `directory`, or the system's own for such files, and is removed.
    """
    reader = converter or open_converter(settings)
    with tempfile.TemporaryDirectory(prefix="ragcore-convert-", dir=directory) as place:
        path = Path(place, "original")
        if isinstance(source, bytes):
            path.write_bytes(source)
        else:
            path, filename = Path(source).resolve(), filename or Path(source).name
        request = ConversionRequest(
            path=path,
            filename=filename,
            mime_type=None,
            directory=Path(place),
            max_tokens=max_tokens or settings.chunking.max_tokens,
            tokenizer=tokenizer,
            seed=filename or "",
            password=password,
        )
        try:
            document = await reader.convert(request)
        finally:
            if converter is None:
                await reader.aclose()
        return Conversion(
            document=document,
            markdown=Path(document.markdown_path).read_text() if document.markdown_path else "",
            docling_json=_gunzipped(document.docling_path),
        )


async def _traced(
    events: AsyncGenerator[AnswerEvent, None], trace: QuestionTrace
) -> AsyncGenerator[AnswerEvent, None]:
    """Hand on the events of an answer, the last of them with its trace's id."""
    async with aclosing(events):
        with trace:
            with trace.inside():
                first = await anext(events)  # begins the task that answers
            yield first
            async for event in events:
                yield trace.answered(event) if isinstance(event, Answer) else event


def _reranker_of(runtime: Runtime) -> Reranker:
    assert runtime.search.reranker is not None  # of the same settings as the one that was asked
    return runtime.search.reranker


def version_of(document: Document) -> UUID:
    """Return the version in place. Raises BlobNotFound while there is none."""
    if document.version_id is None:
        raise BlobNotFound(f"document {document.document_id!r} has not been read yet")
    return document.version_id


def _gunzipped(path: str | None) -> str:
    return "" if path is None else gzip.decompress(Path(path).read_bytes()).decode()


def _filter(filters: Filters | None) -> Filter | None:
    return filtering.parse(filters) if isinstance(filters, Mapping) else filters


def _places(source: str | Path) -> "Sequence[Path | Url]":
    """Return the URL, the file, or the files of the folder, in order; hidden ones are left out."""
    text = str(source)
    if isinstance(source, str) and is_url(source):
        return [source]
    if "://" in text:
        raise InvalidInput(
            f"{text[:200]!r} can't be ingested: only files, folders, http and https URLs, and"
            " s3://bucket/prefix of a configured bucket"
        )
    path = Path(source).expanduser().resolve()
    if path.is_dir():
        return sorted(
            file
            for file in path.rglob("*")
            if file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
    if not path.is_file():
        raise InvalidInput(
            f"there is no file or folder {text[:200]!r}; check the path "
            "(a text is for ingest_text, or for `ragcore ingest -`)"
        )
    return [path]


def _hashed(path: Path) -> tuple[bytes, int]:
    """Return a file's SHA-256 and its size in bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest(), file.tell()


def _refused(upload: Upload, error: Rejected | SourceUnavailable | OSError) -> Job:
    """Return the failed job of a document that never got into the catalogue."""
    code = InvalidInput.code if isinstance(error, OSError) else error.code
    return Job(
        job_id=uuid4(),
        collection=upload.collection,
        document_id=upload.document_id or id_from_uri(upload.uri or ""),
        status="failed",
        error=JobFailure(code, str(error), retryable=isinstance(error, SourceUnavailable)),
    )


async def _single(content: bytes) -> AsyncIterator[bytes]:
    yield content
