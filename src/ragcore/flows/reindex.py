"""One collection → the same collection under another embedding model or chunker.

Its documents are cut and embedded once more, from what was kept of reading them, into a generation
of their own, while the one before goes on answering; then the two are exchanged. Written so that it
may be killed at any line: what is done is recorded document by document, in the transaction that
does it, and whoever takes the job over goes on with the rest.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from ragcore.errors import (
    BlobNotFound,
    Busy,
    InvalidInput,
    LeaseLost,
    RagError,
    StorageFull,
)
from ragcore.flows.ingest import Report, fitness
from ragcore.flows.pipelines import Pipeline, Pipelines
from ragcore.flows.search import Search
from ragcore.flows.submit import docling_key, markdown_key, original_key
from ragcore.flows.work import Work
from ragcore.model import Collection, ConvertedDocument, Generation, Job, JobFailure, Passage
from ragcore.ports import (
    BlobStore,
    Collections,
    ConversionRequest,
    Converter,
    Fingerprints,
    Generations,
    IndexedChunks,
    Lack,
    PendingDocument,
    ReindexLease,
    ReindexOrder,
    SwitchMode,
)
from ragcore.steps.fingerprints import are_comparable
from ragcore.steps.rankings import RankChange, Ranking, rank_change, summary
from ragcore.steps.sentences import sentence_spans

log = logging.getLogger(__name__)

MOST_QUESTIONS: Final = 100
_DRAWN_QUESTIONS: Final = 20
_LONGEST_QUESTION: Final = 300
"""Characters of a question that is drawn."""
_COMPARED: Final = 10
"""Passages of each answer that are compared."""
_TOLD_QUESTIONS: Final = 20
_TOLD_PROBLEMS: Final = 100
_TOLD_WARNINGS: Final = 20

_PAGE: Final = 64
"""Documents, or nodes, that are looked up at a time."""
_NOTE_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.2
_BUSY_SECONDS: Final = 5.0
_BUSY_TRIES: Final = 120


@dataclass(frozen=True, slots=True)
class Reindex:
    """Start, do, finish and undo reindexes."""

    generations: Generations
    collections: Collections
    blobs: BlobStore
    converter: Converter
    pipelines: Pipelines
    search: Search
    work: Work
    directory: Path
    """Where files rest while they are worked on."""
    at_once: int = 2
    """Documents under way at the same time."""
    kept: timedelta = timedelta(days=7)
    """How long the generation before is kept, and kept true, for going back."""

    # --- on request ------------------------------------------------------------------------

    async def start(
        self,
        collection: str,
        *,
        embedding_model: str | None = None,
        max_tokens: int | None = None,
        questions: Sequence[str] = (),
        switch: SwitchMode = "auto",
        submitted_by: str,
        request_id: str | None = None,
    ) -> Job:
        """Queue the move of a collection to another model (`provider:name`) or length of chunks.

        What is not given stays as it is; with another model chunks get the configured length. The
        questions are what old and new answers are compared on; without any, some are drawn from the
        collection. Raises InvalidInput, CollectionNotFound, Conflict when there is nothing to
        change, ReindexUnderWay, ModelUnavailable.
        """
        if len(questions) > MOST_QUESTIONS:
            raise InvalidInput(f"{len(questions)} questions are too many: at most {MOST_QUESTIONS}")
        found = await self.collections.get(collection)
        embedding = await (
            self.pipelines.embedding_of(found.embedding)
            if embedding_model is None
            else self.pipelines.named(embedding_model)
        )
        planned = self.pipelines.chunking.planned(embedding, max_tokens=max_tokens)
        order = ReindexOrder(
            collection=collection,
            embedding=embedding.spec,
            chunker=planned.chunker,
            questions=tuple(question for text in questions if (question := text.strip())),
            switch=switch,
        )
        return await self.generations.start(order, submitted_by=submitted_by, request_id=request_id)

    async def state(self, collection: str) -> tuple[Collection, Sequence[Generation]]:
        """Return what answers, and the generations beside it. Raises CollectionNotFound."""
        return await self.collections.get(collection), await self.generations.of(collection)

    async def switch(
        self,
        collection: str,
        *,
        accept_loss: bool = False,
        submitted_by: str,
        request_id: str | None = None,
    ) -> Job:
        """Queue the switch to a generation that is ready; what it lacks is filled in before.

        With `accept_loss` also when documents could not be taken over, which then are not found
        any more. Raises GenerationNotFound, ReindexUnderWay.
        """
        return await self.generations.switch_later(
            collection, accept_loss=accept_loss, submitted_by=submitted_by, request_id=request_id
        )

    async def roll_back(
        self,
        collection: str,
        *,
        accept_loss: bool = False,
        submitted_by: str,
        request_id: str | None = None,
    ) -> Collection:
        """Have the generation before answer again, at once; called once more it undoes that.

        Raises GenerationNotFound, ReindexUnderWay, Busy, and RollbackLoses for what the generation
        lacks, unless that is accepted.
        """
        now = await self.collections.get(collection)

        def fingerprints(before: Generation) -> Fingerprints:
            return self._fingerprints(now, before)

        return await self.generations.roll_back(
            collection,
            fingerprints,
            accept_loss=accept_loss,
            submitted_by=submitted_by,
            request_id=request_id,
        )

    async def discard(
        self, collection: str, *, submitted_by: str, request_id: str | None = None
    ) -> None:
        """Give up a reindex that runs, or was filled and not switched to.

        Raises GenerationNotFound.
        """
        await self.generations.discard(collection, submitted_by=submitted_by, request_id=request_id)

    # --- in the background -----------------------------------------------------------------

    async def next(
        self, *, job_id: UUID | None = None, on_progress: Callable[[Job], None] | None = None
    ) -> Job | None:
        """Claim the oldest waiting reindex, or that one, and do it; None: there is none."""
        work = self.work
        lease = await self.generations.claim(owner=work.owner, lease=work.lease, job_id=job_id)
        if lease is None:
            return None
        return await work.finish(
            lease, lambda report: self._do(lease, report), on_progress=on_progress
        )

    async def finish(self, job: Job, *, on_progress: Callable[[Job], None] | None = None) -> Job:
        """Do a job that was queued, unless a worker is faster, and return its end.

        Cancelling the call cancels the job.
        """
        catalog = self.work.catalog
        try:
            while not job.is_finished:
                ran = await self.next(job_id=job.job_id, on_progress=on_progress)
                if ran is None:
                    await catalog.release_expired()
                job = ran or await catalog.job(job.job_id)
                if on_progress is not None:
                    on_progress(job)
                if not job.is_finished:
                    await asyncio.sleep(_LOOK_SECONDS)
        except asyncio.CancelledError:
            await asyncio.shield(catalog.cancel(job.job_id))
            raise
        await self.tidy()
        return job

    async def do_waiting(self) -> int:
        """Do all reindexes that wait, one after another; return how many there were."""
        done = 0
        while await self.next() is not None:
            done += 1
        return done

    async def tidy(self) -> int:
        """Drop generations that were kept long enough, or left behind; return how many."""
        return await self.generations.drop_outdated(kept=self.kept)

    # --- the job ---------------------------------------------------------------------------

    async def _do(self, lease: ReindexLease, report: Report) -> None:
        order = lease.order
        generation = await self.generations.begin(lease)
        collection = await self.collections.get(order.collection)
        pipeline = await self.pipelines.of(generation.embedding, generation.chunker)
        account = _Account(self.generations, lease, generation, report)
        account.go_on_from(lease.job)
        compared = False
        while True:
            await self._fill(lease, collection, generation, pipeline, account)
            if not compared:
                await self._try_to_compare(order, collection, generation, account)
                compared = True
            await account.tell_problems()
            if order.switch == "manual":
                await self.generations.finish(lease, generation)
                return
            lack = await self._switch(lease, collection, generation)
            if not lack.nodes and lack.documents == lack.failed:
                if lack.failed and not order.accept_loss:
                    # Nobody has been asked whether these may be lost.
                    await self.generations.finish(lease, generation)
                return

    async def _switch(
        self, lease: ReindexLease, collection: Collection, generation: Generation
    ) -> Lack:
        """Switch once readers make way: a backup may take minutes, which is no failure."""
        fingerprints = self._fingerprints(collection, generation)
        for _ in range(_BUSY_TRIES):
            try:
                return await self.generations.switch(lease, generation, fingerprints)
            except Busy as error:
                log.warning("not switched yet: %s", error)
                await asyncio.sleep(_BUSY_SECONDS)
        return await self.generations.switch(lease, generation, fingerprints)

    def _fingerprints(self, before: Collection, after: Generation) -> Fingerprints:
        fingerprint = self.pipelines.chunking.fingerprint
        return Fingerprints(
            before=fingerprint(before.chunker, before.embedding),
            after=fingerprint(after.chunker, after.embedding),
        )

    # --- filling ---------------------------------------------------------------------------

    async def _fill(
        self,
        lease: ReindexLease,
        collection: Collection,
        generation: Generation,
        pipeline: Pipeline,
        account: "_Account",
    ) -> None:
        """Take over every document and node, those that came meanwhile included."""
        await account.count()

        async def take_over(document: PendingDocument) -> None:
            warnings = await self._take_over(lease, collection, generation, pipeline, document)
            await account.one_more(warnings)

        while True:
            after: str | None = None
            while page := await self.generations.pending(generation, after=after, limit=_PAGE):
                after = page[-1].document_id
                await _in_lanes(page, take_over, lanes=self.at_once)
            if after is None:
                break
        is_same_model = are_comparable(collection.embedding, generation.embedding)
        while nodes := await self.generations.pending_nodes(generation, limit=_PAGE):
            vectors = None  # whoever added them may have embedded more than their text
            if not is_same_model:
                vectors, _ = await pipeline.embedding.documents([node.text for node in nodes])
            await self.generations.fill_nodes(lease, generation, nodes, vectors)
            await account.more_nodes(len(nodes))

    async def _take_over(
        self,
        lease: ReindexLease,
        collection: Collection,
        generation: Generation,
        pipeline: Pipeline,
        document: PendingDocument,
    ) -> Sequence[str]:
        """Return warnings about it; one that can't be taken over is recorded as such."""
        try:
            content, warnings = await self._content(collection, pipeline, document)
        except RagError as error:
            if error.retryable or isinstance(error, LeaseLost):
                raise
            log.warning("document %r can't be taken over: %s", document.document_id, error)
            failure = JobFailure(error.code, str(error).replace("\0", " "), retryable=False)
            await self.generations.skip(lease, generation, document, failure)
            return ()
        await self.generations.fill(lease, generation, document, content)
        return warnings

    async def _content(
        self, collection: Collection, pipeline: Pipeline, document: PendingDocument
    ) -> tuple[IndexedChunks, Sequence[str]]:
        with self._workplace() as name:
            made = await self._cut(collection, pipeline, document, Path(name))
        unfit = fitness(collection, pipeline.embedding.spec, made.language)  # may refuse
        texts = [chunk.embedding_text for chunk in made.chunks]
        vectors, warnings = await pipeline.embedding.documents(texts)
        return IndexedChunks(made.chunks, vectors, pipeline.fingerprint), [*unfit, *warnings]

    async def _cut(
        self,
        collection: Collection,
        pipeline: Pipeline,
        document: PendingDocument,
        directory: Path,
    ) -> ConvertedDocument:
        """Cut what was kept of a document; where nothing was, read it again and keep that."""
        request = ConversionRequest(
            path=directory / "kept",
            filename=document.filename,
            mime_type=document.mime_type,
            directory=directory,
            max_tokens=pipeline.max_tokens,
            tokenizer=pipeline.tokenizer,
            prefix=pipeline.embedding.spec.document_prefix,
            seed=document.document_id,
            language=collection.language,
            is_kept=True,
        )
        try:
            await self.blobs.fetch(docling_key(document.version_id), request.path)
        except BlobNotFound:
            log.info("document %r is read again: nothing was kept of it", document.document_id)
        else:
            return await self.converter.convert(request)
        await self.blobs.fetch(original_key(document.version_id), directory / "original")
        read = await self.converter.convert(
            replace(request, path=directory / "original", is_kept=False)
        )
        for key, path in (
            (docling_key(document.version_id), read.docling_path),
            (markdown_key(document.version_id), read.markdown_path),
        ):
            if path is not None:
                await self.blobs.put_file(key, Path(path))
        return read

    def _workplace(self) -> "tempfile.TemporaryDirectory[str]":
        try:
            return tempfile.TemporaryDirectory(dir=self.directory, prefix="reindex-")
        except OSError as error:
            raise StorageFull(f"there is no room to work in: {error}") from error

    # --- comparing -------------------------------------------------------------------------

    async def _try_to_compare(
        self,
        order: ReindexOrder,
        collection: Collection,
        generation: Generation,
        account: "_Account",
    ) -> None:
        """Compare, or tell why that can't be: the model before may be why it is left."""
        try:
            await self._compare(order, collection, generation, account)
        except LeaseLost:
            raise
        except RagError as error:
            log.warning("old and new answers are not compared: %s", error)
            account.result["comparison"] = {"code": error.code, "detail": str(error)}
            await account.tell()

    async def _compare(
        self,
        order: ReindexOrder,
        collection: Collection,
        generation: Generation,
        account: "_Account",
    ) -> None:
        """Ask both generations the same, and put the comparison in the job's result."""
        asked: Mapping[str, str | None] = dict.fromkeys(order.questions)
        if not asked:
            sample = await self.generations.sample(order.collection, limit=2 * _DRAWN_QUESTIONS)
            asked = drawn_questions(sample, most=_DRAWN_QUESTIONS)
        if not asked:
            return
        # A change of the chunker makes other chunks: then documents are what can be compared.
        by_chunk = collection.chunker == generation.chunker and not any(asked.values())
        bare = replace(self.search, rewriter=None, reranker=None, merge_neighbours=False)
        new = replace(
            bare,
            chunks=self.generations.chunks(generation),
            embedder=await self.pipelines.embedding_of(generation.embedding),
            moved={},
        )
        changes, before, after = [], [], []
        for question, wanted in asked.items():
            before.append(await _ranking(bare, order.collection, question, by_chunk=by_chunk))
            after.append(await _ranking(new, order.collection, question, by_chunk=by_chunk))
            changes.append(rank_change(question, before[-1], after[-1], wanted=wanted))
        account.result["comparison"] = {
            **summary(changes, before, after),
            "compared": "chunks" if by_chunk else "documents",
            "are_drawn": not order.questions,
            "top_k": _COMPARED,
            "samples": [asdict(change) for change in _most_changed(changes)],
        }
        await account.tell()


async def _ranking(search: Search, collection: str, question: str, *, by_chunk: bool) -> Ranking:
    started = time.perf_counter()
    found = await search(question, collection=collection, top_k=_COMPARED)
    milliseconds = (time.perf_counter() - started) * 1000
    keys = (passage.chunk_id if by_chunk else passage.document_id for passage in found)
    return Ranking(tuple(dict.fromkeys(keys)), milliseconds)


def _most_changed(changes: Sequence[RankChange]) -> Sequence[RankChange]:
    ordered = sorted(changes, key=lambda change: (change.overlap, -change.moved))
    return ordered[:_TOLD_QUESTIONS]


def drawn_questions(sample: Sequence[Passage], *, most: int) -> Mapping[str, str]:
    """Return headings and first sentences of chunks as questions, each with its document's id."""
    headings = ((passage.headings[-1], passage) for passage in sample if passage.headings)
    sentences = ((_first_sentence(passage.text), passage) for passage in sample)
    taken = chain.from_iterable(zip_longest(headings, sentences))
    drawn: dict[str, str] = {}
    for text, passage in _worth_asking(taken):
        drawn.setdefault(text, passage.document_id)
        if len(drawn) == most:
            break
    return drawn


def _worth_asking(
    pairs: Iterator[tuple[str, Passage] | None],
) -> Iterator[tuple[str, Passage]]:
    for pair in pairs:
        if pair is None:
            continue
        text = " ".join(pair[0].split())[:_LONGEST_QUESTION]
        if sum(word.isalpha() for word in text.split()) >= 2:
            yield text, pair[1]


def _first_sentence(text: str) -> str:
    spans = sentence_spans(text)
    return text[slice(*spans[0])] if spans else ""


async def _in_lanes(
    documents: Sequence[PendingDocument],
    work: Callable[[PendingDocument], Awaitable[None]],
    *,
    lanes: int,
) -> None:
    """Work on so many at a time; the first failure stops the others."""
    waiting = iter(documents)

    async def lane() -> None:
        for document in waiting:
            await work(document)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(lanes, len(documents))):
            group.create_task(lane())


@dataclass(slots=True)
class _Account:
    """How far a reindex is, told about once a second."""

    generations: Generations
    lease: ReindexLease
    generation: Generation
    report: Report
    result: dict[str, Any] = field(default_factory=dict)
    total: int = 0
    done: int = 0
    nodes: int = 0
    warnings: dict[str, int] = field(default_factory=dict)
    """How many documents each is about."""
    went_on: bool = False
    told_at: float = 0.0

    def go_on_from(self, job: Job) -> None:
        """Keep the warnings of whoever worked on it before."""
        if job.result.get("generation") == self.generation.generation:
            told = job.result.get("warnings", ())
            self.warnings = {each["detail"]: each["documents"] for each in told}

    async def count(self) -> None:
        """Count anew: documents come and go meanwhile."""
        for found in await self.generations.of(self.generation.collection):
            if found.generation == self.generation.generation:
                self.total, self.done = found.documents + found.missing, found.documents
        await self.tell()

    async def one_more(self, warnings: Sequence[str]) -> None:
        self.done = min(self.done + 1, self.total)
        for warning in warnings:
            if warning in self.warnings or len(self.warnings) < _TOLD_WARNINGS:
                self.warnings[warning] = self.warnings.get(warning, 0) + 1
        self.went_on = True
        if time.monotonic() - self.told_at > _NOTE_SECONDS:
            await self.tell()

    async def more_nodes(self, count: int) -> None:
        self.nodes += count
        self.went_on = True
        await self.tell()

    async def tell_problems(self) -> None:
        skipped = await self.generations.skipped(self.generation, limit=_TOLD_PROBLEMS)
        self.result["problems"] = [
            {"document_id": document_id, "code": failure.code, "detail": failure.detail}
            for document_id, failure in skipped
        ]
        await self.count()

    async def tell(self) -> None:
        self.told_at = time.monotonic()
        self.report("embedding", self.done / self.total if self.total else 1.0)
        about = {
            "state": "filling",
            "generation": self.generation.generation,
            "embedding_model": self.generation.embedding.model,
            "chunker": self.generation.chunker,
        }
        warnings = [{"detail": text, "documents": n} for text, n in self.warnings.items()]
        self.result = {**about, **self.result, "warnings": warnings}
        counts = {"documents": self.total, "done": self.done, "nodes": self.nodes}
        await self.generations.note(
            self.lease, counts=counts, result=self.result, went_on=self.went_on
        )
