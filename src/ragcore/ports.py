"""Exactly what the flows need from outside. A port's docstring is its contract.

Each port has an adapter for the real thing. Stores, converter and embedding model also have one in
memory (`ragcore.testing.memory`) and a contract suite that both must pass.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Protocol
from uuid import UUID

from ragcore.errors import GenerationSwitched, TracingOff
from ragcore.model import (
    Answer,
    ApiKey,
    Asker,
    AuditEntry,
    BucketObject,
    Candidates,
    Chunk,
    Collection,
    ConvertedDocument,
    DeletionReceipt,
    Document,
    Drift,
    EmbeddingSpec,
    Feedback,
    Filter,
    Generation,
    Job,
    JobFailure,
    JobStatus,
    KnownObject,
    Message,
    Metadata,
    Outcome,
    PageImage,
    PageMarks,
    Passage,
    QueueState,
    ReadingReport,
    SearchMode,
    Stage,
    Vector,
    Vectors,
    Version,
)

# --- models --------------------------------------------------------------------------------


class Embedder(Protocol):
    """An embedding model. Prefixes are its own affair: callers pass bare text."""

    @property
    def spec(self) -> EmbeddingSpec: ...

    def count_tokens(self, text: str) -> int:
        """Return how many tokens `text` takes as a document, prefix and special tokens included.

        Exact where the model's tokenizer is known, otherwise an upper bound.
        """
        ...

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """Return one unit vector per text, shape (len(texts), dimension), in order.

        Raises ModelUnavailable (retry later) or Rejected (this batch can never be embedded: the
        caller bisects). Runs off the event loop.
        """
        ...

    async def embed_query(self, text: str) -> Vector:
        """Return the unit vector of a question. Raises as `embed_documents` does."""
        ...

    async def aclose(self) -> None: ...


class SharedSlots(Protocol):
    """Slots that all processes share, so that together they don't ask too much of one server."""

    async def acquire(self, resource: str, *, most: int, is_question: bool) -> Callable[[], None]:
        """Wait for a slot of `resource` and return what gives it back, which waits for nothing.

        Documents have `most` slots, a question may use one more and goes before all documents that
        wait; apart from that whoever comes first goes first. A process that dies loses its slots
        within seconds. Where the slots are kept is away: a slot is granted at once, for a process
        has a limit of its own.
        """
        ...


class EmbeddingCache(Protocol):
    """Vectors that were computed before, by the hash of what they were computed from."""

    async def get(self, model_key: str, hashes: Sequence[bytes]) -> Mapping[bytes, Vector]:
        """Return the known ones. Never fails a caller because an entry is missing."""
        ...

    async def put(self, model_key: str, vectors: Mapping[bytes, Vector]) -> None:
        """Remember them, in a short transaction of its own. Safe to repeat and to lose."""
        ...


class CachedTexts(Protocol):
    """The same vectors, by the documents whose texts they were computed from."""

    async def forget(self, collection: str, document_ids: Sequence[str] | None) -> int:
        """Remove the vectors of what these documents hold now, or all of the collection.

        Other documents with the same text are embedded anew when they come again. Returns how many
        went. In small transactions; safe to repeat and to kill. Raises StoreUnavailable.
        """
        ...


class _NothingCached:
    """A `CachedTexts` for where there is no cache."""

    async def forget(self, collection: str, document_ids: Sequence[str] | None) -> int:
        return 0


NOTHING_CACHED: Final[CachedTexts] = _NothingCached()


# --- documents in --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ConversionRequest:
    """One file to read. Nothing in it is trusted."""

    path: Path
    """The bytes, on local disk."""
    filename: str | None
    """As the caller named it: a hint for the type and the fallback title, never a path."""
    mime_type: str | None
    """As the caller said; the content decides."""
    directory: Path
    """An existing directory of the caller's own for the results."""
    max_tokens: int
    """Limit of each chunk's `embedding_text`, by the token counter named below."""
    tokenizer: str
    """Counter the child loads: `bundled`, `file:/path/tokenizer.json` or `bytes` (a bound)."""
    prefix: str = ""
    """The embedding model's document prefix: it takes tokens too."""
    seed: str = ""
    """Goes into the chunk ids, which must be unique within a collection: its document's id."""
    language: str | None = None
    """What the collection says its documents are in."""
    password: str | None = field(default=None, repr=False)
    is_kept: bool = False
    """The file is a DoclingDocument that a conversion left (`docling_path`): it is only cut again,
    and nothing is left in the directory."""


class Converter(Protocol):
    """Turns files of any readable format into chunks, in disposable processes."""

    @property
    def fingerprint(self) -> str:
        """Parser, chunker and their options in one string: another value means other chunks."""
        ...

    async def convert(
        self, request: ConversionRequest, *, progress: Callable[[Stage, float], None] | None = None
    ) -> ConvertedDocument:
        """Read one file. Deterministic, safe to repeat, and never harms another conversion.

        Raises UnsupportedFormat, DocumentTooLarge, ConversionError or one of its children.
        Cancelling the call kills the child that works on it.
        """
        ...

    async def aclose(self) -> None: ...


class PageRenderer(Protocol):
    """Draws pages of stored files, for whoever wants to see what a citation points at."""

    async def render(
        self, path: Path, *, page: int, dots_per_inch: int, directory: Path
    ) -> PageImage:
        """Draw a page, counted from 1, in a disposable process under limits of its own.

        `directory` is an existing one of the caller's for the drawing. Pages that would be too
        large are drawn smaller. Raises PageNotFound, also for formats whose pages can't be drawn,
        ConversionError and its children. Cancelling the call kills the process.
        """
        ...


class BlobStore(Protocol):
    """Files by key. Keys are made by us: `versions/<uuid>/original`, never from user input."""

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """Store a file whole or not at all, durably, and return its size in bytes.

        Written under a temporary name, synced, renamed: a kill at any line leaves the old file or
        the new one. Safe to repeat. Raises BlobsUnavailable.
        """
        ...

    async def put_file(self, key: str, path: Path) -> int:
        """Store a copy of a local file; otherwise as `put`."""
        ...

    def open(self, key: str) -> AsyncIterator[bytes]:
        """Stream a file in pieces. Raises BlobNotFound, BlobsUnavailable."""
        ...

    async def fetch(self, key: str, path: Path) -> None:
        """Copy a file to a local path. Raises BlobNotFound, BlobsUnavailable."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete all files whose key starts with `prefix` and return how many there were."""
        ...

    def list(self, prefix: str = "") -> AsyncIterator[tuple[str, float]]:
        """Yield `(key, seconds since it was written)` of every file under `prefix`."""
        ...


# --- the catalogue -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Submission:
    """One document on its way in; its bytes are already in the blob store."""

    collection: str
    document_id: str
    version_id: UUID
    sha256: bytes
    size_bytes: int
    filename: str | None = None
    mime_type: str | None = None
    title: str | None = None
    uri: str | None = None
    metadata: Metadata | None = None
    """None: not given, an existing document keeps its own."""
    fingerprint: str = ""
    """Of parser, chunker and embedding model together."""
    priority: int = 0
    """Higher goes first: single uploads before bulk."""
    expires_at: datetime | None = None
    """When the document is deleted by itself; None: not given, it keeps its own."""
    callback_url: str | None = None
    """Told how the job ended. Checked by the submitter; recorded with the job."""
    submitted_by: str | None = None
    """Name of the principal, for the audit trail."""
    request_id: str | None = None
    source: BucketObject | None = None
    """The object that the worker fetches; `sha256` is empty then, and there is no blob yet."""
    parent_id: UUID | None = None
    """The job of the bucket that this one is a part of."""
    marks: PageMarks | None = None
    """Of the page that the bytes were fetched from."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A request's own name: the same again within 24 hours is the same request."""

    key: str
    body_hash: bytes
    """Of everything that was asked for; another one under the same key is a conflict."""
    scope: str = ""
    """Whose key it is: the same key of two callers is two keys."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A recorded submission, and whether its blob is now the catalogue's."""

    job: Job
    needs_blob: bool
    """False: nothing refers to the blob of this submission, its writer deletes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to work on one job, for as long as it is renewed."""

    job: Job
    token: UUID
    crashes: int = 0
    """Workers that held the job before and were never heard of again."""
    request_id: str | None = None
    """Of the request that made the job."""

    @property
    def tries(self) -> int:
        """Attempts that came to an end by themselves, this one included."""
        return self.job.attempts - self.crashes


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLease(Lease):
    """The same for a job that puts a version of a document in place."""

    version_id: UUID
    document_no: int
    sequence: int
    filename: str | None
    mime_type: str | None
    source: BucketObject | None = None
    """Where its bytes are to be had; None: they are in the blob store."""


@dataclass(frozen=True, slots=True)
class Settled:
    """How a job ended well, and the versions whose files may be deleted now."""

    outcome: Outcome
    retired: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class IndexedChunks:
    """One document's chunks as a generation of its collection wants them."""

    chunks: Sequence[Chunk]
    vectors: Vectors
    """Shape (len(chunks), dimension), unit rows."""
    fingerprint: str | None = None
    """Of the pipeline that made them."""


@dataclass(frozen=True, slots=True)
class IndexedVersion:
    """Everything that one document's new version puts in place, in one transaction."""

    chunks: Sequence[Chunk]
    vectors: Vectors
    """Shape (len(chunks), dimension), unit rows."""
    title: str | None
    language: str | None
    extracted: Metadata
    report: ReadingReport
    timings_ms: Mapping[str, float]
    warnings: Sequence[str] = ()
    fingerprint: str | None = None
    """Of the pipeline that made it, which may be newer than the submitter's. None: the same."""
    generation: int = 1
    """Of the collection, for which the chunks and vectors were made."""
    beside: Mapping[int, IndexedChunks] = field(default_factory=dict)
    """The same document for other generations, by number."""

    def for_generation(self, generation: int) -> "IndexedVersion":
        """Return the version with that generation's chunks as its own.

        Raises GenerationSwitched when none were made for it.
        """
        if generation == self.generation:
            return self
        if generation not in self.beside:
            raise GenerationSwitched("the collection was reindexed meanwhile: try again")
        mine = IndexedChunks(self.chunks, self.vectors, self.fingerprint)
        other = self.beside[generation]
        return replace(
            self,
            chunks=other.chunks,
            vectors=other.vectors,
            fingerprint=other.fingerprint,
            generation=generation,
            beside={**self.beside, self.generation: mine},
        )


class Catalog(Protocol):
    """Documents, versions and jobs: the truth that everything else can be rebuilt from."""

    async def settle_unchanged(self, submission: Submission) -> Job | None:
        """Answer a submission that needs no work, in one commit; None when there is work.

        When the newest version is in place and has the same bytes and fingerprint, the job is born
        finished: `unchanged`, or `updated` when title, uri, metadata or the date of expiry differ.
        The submission's blob need not exist.
        """
        ...

    async def submit(
        self, submission: Submission, *, idempotency: Idempotency | None = None
    ) -> Submitted:
        """Do what `submit_all` does, for one."""
        ...

    async def submit_all(
        self, submissions: Sequence[Submission], *, idempotency: Idempotency | None = None
    ) -> Sequence[Submitted]:
        """Record documents, versions and jobs in one transaction; durable when it returns.

        All or none, answered in the order given. Settles an unchanged one as `settle_unchanged`
        does. The same idempotency key with the same body answers with the first jobs, as long as
        these are kept. Safe to repeat under such a key; without one a repeat is a newer version of
        the same bytes, which ends as `unchanged`. A callback is recorded with its job, also with
        one that is born finished. Raises CollectionNotFound, IdempotencyConflict, StoreUnavailable.
        """
        ...

    async def claim(
        self,
        *,
        owner: str,
        lease: timedelta,
        job_id: UUID | None = None,
        parent_id: UUID | None = None,
        at_most_bytes: int | None = None,
    ) -> DocumentLease | None:
        """Take the best waiting job (or that one), skipping what others hold; None: none waits.

        `parent_id` takes only children of that job, `at_most_bytes` passes over jobs whose file is
        larger.
        """
        ...

    async def renew(
        self, lease: Lease, *, duration: timedelta, stage: Stage | None, progress: float
    ) -> None:
        """Hold the job longer and say how far it is. Raises LeaseLost: stop at once."""
        ...

    async def settle_repeated(self, lease: DocumentLease) -> Settled | None:
        """Finish a job whose bytes got in place since it was submitted, or that came too late.

        None: there is work to do. Raises LeaseLost.
        """
        ...

    async def put_in_place(self, lease: DocumentLease, version: IndexedVersion) -> Settled:
        """Replace the document's chunks and finish the job, in one transaction.

        Readers see the old version or the new one. Fenced by the lease's token: raises LeaseLost
        when another worker took over or the job was cancelled. A late older version ends as
        `superseded`, and so do older jobs of the document that nobody holds. Safe to repeat: the
        second call raises LeaseLost and changes nothing. Other generations of the collection get
        what the version holds for them in the same transaction; one that it holds nothing for is
        left without the document. Raises GenerationSwitched, upon which nothing has changed, when
        it holds nothing for the one that answers.
        """
        ...

    async def cancel(self, job_id: UUID) -> Job:
        """Cancel a job that is not finished; whoever works on it loses its lease.

        The unfinished children of a bucket's job go with it. A finished job is returned as it is.
        Raises JobNotFound.
        """
        ...

    async def run_again(self, job_id: UUID) -> Job:
        """Queue a failed or cancelled job once more, its attempts counted from 0.

        Its callback is owed once more too. Ends as `superseded` when something newer got in place
        meanwhile. Raises JobNotFound, and NotRetryable when it has not failed, or its document or
        version is gone.
        """
        ...

    async def run_failed_again(
        self,
        *,
        collections: Set[str] | None = None,
        document_id: str | None = None,
        code: str | None = None,
        limit: int = 1000,
    ) -> Sequence[Job]:
        """Do what `run_again` does for failed jobs that match, the oldest first; return them.

        `code` is that of the failure. Jobs that can't be run again are passed over.
        """
        ...

    async def release_expired(self, *, pause: timedelta = timedelta()) -> Sequence[Job]:
        """Give jobs whose lease ran out back to the queue and return them. Safe to repeat.

        Counts as a crash of the worker, until that says by `survived` that it lives. From its
        second crash on a job waits for about `pause`, doubled each time and never quite the same:
        those that only shared a worker with the one at fault then run apart from it.
        """
        ...

    async def waiting(self, *, limit: int = 100) -> Sequence[Job]:
        """Jobs that may be claimed now, the best first."""
        ...

    async def fail(self, lease: Lease, failure: JobFailure) -> None:
        """Finish the job as failed; the document's current version stays. Raises LeaseLost."""
        ...

    async def retry(self, lease: Lease, failure: JobFailure, *, after: timedelta) -> None:
        """Give the job back to the queue, to be claimed again after a while. Raises LeaseLost."""
        ...

    async def give_back(self, lease: Lease) -> None:
        """Give the job back as if it had not been claimed. Raises LeaseLost."""
        ...

    async def survived(self, lease: Lease) -> None:
        """Take back the crash that `release_expired` counted for this lease.

        To be told once, by a worker that lost its lease and lives. Nothing happens when the job
        is finished.
        """
        ...

    async def job(self, job_id: UUID) -> Job:
        """Raises JobNotFound."""
        ...

    async def jobs_by_id(self, job_ids: Sequence[UUID]) -> Sequence[Job]:
        """Those that exist, in any order, in one round trip."""
        ...

    async def jobs(
        self,
        *,
        collections: Set[str] | None = None,
        document_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 50,
        after: UUID | None = None,
    ) -> Sequence[Job]:
        """The newest first, from the one that follows the job `after`.

        `collections` None: of all; an empty set: of none. Raises JobNotFound when `after` is gone.
        """
        ...

    async def queue_state(self) -> QueueState:
        """Jobs by status and the age of the oldest waiting one, in one round trip."""
        ...

    async def document(self, collection: str, document_id: str) -> Document:
        """Raises DocumentNotFound."""
        ...

    async def documents(
        self,
        collection: str,
        *,
        filters: Filter | None = None,
        doubtful: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Sequence[Document]:
        """In order of document_id, after that id when one is given.

        `doubtful`: only those whose reading report says so.
        """
        ...

    async def document_by_uri(self, collection: str, uri: str) -> Document:
        """Raises DocumentNotFound."""
        ...

    async def page(self, collection: str, document_id: str) -> "KnownPage | None":
        """Return the page that the version in place was fetched from.

        None where it came otherwise, where something newer is on its way, or there is none.
        """
        ...

    async def versions(self, collection: str, document_id: str) -> Sequence[Version]:
        """The newest first. Raises DocumentNotFound."""
        ...

    async def reading_report(self, collection: str, document_id: str) -> ReadingReport:
        """How well the version in place could be read. Raises DocumentNotFound."""
        ...

    async def update_document(
        self,
        collection: str,
        document_id: str,
        *,
        title: str | None = None,
        metadata: Metadata | None = None,
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> Document:
        """Change what is given, embed nothing. Raises DocumentNotFound.

        `metadata` replaces the whole object. `never_expires` takes away a date set before.
        """
        ...

    async def matching(
        self, collection: str, filters: Filter, *, limit: int = 1000, after: str | None = None
    ) -> Sequence[str]:
        """Ids of the documents that match, in order: those in place, and those on their way.

        One in place is judged by what answers now; one whose first version is on its way, or
        failed, by what was said when that was submitted.
        """
        ...

    async def expired(self, *, limit: int = 100) -> Sequence[tuple[str, str]]:
        """Collection and id of documents whose `expires_at` has passed, the longest gone first.

        Not those that were sent anew since, or with a later date, as long as that is on its way.
        """
        ...

    async def forget(
        self,
        collection: str,
        document_ids: Sequence[str],
        *,
        only_expired: bool = False,
        unless_after: Mapping[str, int] | None = None,
        actor: str | None = None,
    ) -> tuple[DeletionReceipt, Sequence[UUID]]:
        """Remove documents, chunks and versions in one transaction; running jobs of theirs lose.

        With an `actor` each is in the audit trail, by the same transaction; None: its caller has
        seen to that.

        Also answers with the versions whose files may be deleted now. Ids that don't exist are left
        out of the receipt, with `only_expired` also those that `expired` would not name now, with
        `unless_after` those that have a version of a higher sequence than given, by id.
        `blobs` is 0: files are the flow's.
        """
        ...

    async def to_forget(self, collection: str, document_ids: Sequence[str]) -> DeletionReceipt:
        """What `forget` would remove now of what was ingested; changes nothing."""
        ...

    async def are_live(self, version_ids: Sequence[UUID]) -> Set[UUID]:
        """Return those whose files are still needed; files of the others may be deleted."""
        ...


class Retention(Protocol):
    """What is removed when it has been kept long enough. Each call is bounded, safe to repeat."""

    async def forget_jobs(self, *, older_than: timedelta, limit: int = 1000) -> int:
        """Remove finished jobs whose callback, if any, is settled; return how many."""
        ...

    async def forget_versions(self, *, limit: int = 1000) -> int:
        """Remove versions that no kept job names, unless they answer or are on their way.

        Documents that never answered go with their last one. Returns how many versions went; their
        files are the sweep's.
        """
        ...

    async def forget_idempotency_keys(self, *, limit: int = 1000) -> int:
        """Remove keys older than 24 hours; return how many."""
        ...

    async def forget_audit(self, *, older_than: timedelta, limit: int = 1000) -> int: ...


@dataclass(frozen=True, slots=True)
class Callback:
    """A finished job that somebody wants to hear of."""

    job: Job
    url: str
    attempts: int
    """Deliveries tried before this one."""


class Callbacks(Protocol):
    """Deliveries that are due. They are recorded with the submission, so none is lost."""

    async def claim_due(self, *, lease: timedelta, limit: int = 20) -> Sequence[Callback]:
        """Take due callbacks of finished jobs, skipping what others hold, for `lease`.

        One whose holder dies is due again after the lease: a receiver may hear twice.
        """
        ...

    async def delivered(self, job_id: UUID) -> None: ...

    async def failed(self, job_id: UUID, *, error: str, after: timedelta | None) -> None:
        """Record a failed delivery: due again `after`, or given up when that is None."""
        ...


class Keys(Protocol):
    """API keys by the SHA-256 of their secret.

    A change and its entry in the audit trail are one transaction. All may raise StoreUnavailable.
    """

    async def add(self, key: ApiKey, *, secret_hash: bytes, entry: AuditEntry) -> ApiKey:
        """Store a key; `created_at` is the store's."""
        ...

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        """Also revoked and expired ones: the caller decides."""
        ...

    async def list(self) -> Sequence[ApiKey]:
        """The newest first, revoked ones included."""
        ...

    async def revoke(self, key_id: UUID, *, entry: AuditEntry) -> ApiKey:
        """Safe to repeat: only the first call changes and records something.

        Raises KeyNotFound.
        """
        ...

    async def used(self, key_ids: Set[UUID]) -> None:
        """Note that they were used now."""
        ...


class Audit(Protocol):
    """The trail of who changed what."""

    async def record(self, entries: Sequence[AuditEntry]) -> None:
        """Append them, durably, in order; the store sets `at` and `entry_no`."""
        ...

    async def entries(
        self,
        *,
        collections: Set[str] | None = None,
        action: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> Sequence[AuditEntry]:
        """The newest first, from the one that follows the entry of that number.

        `collections` None: all; otherwise only entries about one of them.
        """
        ...


class Collections(Protocol):
    """Collections and the fingerprints they were made with."""

    async def open(
        self,
        name: str,
        *,
        embedding: EmbeddingSpec,
        chunker: str,
        create: bool = True,
        language: str | None = None,
        strict: bool = False,
    ) -> Collection:
        """Return the collection, made on first use with its table and indexes.

        Safe to call from many processes at once. Raises CollectionMismatch, with the way out, when
        it was made with another model, dimension, prefix or chunker; InvalidInput for a name that
        is not `[a-z0-9_-]{1,48}`; CollectionNotFound when it does not exist and `create` is False.
        """
        ...

    async def get(self, name: str) -> Collection:
        """Raises CollectionNotFound."""
        ...

    async def list(self) -> Sequence[tuple[Collection, int, int]]:
        """Every collection with its number of documents and of chunks."""
        ...

    async def delete(self, name: str) -> tuple[DeletionReceipt, Sequence[UUID]]:
        """Remove a collection and all in it; also answers with the versions whose files may go.

        Raises CollectionNotFound.
        """
        ...


class ChunkStore(Protocol):
    """Chunks, their vectors and their words: what search reads."""

    async def candidates(
        self,
        collection: str,
        *,
        vector: Vector | None,
        text: str | None,
        filters: Filter | None = None,
        vector_limit: int = 50,
        keyword_limit: int = 50,
    ) -> Candidates:
        """Return what the vector leg and the keyword leg propose, from one snapshot.

        `vector` None leaves out the vector leg, `text` None the keyword leg. With a filter, as many
        rows come back as match, up to the limits. A passage's `score` is not set yet.
        Raises CollectionNotFound, InvalidFilter, CollectionMismatch (wrong dimension),
        StoreUnavailable.
        """
        ...

    async def passages(self, collection: str, chunk_ids: Sequence[str]) -> Sequence[Passage]:
        """Return the chunks of those ids that exist, in the order asked."""
        ...

    async def document_chunks(
        self, collection: str, document_id: str, *, first: int = 0, limit: int | None = None
    ) -> Sequence[Passage]:
        """Return a document's chunks in reading order, from ordinal `first`."""
        ...

    async def neighbours(
        self, collection: str, chunk_ids: Sequence[str], *, radius: int = 1
    ) -> Mapping[str, Sequence[Passage]]:
        """Return, for each chunk, the chunks around it in the same document, itself included."""
        ...


# --- truth ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StandingVersion:
    """A version whose files are needed, with all that a repeat of it would say."""

    collection: str
    document_id: str
    version_id: UUID
    is_in_place: bool
    sha256: bytes
    filename: str | None
    mime_type: str | None
    title: str | None
    uri: str | None
    source: BucketObject | None
    marks: PageMarks | None

    @property
    def name(self) -> str:
        return f"{self.collection}/{self.document_id}"


class ListedFiles(Protocol):
    """What the blob store lists, beside what the catalogue needs of it."""

    async def add(self, files: Sequence[tuple[UUID, str, float]]) -> None:
        """Take note of files: their version, name and age in seconds."""
        ...

    async def orphaned(
        self, *, older_than_seconds: float, limit: int, after: UUID | None
    ) -> Sequence[UUID]:
        """Versions that nobody needs, all of whose files are so old; in order, after that one."""
        ...

    async def lacking(
        self, *, names: Sequence[str], limit: int, after: UUID | None
    ) -> Sequence[StandingVersion]:
        """Versions in need of files that lack one of those names; in order, after that one.

        Of versions that are not in place only the first of the names is asked for.
        """
        ...


class Inventory(Protocol):
    """Compares what PostgreSQL holds with itself and with others.

    Counts are of one moment. Repairs are small transactions that look again at what they change:
    safe to repeat, while others write, and to kill at any line. All may raise StoreUnavailable.
    """

    def files(self) -> AbstractAsyncContextManager[ListedFiles]:
        """Take a listing in, for as long as the block lasts."""
        ...

    async def tables(self) -> Sequence[str]:
        """Name every table of chunks, of collections and their other generations."""
        ...

    async def orphaned_chunks(self, table: str, *, repair: bool) -> Drift:
        """Chunks of documents that are not there, or not in place."""
        ...

    async def orphaned_words(self, table: str, *, repair: bool) -> Drift:
        """Words of chunks that are not there."""
        ...

    async def missing_words(self, table: str, *, repair: bool) -> Drift:
        """Chunks that the words of their text are not kept of."""
        ...

    async def miscounted(self, table: str, *, repair: bool) -> Drift:
        """Numbers of chunks, or of words by over a hundredth, that are not those of the table."""
        ...

    async def miscounted_documents(
        self, *, limit: int, after: UUID | None
    ) -> Sequence[StandingVersion]:
        """Versions in place that have other chunks than were put there; in order, after that."""
        ...

    async def stranded_versions(self, *, repair: bool) -> Drift:
        """Versions that wait for a job and have none; they are repaired by letting them fail."""
        ...

    async def unused_vectors(self, *, older_than_seconds: float, repair: bool) -> Drift:
        """Cached vectors of texts that no chunk holds, and that nobody asked for so long."""
        ...

    async def queue_again(self, submission: Submission, *, instead_of: UUID) -> Job | None:
        """Queue a version in the place of that one, unless something newer has come meanwhile.

        None: it has; the submission's blob is then its writer's to delete.
        """
        ...

    async def bucket_prefixes(self) -> Sequence[tuple[str, str]]:
        """Name every collection and bucket that documents came from."""
        ...


# --- the web -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KnownPage:
    """A page that was fetched, and what it held."""

    marks: PageMarks
    version_id: UUID
    sha256: bytes
    size_bytes: int
    filename: str | None
    title: str | None
    """As it was given with the page, not as it was found in it."""


@dataclass(frozen=True, slots=True)
class OpenPage:
    """What a server answers with; its bytes are still to come."""

    marks: PageMarks
    filename: str | None
    size_bytes: int | None
    """As the server says; None when it doesn't. What comes is counted all the same."""
    pieces: AsyncIterator[bytes]
    """To be read inside the block that gave the page."""


class Pages(Protocol):
    """Documents on the web. Only what may be reached from here is."""

    def canonical(self, url: str) -> str:
        """Return the URL as a document is known by it, without its fragment.

        Raises InvalidInput, and ForbiddenUrl for what is not http or https, or has a password.
        """
        ...

    def get(
        self, url: str, *, known: PageMarks | None = None
    ) -> AbstractAsyncContextManager[OpenPage | None]:
        """Open what a URL leads to; None: it is what it was when it had those marks.

        Raises ForbiddenUrl for a hop that must not be called, InvalidInput when the server refuses
        or there is none, SourceUnavailable (retry later) when it fails, is away or takes too long.
        So may reading the pieces.
        """
        ...


# --- buckets -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenObject:
    """An object that is being read; what is said of it holds for these very bytes."""

    object: BucketObject
    filename: str
    mime_type: str | None
    metadata: Mapping[str, Any]
    """The object's own and its tags, the tags winning; numbers and booleans as such."""
    warnings: tuple[str, ...]
    pieces: AsyncIterator[bytes]
    """To be read inside the block that gave the object."""


class Buckets(Protocol):
    """Buckets of other people's, read and never written. Only configured ones are reached.

    All may raise BucketNotFound, SourceUnavailable (retry later), or NotConfigured when the server
    does not let us in.
    """

    def require(self, bucket: str, *, collection: str) -> None:
        """Raise BucketNotFound for a bucket that is not configured, Forbidden for one that is
        configured for other collections only. Asks no server."""
        ...

    def list(self, bucket: str, prefix: str) -> AsyncGenerator[Sequence[BucketObject], None]:
        """Yield all objects whose key starts with `prefix`, a page at a time, as they are listed.

        Usually in order of keys, not always. Ends only at the end of the listing: whatever cuts it
        short raises.
        """
        ...

    async def find(self, bucket: str, key: str) -> BucketObject | None:
        """Return an object as it is now; None when there is none."""
        ...

    def open(self, bucket: str, key: str) -> AbstractAsyncContextManager[OpenObject]:
        """Open an object as it is now. Raises ObjectGone; reading the pieces may raise, too."""
        ...


@dataclass(frozen=True, slots=True)
class BucketOrder:
    """What a bucket's job is told to do."""

    collection: str
    bucket: str
    prefix: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    metadata: Metadata | None = None
    """Of every document, below what the object itself says."""
    delete_missing: bool = False
    """Delete the documents whose objects are gone."""
    max_delete_share: float = 0.2
    """Of the known objects, 0…1: when more are gone, none is deleted; 1: any number may go."""
    dry_run: bool = False
    """Only tell what would be done."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketLease(Lease):
    """The right to work on a bucket's job."""

    order: BucketOrder
    submitted_by: str | None = None


ObjectAction = Literal["new", "changed", "gone", "deleted", "skipped", "failed_before"]


@dataclass(frozen=True, slots=True)
class ObjectNote:
    """What a bucket's job decided about one object."""

    key: str
    action: ObjectAction
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectResult:
    """The same with what became of it."""

    note: ObjectNote
    job_id: UUID | None = None
    status: JobStatus | None = None
    outcome: Outcome | None = None
    error: JobFailure | None = None


@dataclass(frozen=True, slots=True)
class BucketState:
    """When a bucket's jobs ran, in seconds ago; None: never, as far as jobs are kept."""

    started_seconds_ago: float | None = None
    succeeded_seconds_ago: float | None = None
    is_under_way: bool = False
    """Whether one waits to begin, or is listing. One that waits for its children is not."""


class Sources(Protocol):
    """Which documents come from which buckets, and the jobs that keep the two alike.

    All may raise StoreUnavailable. Documents and their jobs are the catalogue's.
    """

    async def start(
        self, order: BucketOrder, *, submitted_by: str, request_id: str | None = None
    ) -> Job:
        """Queue a bucket's job, or find the one of the same order that still waits to begin.

        Recorded in the audit trail in the same transaction.
        """
        ...

    async def claim(
        self, *, owner: str, lease: timedelta, job_id: UUID | None = None
    ) -> BucketLease | None:
        """Take the oldest waiting job of a bucket, or that one; None: none waits."""
        ...

    async def known(
        self, collection: str, bucket: str, *, prefix: str, after: str | None, limit: int
    ) -> Sequence[KnownObject]:
        """Return what is stored under a prefix, in order of keys, from the one after that key."""
        ...

    async def known_one(self, collection: str, bucket: str, key: str) -> KnownObject | None: ...

    async def take(
        self, submissions: Sequence[Submission], *, lease: BucketLease | None = None
    ) -> Sequence[Job]:
        """Queue jobs for objects of one bucket, in one transaction; return those that were made.

        Decided anew under a lock, so that listings and events that see the same object at once
        make one job of it. With a lease they are its children. Raises LeaseLost when that is gone,
        CollectionNotFound.
        """
        ...

    async def note(self, lease: BucketLease, notes: Sequence[ObjectNote]) -> None:
        """Record what was decided. Safe to repeat; what has a job of its own stays as it is."""
        ...

    async def fetched(
        self,
        lease: DocumentLease,
        found: OpenObject,
        *,
        sha256: bytes,
        size_bytes: int,
        metadata: Metadata,
    ) -> None:
        """Say what the lease's version turned out to be; its blob is stored. Raises LeaseLost."""
        ...

    async def park(
        self, lease: BucketLease, counts: Mapping[str, int], failure: JobFailure | None = None
    ) -> None:
        """End the work on a bucket's job, which ends by itself with the last of its children.

        `failure` is how it will end then; None: well. Raises LeaseLost.
        """
        ...

    async def settle_parked(self) -> Sequence[Job]:
        """Count anew what became of the children of parked jobs; return those that ended now."""
        ...

    async def objects(
        self, job_id: UUID, *, limit: int = 100, after: str | None = None
    ) -> Sequence[ObjectResult]:
        """Tell what a bucket's job decided, in order of keys, from the one after that key."""
        ...

    async def state(self, order: BucketOrder) -> BucketState:
        """Tell when jobs of this collection, bucket and prefix ran."""
        ...


# --- reindexing ----------------------------------------------------------------------------

SwitchMode = Literal["auto", "manual"]
"""Whether a collection switches by itself once its new generation is filled."""


@dataclass(frozen=True, slots=True)
class ReindexOrder:
    """What a reindex is told to do."""

    collection: str
    embedding: EmbeddingSpec
    chunker: str
    questions: tuple[str, ...] = ()
    """To compare the answers of; none: some are drawn from the collection."""
    switch: SwitchMode = "auto"
    accept_loss: bool = False
    """Switch although some documents could not be taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReindexLease(Lease):
    """The right to work on a reindex."""

    order: ReindexOrder


@dataclass(frozen=True, slots=True)
class PendingDocument:
    """A document in place that a generation lacks, or holds another version of."""

    document_no: int
    document_id: str
    version_id: UUID
    filename: str | None = None
    mime_type: str | None = None


@dataclass(frozen=True, slots=True)
class PendingNode:
    """A row without a document's file behind it, that a generation lacks or holds otherwise."""

    node_id: str
    text: str
    """What is embedded: the context, if any, and the text."""
    mark: str
    """Of all it consists of but its vector: it is taken over only as it was read."""


@dataclass(frozen=True, slots=True)
class Lack:
    """What a generation does not hold of its collection as it is in place."""

    documents: int = 0
    failed: int = 0
    """Of those: could not be taken over, as far as was tried."""
    nodes: int = 0
    """Rows added, changed or deleted beside the documents."""

    def __bool__(self) -> bool:
        return bool(self.documents or self.nodes)


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Of the pipeline that answers, and of the one switched to: see steps/identity.py."""

    before: str
    after: str


class Generations(Protocol):
    """A collection's chunks under other embedding models and chunkers than answer now.

    All may raise StoreUnavailable, and CollectionNotFound where one is named. What writes chunks
    through the catalogue keeps every generation true in its own transaction.
    """

    async def start(
        self, order: ReindexOrder, *, submitted_by: str, request_id: str | None = None
    ) -> Job:
        """Queue a reindex and make the generation it fills, which new versions go to from now on.

        Recorded in the audit trail in the same transaction. Raises ReindexUnderWay, and Conflict
        when the collection is as it is wanted.
        """
        ...

    async def claim(
        self, *, owner: str, lease: timedelta, job_id: UUID | None = None
    ) -> ReindexLease | None:
        """Take the oldest waiting reindex, or that one; None: none waits."""
        ...

    async def begin(self, lease: ReindexLease) -> Generation:
        """Return the generation that the job fills, made anew where it is gone.

        What could not be taken over before is tried once more. Raises LeaseLost, ReindexUnderWay
        when the collection has been given to another reindex since.
        """
        ...

    async def of(self, collection: str, *, counted: bool = True) -> Sequence[Generation]:
        """Return those that do not answer: that answered before, then the one that is filled.

        Not `counted` they tell no numbers of documents, which takes a look at each document.
        """
        ...

    async def pending(
        self, generation: Generation, *, after: str | None, limit: int
    ) -> Sequence[PendingDocument]:
        """Return documents to take over, by id, after that id; failed ones are left out."""
        ...

    async def fill(
        self,
        lease: ReindexLease,
        generation: Generation,
        document: PendingDocument,
        content: IndexedChunks,
    ) -> bool:
        """Put a document into the generation, in one transaction; False when it has changed since.

        Safe to repeat. Raises LeaseLost.
        """
        ...

    async def skip(
        self,
        lease: ReindexLease,
        generation: Generation,
        document: PendingDocument,
        failure: JobFailure,
    ) -> None:
        """Record why a document can't be taken over. Raises LeaseLost."""
        ...

    async def skipped(
        self, generation: Generation, *, limit: int = 100
    ) -> Sequence[tuple[str, JobFailure]]:
        """Return the ids of those, by id, and why."""
        ...

    async def pending_nodes(self, generation: Generation, *, limit: int) -> Sequence[PendingNode]:
        """Return rows to take over, after removing those that are gone where they were added."""
        ...

    async def fill_nodes(
        self,
        lease: ReindexLease,
        generation: Generation,
        nodes: Sequence[PendingNode],
        vectors: Vectors | None,
    ) -> None:
        """Copy the rows that are still as they were read, with these vectors, or with their own.

        Raises LeaseLost.
        """
        ...

    async def note(
        self,
        lease: ReindexLease,
        *,
        counts: Mapping[str, int],
        result: Mapping[str, Any],
        went_on: bool,
    ) -> None:
        """Say how far the job is. Raises LeaseLost.

        One that `went_on` since it was claimed is forgiven the tries and crashes before that.
        """
        ...

    async def finish(self, lease: ReindexLease, generation: Generation) -> None:
        """End the job well, with the generation ready to be switched to. Raises LeaseLost."""
        ...

    async def switch(
        self, lease: ReindexLease, generation: Generation, fingerprints: Fingerprints
    ) -> Lack:
        """Have the generation answer from now on, and end the job well, in one transaction.

        The one before is kept, and kept true. Returns what is lacking; when that is anything, and
        the order does not accept it (nodes never are), nothing has changed. Raises LeaseLost, Busy
        when readers did not make way in time.
        """
        ...

    async def switch_later(
        self, collection: str, *, accept_loss: bool, submitted_by: str, request_id: str | None
    ) -> Job:
        """Queue the job of a generation that is ready once more, to switch to it.

        Raises GenerationNotFound when none is ready.
        """
        ...

    async def roll_back(
        self,
        collection: str,
        fingerprints: Callable[[Generation], Fingerprints],
        *,
        accept_loss: bool,
        submitted_by: str,
        request_id: str | None = None,
    ) -> Collection:
        """Have the generation before answer again, in one transaction; the other is kept instead.

        Raises GenerationNotFound, ReindexUnderWay, RollbackLoses, Busy.
        """
        ...

    async def discard(
        self, collection: str, *, submitted_by: str, request_id: str | None = None
    ) -> None:
        """Drop the generation that is filled or ready, and cancel its job.

        Raises GenerationNotFound.
        """
        ...

    async def drop_outdated(self, *, kept: timedelta) -> int:
        """Drop what answered before longer ago than that, all but the last of each collection that
        did, and what a job that is no more has left behind; return how many."""
        ...

    async def sample(self, collection: str, *, limit: int) -> Sequence[Passage]:
        """Return chunks of documents from anywhere in the collection, always the same ones."""
        ...

    def chunks(self, generation: Generation) -> ChunkStore:
        """Return what searches of its collection look into to see that generation's answers."""
        ...


# --- the doorbell --------------------------------------------------------------------------


class Doorbell(Protocol):
    """Tells workers that a job waits. It carries no truth: losing a ring only delays."""

    async def ring(self, job_id: UUID) -> None:
        """Say that a job waits; whoever hears it takes the best one, by the catalogue's order.

        Raises QueueUnavailable; callers log it and go on, the sweep will find the job.
        """
        ...


# --- answers -------------------------------------------------------------------------------


OnText = Callable[[str], None]
"""Hears the next piece of an answer's text; must not block and must not raise."""


class Answerer(Protocol):
    """Makes an answer of passages: a language model, or the best sentences themselves."""

    @property
    def name(self) -> str:
        """As shown in `generator`: `extractive`, `ollama:llama3.2`."""
        ...

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        query_vector: Vector | None = None,
        history: Sequence[Message] = (),
        on_text: OnText | None = None,
    ) -> Answer:
        """Answer from these passages alone, citing them. Raises ModelUnavailable.

        `history` are the turns before the question, oldest first; who does not read them says so
        in a warning. One that words its answer bit by bit tells `on_text` each piece, as
        `model.AnswerText` has it; others need not call it.
        """
        ...


PromptKind = Literal["answer", "condense", "rewrite", "rerank"]


class Prompts(Protocol):
    """The instructions that language models get, in the languages and collections they are for."""

    def find(self, kind: PromptKind, *, language: str | None, collection: str | None) -> str:
        """Return the instructions for questions in a language, about a single collection or many.

        Where there are none in the language (or it is not known) they are English. They name
        `{boundary}`, in whose place the word comes that no quoted text can hold.
        """
        ...


class Condenser(Protocol):
    """Makes a question of a conversation that stands alone."""

    async def condense(
        self, question: str, history: Sequence[Message], *, collection: str | None = None
    ) -> str:
        """Return what the question asks after these turns, oldest first, in its own language.

        `collection`: the only one that will be searched. Raises ModelUnavailable and Rejected; the
        question is then to be taken by itself.
        """
        ...


class Rewriter(Protocol):
    """Puts a question into other words, so that passages are found that its own words miss."""

    async def rewrite(self, question: str, *, collection: str | None = None) -> Sequence[str]:
        """Return other wordings, in any language, without the question itself; perhaps none.

        `collection`: the only one that will be searched. Raises ModelUnavailable and Rejected; the
        question is then to be searched for as it is.
        """
        ...


class Reranker(Protocol):
    """Orders passages anew, reading each together with the question."""

    @property
    def is_language_model(self) -> bool:
        """Whether a language model is asked, which some callers forbid."""
        ...

    async def rerank(self, question: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """Return the passages best first, with scores of its own, 0…1; it may leave some out.

        They come best first by their own scores. Raises ModelUnavailable and Rejected; their order
        is then to be kept.
        """
        ...


# --- traces --------------------------------------------------------------------------------


class QuestionTrace(Protocol):
    """One question on its way to an answer, from entering the block to leaving it.

    An error that leaves the block is noted. The context of the running task stays as it is, so the
    block may hold a `yield`.
    """

    def __enter__(self) -> "QuestionTrace": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def inside(self) -> AbstractContextManager[None]:
        """Have what begins inside the block, tasks too, be part of the trace; without a `yield`."""
        ...

    def answered(self, answer: Answer) -> Answer:
        """Take note of the answer, and return it with its `trace_id`, None when not recorded."""
        ...


class JobTrace(Protocol):
    """One attempt at a job."""

    def reached(self, stage: Stage) -> None:
        """Take note that a stage begins, and the one before ends. May be told it repeatedly."""
        ...

    def ended(self, job: Job) -> None:
        """Take note of how the attempt ended."""
        ...


class Tracer(Protocol):
    """Tells an operator, question by question and job by job, what happened and how long it took.

    Calls are cheap and wait for nothing. What can't be told is dropped: only `score` raises.
    """

    def warm_up(self) -> None:
        """Load what the first question would wait for. Takes seconds: not on an event loop."""
        ...

    def question(
        self,
        question: str,
        *,
        collections: Sequence[str],
        asker: Asker,
        options: Mapping[str, str | int | bool],
    ) -> QuestionTrace:
        """Return the trace of a question; `options` are those it is asked with."""
        ...

    def job(self, job: Job) -> AbstractContextManager[JobTrace]:
        """Trace an attempt at a job for as long as the block lasts, what begins in it included."""
        ...

    def score(self, feedback: Feedback) -> None:
        """Take feedback on an answer, to be sent soon; safe to repeat.

        Raises TraceNotFound when no answer from here has that trace id, TracingOff, and Busy when
        too much waits to be sent.
        """
        ...


class _Untraced:
    """A `Tracer` for where nobody looks."""

    def warm_up(self) -> None: ...

    def question(self, question: str, **_: object) -> QuestionTrace:
        return _NOTHING

    def job(self, job: Job) -> AbstractContextManager[JobTrace]:
        return nullcontext(_NOTHING)

    def score(self, feedback: Feedback) -> None:
        raise TracingOff(
            "feedback is kept with the traces of answers, and none are made here: "
            "an operator sets RAGCORE_LANGFUSE__SECRET_KEY"
        )


class _Nothing:
    def __enter__(self) -> "_Nothing":
        return self

    def __exit__(self, *_: object) -> None: ...

    def inside(self) -> AbstractContextManager[None]:
        return nullcontext()

    def answered(self, answer: Answer) -> Answer:
        return answer

    def reached(self, stage: Stage) -> None: ...

    def ended(self, job: Job) -> None: ...


_NOTHING: Final = _Nothing()
UNTRACED: Final[Tracer] = _Untraced()


# --- numbers -------------------------------------------------------------------------------

ChildEnd = Literal["recycled", "timeout", "memory", "crashed", "cancelled"]
"""Why a conversion child is gone: worked long enough, killed at a limit, died, not wanted."""


CallbackResult = Literal["delivered", "failed", "given_up"]
"""How a try to tell a `callback_url` ended; one that failed is made again."""


ModelCallEnd = Literal["ok", "failed", "reset", "timeout", "memory", "refused", "missing"]
"""How a request to one address of a model's server ended. failed: an answer of 5xx or 429; reset:
no connection, or it broke; memory: too little of it; refused: the text or the request was at fault;
missing: the model is not there."""


class Meter(Protocol):
    """Told of what an operator counts. Every call is cheap, waits for nothing and raises nothing.

    What a finished job and an answer say of themselves is not repeated here.
    """

    def searched(
        self, mode: SearchMode, timings_ms: Mapping[str, float], *, shortfall: int
    ) -> None:
        """Take note of a search: milliseconds per stage, and rows that its filter lost."""
        ...

    def recalled(self, *, known: int, missing: int, missing_tokens: int) -> None:
        """Take note of a document's texts whose vectors were in the cache, and of the others."""
        ...

    def embedded(self, texts: int, *, seconds: float) -> None:
        """Take note of a batch that the model has embedded."""
        ...

    def embedding_failed(self, code: str) -> None:
        """Take note of a call that the model refused or did not answer."""
        ...

    def model_awaited(self, kind: Literal["question", "document"], *, seconds: float) -> None:
        """Take note of how long a request waited for its turn at a model's server."""
        ...

    def model_asked(self, endpoint: str, end: ModelCallEnd) -> None:
        """Take note of a request to one address; `endpoint` is one of the configured ones."""
        ...

    def endpoint_changed(self, endpoint: str, *, is_used: bool) -> None:
        """Take note that an address is left out for a while, or used (again)."""
        ...

    def child_started(self) -> None: ...

    def child_ended(self, reason: ChildEnd) -> None: ...

    def called_back(self, result: CallbackResult) -> None: ...

    def synced(self, counts: Mapping[str, int]) -> None:
        """Take note of what a bucket's job found and did, by outcome."""
        ...


class _Unmetered:
    """A `Meter` for where nobody counts."""

    def searched(
        self, mode: SearchMode, timings_ms: Mapping[str, float], *, shortfall: int
    ) -> None: ...

    def recalled(self, *, known: int, missing: int, missing_tokens: int) -> None: ...

    def embedded(self, texts: int, *, seconds: float) -> None: ...

    def embedding_failed(self, code: str) -> None: ...

    def model_awaited(self, kind: Literal["question", "document"], *, seconds: float) -> None: ...

    def model_asked(self, endpoint: str, end: ModelCallEnd) -> None: ...

    def endpoint_changed(self, endpoint: str, *, is_used: bool) -> None: ...

    def child_started(self) -> None: ...

    def child_ended(self, reason: ChildEnd) -> None: ...

    def called_back(self, result: CallbackResult) -> None: ...

    def synced(self, counts: Mapping[str, int]) -> None: ...


UNMETERED: Final[Meter] = _Unmetered()
