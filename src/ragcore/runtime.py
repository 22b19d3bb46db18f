"""Settings → open resources → flows → closed resources. The only wiring.

Nothing is opened on import, and what is costly to import is imported where it is opened.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol, cast
from urllib.parse import urlsplit
from uuid import uuid4

from pydantic import SecretStr

from ragcore.errors import CollectionNotFound, InvalidInput, MissingExtra, NotConfigured
from ragcore.flows.callbacks import DeliverCallbacks, Post
from ragcore.flows.embedding import Embedding, Patience
from ragcore.flows.events import HearEvents, ScheduledSync, StartDueSyncs
from ragcore.flows.fetch import Fetch
from ragcore.flows.forget import Forget, SweepOrphans
from ragcore.flows.ingest import Ingest
from ragcore.flows.keys import KeyRing
from ragcore.flows.objects import FetchBucketObject
from ragcore.flows.pages import DrawPage
from ragcore.flows.pipelines import Chunking, Pipelines
from ragcore.flows.reconcile import Reconcile
from ragcore.flows.reindex import Reindex
from ragcore.flows.retention import Retain
from ragcore.flows.search import Search
from ragcore.flows.submit import Submit
from ragcore.flows.sync import Sync, bucket_order
from ragcore.flows.work import Work
from ragcore.model import Collection, EmbeddingSpec, Vector, Vectors
from ragcore.ports import (
    UNMETERED,
    UNTRACED,
    Answerer,
    Audit,
    BlobStore,
    Callbacks,
    Catalog,
    ChunkStore,
    Collections,
    Condenser,
    Converter,
    Doorbell,
    Embedder,
    Meter,
    Prompts,
    Reranker,
    Retention,
    Rewriter,
    SharedSlots,
    Sources,
    Tracer,
)
from ragcore.settings import Settings
from ragcore.steps.fingerprints import require_same_embedding
from ragcore.steps.identity import pipeline_fingerprint

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.llms import LLM
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

    from ragcore.adapters.buckets import S3Buckets
    from ragcore.adapters.langfuse.connection import Connection
    from ragcore.adapters.langfuse.tracing import LangfuseTracer
    from ragcore.adapters.models.chat import ChatModels, OllamaChats
    from ragcore.adapters.models.ollama_servers import OllamaServers
    from ragcore.adapters.postgres.cache import PostgresEmbeddingCache
    from ragcore.adapters.postgres.dump import PostgresDump
    from ragcore.adapters.postgres.nodes import PostgresNodes
    from ragcore.adapters.postgres.pool import Pool
    from ragcore.adapters.redis.doorbell import RedisDoorbell
    from ragcore.adapters.redis.events import RedisEvents
    from ragcore.adapters.redis.limits import RedisLimits
    from ragcore.adapters.room import Room
    from ragcore.adapters.web import Web


_SHORT_TEXT_TOKENS = 256
"""What a model may write besides answers: a condensed question, other wordings, marks."""
_CONDENSING_SECONDS = 30.0
"""Nothing is to be seen while a question is condensed; after so long it is taken as it is."""

_CHUNKER = "hybrid-1"
"""The way of cutting of adapters/docling/chunker.py, whose import costs seconds."""
_BUNDLED = "bundled:multilingual-e5-small"

_PATIENCE_WITH_OLLAMA = Patience(attempts=2)
"""Its client tries again by itself."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Everything open and wired, for as long as the block of `open_runtime` lasts."""

    settings: Settings
    database_url: str
    pool: "Pool"
    catalog: Catalog
    collections: Collections
    chunks: ChunkStore
    blobs: BlobStore
    converter: Converter
    model: Embedder
    """The bare embedding model."""
    cache: "PostgresEmbeddingCache"
    embedder: Embedding
    """The same with its cache."""
    extractive: Answerer
    """Answers without a language model."""
    answerer: Answerer
    """The configured one."""
    condenser: Condenser | None
    """Reads the history of a question; None: nobody does before searching."""
    require_language_models: Callable[[], Awaitable[None]] | None
    """Raises ModelMissing and ModelUnavailable; None: no language model is configured."""
    submit: Submit
    fetch: Fetch
    work: Work
    forget: Forget
    buckets: "S3Buckets"
    """The configured ones."""
    sources: Sources
    sync: Sync
    hear_events: HearEvents
    """Told of what happens in buckets."""
    start_due_syncs: StartDueSyncs
    sweep_orphans: SweepOrphans
    reconcile: Reconcile
    reindex: Reindex
    pipelines: Pipelines
    """The embedding models and chunkers that collections have."""
    search: Search
    draw_page: DrawPage
    keys: KeyRing
    audit: Audit
    callbacks: Callbacks
    deliver_callbacks: DeliverCallbacks
    retention: Retention
    retain: Retain
    room: "Room"
    """Asked before documents are taken."""
    web: "Web"
    """What `fetch` fetches by."""
    tracer: Tracer
    callback_web: "Web"
    """Tells callback URLs; also checks them when they are given."""
    chunker: str

    async def open_collection(
        self, name: str, *, language: str | None = None, strict: bool = False
    ) -> Collection:
        """Open a collection, made on first use. Raises CollectionMismatch, InvalidInput."""
        found = await self.collections.open(
            name,
            embedding=self.embedder.spec,
            chunker=self.chunker,
            language=language,
            strict=strict,
        )
        self.pipelines.learn(found)
        return found

    async def embedding_of(self, collection: str) -> Embedding:
        """Return the embedding model that a collection has now.

        Raises CollectionNotFound, CollectionMismatch where it is not the configured one though
        nobody has moved it, or can't be had here; ModelUnavailable.
        """
        found = await self.collections.get(collection)
        if found.generation == 1:
            require_same_embedding(collection, found.embedding, self.embedder.spec)
        return await self.pipelines.embedding_of(found.embedding)

    def nodes(self, collection: str) -> "PostgresNodes":
        """Return a collection's rows as LlamaIndex nodes; it is made on first use."""
        from ragcore.adapters.postgres.nodes import PostgresNodes

        return PostgresNodes(
            self.pool, collection, prepare=lambda: self.open_collection(collection)
        )


@dataclass(frozen=True, slots=True)
class CollectionEmbedding:
    """The embedding model of a collection, whichever that is at each call."""

    runtime: Runtime
    collection: str

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Do what `ports.Embedder` says; also raises CollectionMismatch."""
        return await (await self._now()).embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        """Likewise."""
        return await (await self._now()).embed_query(text)

    async def _now(self) -> Embedding:
        try:
            return await self.runtime.embedding_of(self.collection)
        except CollectionNotFound:  # it would be made with the configured one
            return self.runtime.embedder


@asynccontextmanager
async def open_runtime(
    settings: Settings,
    *,
    embedder: Embedder | None = None,
    other_embedders: Sequence[Embedder] = (),
    llm: "LLM | None" = None,
    reranker: "Reranker | BaseNodePostprocessor | None" = None,
    doorbell: Doorbell | None = None,
    meter: Meter = UNMETERED,
) -> AsyncIterator[Runtime]:
    """Open the database, the blob store and the models, and close them in reverse.

    Starts the embedded PostgreSQL, or joins the one that runs, when no database is configured.
    `embedder`, `llm` and `reranker` replace the configured ones and stay their owner's, and so do
    `other_embedders`, which collections may be moved to. Raises
    Unsupported or one of its children when this machine or the configuration lacks something,
    Unavailable when a server is away.
    """
    from ragcore.adapters.docling.formats import refuse_type, refuse_unreadable
    from ragcore.adapters.docling.rendering import PageRenderer
    from ragcore.adapters.models.extractive import ExtractiveAnswerer
    from ragcore.adapters.postgres.audit import PostgresAudit
    from ragcore.adapters.postgres.cache import PostgresCachedTexts, PostgresEmbeddingCache
    from ragcore.adapters.postgres.callbacks import PostgresCallbacks
    from ragcore.adapters.postgres.catalog import PostgresCatalog
    from ragcore.adapters.postgres.chunks import PostgresChunks
    from ragcore.adapters.postgres.collections import PostgresCollections
    from ragcore.adapters.postgres.inventory import PostgresInventory
    from ragcore.adapters.postgres.migrate import migrate
    from ragcore.adapters.postgres.pool import open_pool
    from ragcore.adapters.postgres.reindex import PostgresGenerations
    from ragcore.adapters.postgres.retention import PostgresRetention
    from ragcore.adapters.postgres.sources import PostgresSources
    from ragcore.adapters.room import Room
    from ragcore.adapters.web import Web
    from ragcore.adapters.work_directory import work_directory

    async with AsyncExitStack() as stack:
        langfuse = await _langfuse(settings, stack)
        tracer: Tracer = langfuse or UNTRACED
        database_url = await _database_url(settings, stack)
        await migrate(database_url)
        pool = await stack.enter_async_context(open_pool(database_url, size=settings.database_pool))
        catalog, collections = PostgresCatalog(pool), PostgresCollections(pool)
        chunks = PostgresChunks(pool, exact_rows=settings.search.exact_rows)
        blobs = await _blobs(settings, stack)
        open_ollama_too = partial(
            _ollama, settings, stack, is_service=doorbell is not None, meter=meter
        )
        uses_ollama = "ollama" in (settings.embedding.provider, settings.generation.provider)
        ollama = await open_ollama_too() if uses_ollama else None
        model = embedder or await open_embedder(settings, ollama)
        if embedder is None:
            stack.push_async_callback(model.aclose)
        cache = PostgresEmbeddingCache(pool)
        remembering = partial(
            Embedding,
            cache=cache,
            batch_tokens=settings.embedding.batch_tokens,
            concurrency=settings.embedding.concurrency,
            meter=meter,
        )
        embedding = remembering(
            model, patience=Patience() if ollama is None else _PATIENCE_WITH_OLLAMA
        )
        # Beside the blobs, where fetching a file is a link and not a copy.
        directory = await stack.enter_async_context(work_directory(settings.data_dir / "work"))
        converter = open_converter(settings, meter=meter)
        stack.push_async_callback(converter.aclose)
        reader = await asyncio.to_thread(lambda: converter.fingerprint)
        pipelines = Pipelines(
            embedding,
            chunking=Chunking(
                name=_CHUNKER,
                default_tokens=settings.chunking.max_tokens,
                fingerprint=lambda chunker, spec: pipeline_fingerprint(f"{reader}|{chunker}", spec),
            ),
            open_model=_OtherModels(settings, stack, ollama, open_ollama_too, remembering),
            given=[remembering(other) for other in other_embedders],
        )
        configured = pipelines.configured
        room = Room(settings.data_dir, min_free_bytes=settings.disk.min_free_mb * 2**20)
        submit = Submit(
            catalog=catalog,
            blobs=blobs,
            doorbell=doorbell,
            fingerprint=configured.fingerprint,
            moved_to=pipelines.fingerprint_of,
            max_bytes=settings.conversion.max_file_mb * 2**20,
            require_room=room.require,
        )
        buckets = open_buckets(settings)
        stack.push_async_callback(buckets.aclose)
        sources = PostgresSources(pool)
        generations = PostgresGenerations(pool)
        ingest = Ingest(
            catalog=catalog,
            collections=collections,
            blobs=blobs,
            converter=converter,
            embedding=embedding,
            directory=directory,
            fingerprint=configured.fingerprint,
            chunker=configured.chunker,
            max_tokens=configured.max_tokens,
            tokenizer=configured.tokenizer,
            pipelines=pipelines,
            generations=generations,
            fetch_object=FetchBucketObject(buckets=buckets, sources=sources, submit=submit),
        )
        work = Work(catalog=catalog, ingest=ingest, owner=_owner(), tracer=tracer)
        extractive = ExtractiveAnswerer(model, questions=embedding)
        generation = _generation(settings, extractive, stack, llm, langfuse, ollama=ollama)
        reranking = await _reranking(settings, generation, stack, reranker)
        forget = Forget(
            catalog=catalog, collections=collections, blobs=blobs, cached=PostgresCachedTexts(pool)
        )
        audit, retention = PostgresAudit(pool), PostgresRetention(pool)
        callbacks = PostgresCallbacks(pool)
        keys = _key_ring(settings, pool)
        stack.push_async_callback(keys.aclose)
        web = Web(**settings.fetch.model_dump())
        stack.push_async_callback(web.aclose)
        callback_web = Web(
            allowed_hosts=settings.callback_hosts,
            timeout_seconds=settings.callbacks.timeout_seconds,
        )
        stack.push_async_callback(callback_web.aclose)
        sync = Sync(
            buckets=buckets,
            sources=sources,
            submit=submit,
            forget=forget,
            audit=audit,
            work=work,
            directory=directory,
            meter=meter,
        )
        scheduled = scheduled_syncs(settings)
        for each in scheduled:
            buckets.require(each.order.bucket, collection=each.order.collection)
        open_collection = partial(
            collections.open, embedding=embedding.spec, chunker=configured.chunker
        )
        search = Search(
            chunks=chunks,
            embedder=embedding,
            embedder_of=pipelines.embedding_of,
            candidates=settings.search.candidates,
            merge_neighbours=settings.search.merge_neighbours,
            rewriter=_rewriter(settings, generation),
            reranker=reranking,
            reranked=settings.rerank.passages,
            meter=meter,
        )
        yield Runtime(
            settings=settings,
            database_url=database_url,
            pool=pool,
            catalog=catalog,
            collections=collections,
            chunks=chunks,
            blobs=blobs,
            converter=converter,
            model=model,
            cache=cache,
            embedder=embedding,
            extractive=extractive,
            answerer=generation.answerer,
            condenser=generation.condenser,
            require_language_models=generation.require_models,
            submit=submit,
            fetch=Fetch(
                pages=web,
                catalog=catalog,
                blobs=blobs,
                submit=submit,
                refuse_type=refuse_type,
                refuse_unreadable=refuse_unreadable,
            ),
            work=work,
            forget=forget,
            buckets=buckets,
            sources=sources,
            sync=sync,
            hear_events=HearEvents(sync, scheduled, open_collection),
            start_due_syncs=StartDueSyncs(sync, scheduled, open_collection),
            sweep_orphans=SweepOrphans(catalog=catalog, blobs=blobs),
            reconcile=Reconcile(
                inventory=PostgresInventory(pool),
                catalog=catalog,
                blobs=blobs,
                submit=submit,
                sync=sync,
            ),
            reindex=Reindex(
                generations=generations,
                collections=collections,
                blobs=blobs,
                converter=converter,
                pipelines=pipelines,
                search=replace(search, meter=UNMETERED),
                work=work,
                directory=directory,
                at_once=settings.conversion.processes + 1,  # one is embedded while others are cut
                kept=timedelta(days=settings.reindex.keep_days),
            ),
            pipelines=pipelines,
            search=search,
            draw_page=DrawPage(
                blobs=blobs,
                renderer=PageRenderer(
                    max_image_megapixels=settings.conversion.max_image_megapixels
                ),
                directory=directory,
            ),
            keys=keys,
            audit=audit,
            callbacks=callbacks,
            deliver_callbacks=_deliveries(settings, callbacks, callback_web.post, meter),
            retention=retention,
            retain=Retain(
                catalog=catalog,
                retention=retention,
                forget=forget,
                finished_jobs=_days(settings.retention.finished_jobs_days),
                audit_trail=_days(settings.retention.audit_days),
            ),
            room=room,
            web=web,
            tracer=tracer,
            callback_web=callback_web,
            chunker=configured.chunker,
        )


# --- single resources, for callers that need no more ---------------------------------------


@asynccontextmanager
async def open_doorbell(settings: Settings) -> "AsyncIterator[RedisDoorbell]":
    """Open the doorbell of the services.

    Starts the embedded Valkey, or joins the one that runs, when no Redis is configured. Does not
    fail when a configured one is away: ringing does.
    """
    try:
        from ragcore.adapters.redis.doorbell import RedisDoorbell
    except ImportError as error:
        raise MissingExtra(
            f"the queue can't be loaded ({error}): `pip install 'ragcore[worker]'`"
        ) from error
    async with AsyncExitStack() as stack:
        doorbell = RedisDoorbell(await _redis_url(settings, stack))
        stack.push_async_callback(doorbell.aclose)
        yield doorbell


@asynccontextmanager
async def open_limits(settings: Settings) -> "AsyncIterator[RedisLimits]":
    """Open the counters of requests, in the Redis of `open_doorbell`; it may be away."""
    try:
        from ragcore.adapters.redis.limits import RedisLimits
    except ImportError as error:
        raise MissingExtra(
            f"requests can't be counted ({error}): `pip install 'ragcore[api]'`"
        ) from error

    async with AsyncExitStack() as stack:
        limits = RedisLimits(await _redis_url(settings, stack))
        stack.push_async_callback(limits.aclose)
        yield limits


@asynccontextmanager
async def open_keys(settings: Settings) -> AsyncIterator[KeyRing]:
    """Open the API keys, and nothing of models."""
    async with AsyncExitStack() as stack:
        keys = _key_ring(settings, await _small_pool(settings, stack))
        stack.push_async_callback(keys.aclose)
        yield keys


@asynccontextmanager
async def open_audit(settings: Settings) -> AsyncIterator[Audit]:
    """Open the audit trail, and nothing of models."""
    from ragcore.adapters.postgres.audit import PostgresAudit

    async with AsyncExitStack() as stack:
        yield PostgresAudit(await _small_pool(settings, stack))


@asynccontextmanager
async def open_catalog(settings: Settings) -> AsyncIterator[Catalog]:
    """Open documents and jobs, and nothing of models: they may be away."""
    from ragcore.adapters.postgres.catalog import PostgresCatalog

    async with AsyncExitStack() as stack:
        yield PostgresCatalog(await _small_pool(settings, stack))


@asynccontextmanager
async def open_storage(settings: Settings) -> "AsyncIterator[tuple[PostgresDump, BlobStore]]":
    """Open the content of the database and the blob store, to be backed up or restored."""
    from ragcore.adapters.postgres.dump import PostgresDump
    from ragcore.adapters.postgres.migrate import migrate

    async with AsyncExitStack() as stack:
        database_url = await _database_url(settings, stack)
        await migrate(database_url)
        yield PostgresDump(database_url), await _blobs(settings, stack)


def open_buckets(settings: Settings) -> "S3Buckets":
    """Return the configured buckets, which connect when they are first asked.

    Raises MissingExtra, and NotConfigured, also for the bucket of the stored files: ragcore would
    read its own.
    """
    from ragcore.adapters.buckets import BucketServer, S3Buckets

    servers = [
        BucketServer(
            name=name,
            url=server.url.rstrip("/"),
            buckets=server.buckets,
            access_key=_secret(server.access_key),
            secret_key=_secret(server.secret_key),
            region=server.region,
            is_virtual_style=not server.path_style,
            ca_file=server.ca_file,
            collections=server.collections,
            timeout_seconds=server.timeout_seconds,
        )
        for name, server in settings.buckets.servers.items()
    ]
    if settings.blobs_url is not None:
        own = urlsplit(settings.blobs_url.get_secret_value())
        for server in servers:
            is_same_host = urlsplit(server.url).netloc == own.netloc.rpartition("@")[2]
            if is_same_host and own.path.strip("/") in server.buckets:
                raise NotConfigured(
                    f"the bucket {own.path.strip('/')!r} holds ragcore's own files "
                    "(RAGCORE_BLOBS_URL): documents can't come from it"
                )
    return S3Buckets(servers, threads=settings.buckets.threads)


def scheduled_syncs(settings: Settings) -> Sequence[ScheduledSync]:
    """Return what the settings want kept alike. Raises InvalidInput."""
    return [
        ScheduledSync(
            name,
            bucket_order(
                f"s3://{wanted.bucket}/{wanted.prefix}",
                collection=wanted.collection or settings.collection,
                include=wanted.include,
                exclude=wanted.exclude,
                delete_missing=wanted.delete_missing,
                max_delete_share=wanted.max_delete_share,
            ),
            every_seconds=wanted.every_seconds,
        )
        for name, wanted in settings.buckets.syncs.items()
    ]


@asynccontextmanager
async def open_bucket_events(settings: Settings) -> "AsyncIterator[RedisEvents | None]":
    """Open the list that a bucket server writes its events to; None where there is none."""
    if settings.buckets.events_key is None:
        yield None
        return
    from ragcore.adapters.redis.events import RedisEvents

    async with AsyncExitStack() as stack:
        url = _secret(settings.buckets.events_url) or await _redis_url(settings, stack)
        events = RedisEvents(url, key=settings.buckets.events_key)
        stack.push_async_callback(events.aclose)
        yield events


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def open_converter(settings: Settings, *, meter: Meter = UNMETERED) -> Converter:
    """Return a converter; its children start with the first file."""
    from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter

    counters = "ragcore.adapters.models.tokenizers:load_counter"
    options = ConversionOptions(**settings.conversion.model_dump(), counters=counters)
    return DoclingConverter(options, meter=meter)


@asynccontextmanager
async def open_ollama(
    settings: Settings, *, slots: SharedSlots | None = None, meter: Meter = UNMETERED
) -> "AsyncIterator[OllamaServers]":
    """Open the way to Ollama, which connects with the first request. Raises MissingExtra."""
    from ragcore.adapters.models.ollama_servers import OllamaServers

    ollama = settings.ollama
    servers = await asyncio.to_thread(
        lambda: OllamaServers(
            ollama.addresses,
            concurrency=ollama.concurrency,
            wait_seconds=ollama.wait_seconds,
            attempts=ollama.attempts,
            failures=ollama.failures,
            pause_seconds=ollama.pause_seconds,
            slots=slots,
            meter=meter,
        )
    )
    try:
        yield servers
    finally:
        await servers.aclose()


async def _ollama(
    settings: Settings, stack: AsyncExitStack, *, is_service: bool, meter: Meter
) -> "OllamaServers":
    """Open Ollama, its limits shared by all processes where there is a Redis."""
    slots = None
    if is_service or settings.redis_url is not None:
        try:
            from ragcore.adapters.redis.slots import RedisSlots
        except ImportError as error:
            raise MissingExtra(
                f"limits can't be shared ({error}): `pip install 'ragcore[worker]'`"
            ) from error
        slots = RedisSlots(await _redis_url(settings, stack))
        stack.push_async_callback(slots.aclose)
    return await stack.enter_async_context(open_ollama(settings, slots=slots, meter=meter))


async def open_embedder(settings: Settings, ollama: "OllamaServers | None" = None) -> Embedder:
    """Return the configured embedding model; a bundled one loads with its first text.

    `ollama` is asked where it is the provider, and must outlive the model.
    """
    embedding = settings.embedding
    if embedding.provider == "ollama":
        from ragcore.adapters.models.ollama import OllamaEmbedder

        assert ollama is not None  # it is open where it is the provider
        return await OllamaEmbedder.open(
            ollama,
            model=embedding.model,
            query_prefix=embedding.query_prefix,
            document_prefix=embedding.document_prefix,
            tokenizer_file=embedding.tokenizer_file,
            max_tokens=embedding.max_tokens,
            timeout_seconds=embedding.timeout_seconds,
        )
    from ragcore.adapters.models.bundled import BundledEmbedder

    return BundledEmbedder(threads=embedding.threads, engine=embedding.engine)


class _OtherModels:
    """Opens models that collections were moved to, or are to be; they are closed with the rest."""

    def __init__(
        self,
        settings: Settings,
        stack: AsyncExitStack,
        ollama: "OllamaServers | None",
        open_servers: "Callable[[], Awaitable[OllamaServers]]",
        remembering: Callable[..., Embedding],
    ) -> None:
        self._settings = settings
        self._stack = stack
        self._ollama = ollama
        self._open_servers = open_servers
        self._remembering = remembering

    async def __call__(self, model: str, spec: EmbeddingSpec | None) -> Embedding:
        """Do what `pipelines.OpenModel` says."""
        provider, _, name = model.partition(":")
        if model == _BUNDLED:
            embedder = await open_embedder(self._settings_of("bundled", None, spec))
        elif provider == "ollama" and name:
            self._ollama = self._ollama or await self._open_servers()
            embedder = await open_embedder(self._settings_of("ollama", name, spec), self._ollama)
        else:
            raise InvalidInput(
                f"{model!r} is no embedding model that can be had here: name {_BUNDLED!r}, or"
                " one of Ollama's as 'ollama:NAME'"
            )
        self._stack.push_async_callback(embedder.aclose)
        patience = _PATIENCE_WITH_OLLAMA if provider == "ollama" else Patience()
        return self._remembering(embedder, patience=patience)

    def _settings_of(
        self, provider: Literal["bundled", "ollama"], name: str | None, spec: EmbeddingSpec | None
    ) -> Settings:
        """Return the settings with another model: what is configured holds for its own alone."""
        embedding = self._settings.embedding.model_copy(
            update={
                "provider": provider,
                "model": name,
                "query_prefix": None if spec is None else spec.query_prefix,
                "document_prefix": None if spec is None else spec.document_prefix,
                "tokenizer_file": None,
                "max_tokens": None if spec is None else spec.max_tokens,
            }
        )
        return self._settings.model_copy(update={"embedding": embedding})


def _key_ring(settings: Settings, pool: "Pool") -> KeyRing:
    from ragcore.adapters.postgres.keys import PostgresKeys

    admin_key = settings.access.admin_key
    return KeyRing(
        PostgresKeys(pool), admin_key=None if admin_key is None else admin_key.get_secret_value()
    )


def _deliveries(
    settings: Settings, callbacks: Callbacks, post: Post, meter: Meter
) -> DeliverCallbacks:
    secret = settings.callbacks.secret
    return DeliverCallbacks(
        callbacks=callbacks,
        post=post,
        secret=None if secret is None else secret.get_secret_value().encode(),
        attempts=settings.callbacks.attempts,
        lease=timedelta(seconds=30 + 2 * settings.callbacks.timeout_seconds),
        meter=meter,
    )


async def _langfuse(settings: Settings, stack: AsyncExitStack) -> "LangfuseTracer | None":
    """Return who traces; None where no Langfuse is configured, and nothing of it is imported."""
    langfuse = settings.langfuse
    connection = langfuse_connection(settings)
    if connection is None:
        return None
    from ragcore.adapters.langfuse.prices import Price
    from ragcore.adapters.langfuse.tracing import Options, open_tracer

    options = Options(
        connection,
        content=langfuse.content,
        masks=langfuse.masks,
        secrets=settings.secrets(),
        sample=langfuse.sample,
        environment=langfuse.environment,
        prices={model: Price(it.input, it.output) for model, it in langfuse.prices.items()},
    )
    return await stack.enter_async_context(open_tracer(options))


def langfuse_connection(settings: Settings) -> "Connection | None":
    """Return how Langfuse is reached; None: it is not configured. Raises NotConfigured."""
    langfuse = settings.langfuse
    if langfuse.secret_key is None:
        return None
    from ragcore.adapters.langfuse.connection import Connection

    return Connection(
        url=langfuse.url,
        public_key=langfuse.public_key,
        secret_key=langfuse.secret_key.get_secret_value(),
        timeout_seconds=langfuse.timeout_seconds,
    )


def _prompts(
    settings: Settings, stack: AsyncExitStack, langfuse: "LangfuseTracer | None"
) -> Prompts:
    """Return the prompts of files, and over them those of Langfuse when it is to manage them."""
    from ragcore.adapters.prompts import FilePrompts, ManagedPrompts

    files = FilePrompts.read(settings.generation.prompts_dir)
    if langfuse is None or not settings.langfuse.prompts:
        return files
    from ragcore.adapters.langfuse.prompts import fetch_prompts

    fetch = partial(
        fetch_prompts, langfuse.options.connection, label=settings.langfuse.prompt_label
    )
    managed = ManagedPrompts(files, fetch, used=langfuse.note_prompt)
    managed.keep_fresh(every_seconds=settings.langfuse.prompts_every_seconds)
    stack.callback(managed.close)
    return managed


async def _database_url(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    from ragcore.embedded import embedded_servers

    servers = await stack.enter_async_context(embedded_servers(settings.data_dir, valkey=False))
    return servers.database_url


async def _small_pool(settings: Settings, stack: AsyncExitStack) -> "Pool":
    """Open the database, migrated, for a command that needs no more of it than a query."""
    from ragcore.adapters.postgres.migrate import migrate
    from ragcore.adapters.postgres.pool import open_pool

    database_url = await _database_url(settings, stack)
    await migrate(database_url)
    return await stack.enter_async_context(open_pool(database_url, size=1))


async def _redis_url(settings: Settings, stack: AsyncExitStack) -> str:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    from ragcore.embedded import embedded_servers

    servers = await stack.enter_async_context(embedded_servers(settings.data_dir, postgres=False))
    return servers.redis_url


async def _blobs(settings: Settings, stack: AsyncExitStack) -> BlobStore:
    if settings.blobs_url is None:
        from ragcore.adapters.blobs.folder import FolderBlobs

        return FolderBlobs(settings.data_dir / "blobs")
    from ragcore.adapters.blobs.s3 import S3Blobs

    blobs = S3Blobs.from_url(settings.blobs_url.get_secret_value())
    stack.push_async_callback(blobs.aclose)
    await blobs.prepare()
    return blobs


def open_language_models(settings: Settings, ollama: "OllamaServers") -> "OllamaChats":
    """Return the configured language models, which connect when they are first asked."""
    from ragcore.adapters.models.chat import OllamaChats

    generation = settings.generation
    return OllamaChats(
        ollama,
        model=generation.model,
        models=generation.models,
        collection_models=generation.collection_models,
        besides=() if settings.rerank.model is None else (settings.rerank.model,),
        context_tokens=generation.context_tokens,
        temperature=generation.temperature,
        keep_alive=generation.keep_alive,
    )


class _LanguageModels(Protocol):
    """Who gives models that write so much in so long."""

    def writing(
        self, *, answer_tokens: int, timeout_seconds: float, model: str | None = None
    ) -> "ChatModels":
        """Return the configured models, or a single one, whatever the language."""
        ...


@dataclass(frozen=True, slots=True)
class _Generation:
    """Who words answers, and who else a language model helps."""

    answerer: Answerer
    condenser: Condenser | None = None
    require_models: Callable[[], Awaitable[None]] | None = None
    models: _LanguageModels | None = None
    """None: no language model is configured."""
    prompts: Prompts | None = None


def _generation(
    settings: Settings,
    extractive: Answerer,
    stack: AsyncExitStack,
    llm: "LLM | None",
    langfuse: "LangfuseTracer | None",
    *,
    ollama: "OllamaServers | None",
) -> _Generation:
    """Return who words answers: a language model, or the passages themselves."""
    generation = settings.generation
    if llm is None and generation.provider == "none":
        return _Generation(extractive)
    from ragcore.adapters.models.chat import estimated_tokens
    from ragcore.adapters.models.generated import GeneratedAnswerer, GeneratedCondenser

    prompts = _prompts(settings, stack, langfuse)
    models: _LanguageModels
    require_models = None
    if llm is not None:
        from ragcore.adapters.models.llama_chats import LlamaIndexChats

        models = LlamaIndexChats(llm)
    else:
        assert ollama is not None  # it is open where it is the provider
        models = chats = open_language_models(settings, ollama)
        require_models = chats.require
    answerer = GeneratedAnswerer(
        models.writing(
            answer_tokens=generation.answer_tokens, timeout_seconds=generation.timeout_seconds
        ),
        prompts=prompts,
        fallback=extractive,
        count_tokens=estimated_tokens,
        max_prompt_tokens=generation.context_tokens - generation.answer_tokens,
        is_strict=generation.strict,
    )
    condenser = GeneratedCondenser(
        models.writing(
            answer_tokens=_SHORT_TEXT_TOKENS,
            timeout_seconds=min(generation.timeout_seconds, _CONDENSING_SECONDS),
        ),
        prompts=prompts,
        count_tokens=estimated_tokens,
        max_prompt_tokens=generation.context_tokens - _SHORT_TEXT_TOKENS,
    )
    return _Generation(
        answerer,
        condenser=condenser if generation.condense else None,
        require_models=require_models,
        models=models,
        prompts=prompts,
    )


def _rewriter(settings: Settings, generation: _Generation) -> Rewriter | None:
    """Return who adds other wordings of a question. Raises NotConfigured without a model."""
    search = settings.search
    if not search.rewrites:
        return None
    if generation.models is None or generation.prompts is None:
        raise NotConfigured(
            "RAGCORE_SEARCH__REWRITES asks a language model: set RAGCORE_GENERATION__PROVIDER"
        )
    from ragcore.adapters.models.chat import estimated_tokens
    from ragcore.adapters.models.rewriting import GeneratedRewriter

    return GeneratedRewriter(
        generation.models.writing(
            answer_tokens=_SHORT_TEXT_TOKENS, timeout_seconds=search.rewrite_timeout_seconds
        ),
        prompts=generation.prompts,
        count=search.rewrites,
        count_tokens=estimated_tokens,
        max_prompt_tokens=settings.generation.context_tokens - _SHORT_TEXT_TOKENS,
    )


async def _reranking(
    settings: Settings,
    generation: _Generation,
    stack: AsyncExitStack,
    given: "Reranker | BaseNodePostprocessor | None",
) -> Reranker | None:
    """Return who orders passages anew. Raises NotConfigured for one that can't be made."""
    rerank = settings.rerank
    if given is not None:
        return await asyncio.to_thread(as_reranker, given, rerank.timeout_seconds)
    if rerank.by == "none":
        return None
    if rerank.by == "language_model":
        return _model_reranker(settings, generation)
    if rerank.by == "cross_encoder":
        from ragcore.adapters.models.reranking import CrossEncoderReranker

        if rerank.directory is None:
            raise NotConfigured("a cross-encoder is read from RAGCORE_RERANK__DIRECTORY: set it")
        encoder = await asyncio.to_thread(
            CrossEncoderReranker,
            rerank.directory,
            threads=rerank.threads,
            max_tokens=rerank.max_tokens,
            timeout_seconds=rerank.timeout_seconds,
        )
        stack.push_async_callback(asyncio.to_thread, encoder.close)
        return encoder
    if rerank.postprocessor is None:
        raise NotConfigured("name a class by RAGCORE_RERANK__POSTPROCESSOR: `package.module:Name`")
    from ragcore.llamaindex.postprocessors import postprocessor_at

    made = await asyncio.to_thread(postprocessor_at, rerank.postprocessor, rerank.options)
    return as_reranker(made, rerank.timeout_seconds)


def _model_reranker(settings: Settings, generation: _Generation) -> Reranker:
    if generation.models is None or generation.prompts is None:
        raise NotConfigured(
            "RAGCORE_RERANK__BY language_model asks one: set RAGCORE_GENERATION__PROVIDER"
        )
    from ragcore.adapters.models.chat import estimated_tokens
    from ragcore.adapters.models.reranking import ModelReranker

    rerank = settings.rerank
    return ModelReranker(
        generation.models.writing(
            answer_tokens=_SHORT_TEXT_TOKENS,
            timeout_seconds=rerank.timeout_seconds,
            model=rerank.model,
        ),
        prompts=generation.prompts,
        count_tokens=estimated_tokens,
        max_prompt_tokens=settings.generation.context_tokens - _SHORT_TEXT_TOKENS,
    )


def as_reranker(given: "Reranker | BaseNodePostprocessor", timeout_seconds: float) -> Reranker:
    """Return the reranker itself, or a LlamaIndex node postprocessor made into one."""
    if hasattr(given, "rerank"):
        return cast("Reranker", given)
    from ragcore.llamaindex.postprocessors import PostprocessorReranker

    return PostprocessorReranker(given, timeout_seconds=timeout_seconds)


def _days(days: int) -> timedelta | None:
    """Return how long something is kept; 0 days in the settings: for ever."""
    return timedelta(days=days) if days else None


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


async def as_embedder(model: "Embedder | BaseEmbedding", settings: Settings) -> Embedder:
    """Return the model itself, or a LlamaIndex `BaseEmbedding` made into an embedder.

    Raises ModelUnavailable or Rejected when the model can't embed a word.
    """
    if hasattr(model, "embed_documents"):
        return cast("Embedder", model)
    from ragcore.adapters.models.llama import LlamaIndexEmbedder

    return await LlamaIndexEmbedder.open(model, max_tokens=settings.embedding.max_tokens or 512)
