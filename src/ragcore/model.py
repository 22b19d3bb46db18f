"""The words of the domain as frozen values: no I/O, no framework.

A *document* is what a user uploaded, a *version* one set of its bytes, a *chunk* a stretch of its
text, a *passage* a chunk found for a question, a *citation* a marker in an answer tied to a
passage, a *job* one unit of work for one document. See docs/glossary.md.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]
"""One embedding: float32, shape (dimension,), unit length."""

Vectors = NDArray[np.float32]
"""Several embeddings: float32, shape (n, dimension), rows of unit length."""

Metadata = Mapping[str, Any]
"""What the caller says about a document: a JSON object. Never embedded, always filterable."""

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in PDF points, from the top-left corner of the page."""


# --- collections ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """What must stay the same for two vectors to be comparable, and for a text to fit the model."""

    model: str
    """Provider and name, `bundled:multilingual-e5-small` or `ollama:nomic-embed-text-v2-moe`."""
    dimension: int
    max_tokens: int
    """Longest text the model reads, its prefix and special tokens included."""
    query_prefix: str = ""
    document_prefix: str = ""
    digest: str | None = None
    """The weights' own hash, where the provider tells it."""
    languages: frozenset[str] | None = None
    """ISO 639-1 codes it is good at; None: multilingual."""


@dataclass(frozen=True, slots=True)
class Collection:
    """A named set of documents that share one embedding model; the unit of access rights."""

    name: str
    embedding: EmbeddingSpec
    chunker: str
    """Fingerprint of the chunker, for example `hybrid-1:384`."""
    language: str | None = None
    """ISO 639-1 code its owner says its documents are in; None: detected chunk by chunk."""
    strict: bool = False
    """Refuse text in a language that the model can't serve, where otherwise there is a warning."""
    generation: int = 1
    """Names the table that answers: 1 as it was made; a reindex switches to another number."""
    created_at: datetime | None = None


GenerationState = Literal["filling", "ready", "retired"]
"""Being filled by a reindex; filled, to be switched to; what answered before."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A collection's chunks under another embedding model or chunker than the one that answers."""

    collection: str
    generation: int
    state: GenerationState
    embedding: EmbeddingSpec
    chunker: str
    job_id: UUID | None = None
    """The job that fills it, or filled it."""
    documents: int = 0
    """Documents that it holds as they are in place."""
    missing: int = 0
    """Documents in place that it lacks, or holds another version of."""
    created_at: datetime | None = None
    retired_at: datetime | None = None


# --- documents -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Document:
    """One logical source with a stable id inside its collection."""

    collection: str
    document_id: str
    title: str | None = None
    uri: str | None = None
    mime_type: str | None = None
    language: str | None = None
    metadata: Metadata = field(default_factory=dict)
    extracted: Metadata = field(default_factory=dict)
    """What the parser found in the file itself: author, dates, page count …"""
    version_id: UUID | None = None
    """The version that answers now; None while the first one is on its way."""
    expires_at: datetime | None = None
    """When it is deleted by itself; None: never."""
    chunks: int = 0
    pages: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PageImage:
    """A page as a picture."""

    png: bytes
    width: float
    """Of the page, in PDF points, the unit of `Box`; the picture may have more pixels or fewer."""
    height: float


@dataclass(frozen=True, slots=True)
class BucketObject:
    """An object of a bucket as it was listed, or as it was read."""

    bucket: str
    key: str
    size_bytes: int
    etag: str
    """Without quotes; empty where the server tells none."""
    modified_at: int
    """Whole seconds since 1970: listings and answers differ in what they tell below that."""

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True, slots=True)
class PageMarks:
    """What a server said of a page with its bytes: by it one asks whether they have changed."""

    uri: str
    """What was asked for."""
    url: str
    """What answered, after redirects: the marks are its own and shown to no other."""
    etag: str | None = None
    last_modified: str | None = None
    mime_type: str | None = None
    """As the server sent it, with the charset."""


VersionState = Literal["pending", "current", "replaced", "superseded", "failed"]


@dataclass(frozen=True, slots=True)
class KnownObject:
    """What is stored of an object of a bucket."""

    key: str
    document_id: str
    sequence: int
    """Of the newest version; a higher one later says that something came meanwhile."""
    in_place: BucketObject | None = None
    """The object that the version in place was read from; None: none is, or it came otherwise."""
    newest: BucketObject | None = None
    """The same of the newest version, whatever became of it."""
    newest_state: VersionState | None = None
    failure: "JobFailure | None" = None
    """Why the job of the newest version failed, or is tried again."""
    parent_id: UUID | None = None
    """The job of the bucket that found the newest version."""


@dataclass(frozen=True, slots=True)
class Version:
    """One set of bytes of a document, and what became of it."""

    version_id: UUID
    sequence: int
    """From 1, in order of arrival."""
    state: VersionState
    sha256: str
    """Hexadecimal; empty until an object of a bucket has been fetched."""
    size_bytes: int
    filename: str | None = None
    mime_type: str | None = None
    fingerprint: str = ""
    chunks: int | None = None
    pages: int | None = None
    language: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ReadingReport:
    """How well a document could be read, so that a badly read one can be found."""

    parser: str
    """Library and version, `docling-slim 2.142.1`."""
    profile: str
    """Way it was read: `fast`, `layout`, `full`, `ocr`, or the format's own."""
    mime_type: str
    encoding: str | None = None
    pages: int | None = None
    pages_without_text: tuple[int, ...] = ()
    """Numbers, from 1, of the pages that gave no text."""
    ocr_pages: tuple[int, ...] = ()
    ocr_confidence: float | None = None
    """Mean over recognised words, 0…1."""
    replaced_characters: int = 0
    """U+FFFD and control characters that were dropped or replaced."""
    characters: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def is_doubtful(self) -> bool:
        """Whether somebody should look at the document: parts of it were lost or guessed."""
        return bool(
            self.pages_without_text
            or self.replaced_characters
            or self.warnings
            or (self.ocr_confidence is not None and self.ocr_confidence < 0.8)
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stretch of text stands on a page."""

    page: int
    """From 1; slide or sheet number where the format has those."""
    box: Box | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A stretch of one document, small enough for the embedding model."""

    chunk_id: str
    """Deterministic: the same bytes under the same pipeline give the same ids."""
    ordinal: int
    """Position in the document, from 0."""
    text: str
    """The original text, shown and cited. Never contains NUL."""
    embedding_text: str
    """The contextualised text that is embedded: headings and captions before the text."""
    tokens: int
    """Of `embedding_text`, by the model's own count, prefix and special tokens included."""
    headings: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    """In reading order; empty where the format has no pages."""
    elements: tuple[str, ...] = ()
    """References into the DoclingDocument, `#/texts/17`."""
    start: int | None = None
    end: int | None = None
    """Character span in the document's text, where it is a contiguous stretch of it."""
    language: str | None = None
    """ISO 639-1 code, None when it can't be told."""

    @property
    def page(self) -> int | None:
        return self.places[0].page if self.places else None

    @property
    def box(self) -> Box | None:
        return self.places[0].box if self.places else None


@dataclass(frozen=True, slots=True)
class ConvertedDocument:
    """What a conversion child hands back: everything later stages need, nothing of Docling."""

    chunks: tuple[Chunk, ...]
    title: str | None
    language: str | None
    """The one most of the text is in."""
    extracted: Metadata
    """Filterable facts found in the file: `author`, `created`, `modified`, …"""
    report: ReadingReport
    markdown_path: str | None = None
    """File with the document as Markdown, in the directory the caller gave."""
    docling_path: str | None = None
    """File with the DoclingDocument as gzipped JSON, in the directory the caller gave."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time per stage: `convert`, `chunk`."""


# --- search --------------------------------------------------------------------------------

SearchMode = Literal["hybrid", "vector", "keyword"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a field with a value. Unlike types never match."""

    field: str
    operator: Literal[
        "eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists",
        "any", "all", "contains", "text_match", "text_match_insensitive", "is_empty",
    ]  # fmt: skip
    value: Any = None


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part matches; no parts: everything matches."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part matches; no parts: nothing matches."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part does not match; a missing field counts as not matching."""

    part: "Filter"


Filter = Condition | AllOf | AnyOf | Not


@dataclass(frozen=True, slots=True)
class Term:
    """One lexeme of the question, and how common it is in the collection."""

    lexeme: str
    documents: int
    """Chunks that hold it; an estimate for very frequent lexemes. 0: it knows none."""
    idf: float
    configurations: tuple[str, ...] = ()
    """Text-search configurations under which the question yields it, so that a Russian word read
    as English does not count as a word the passages lack."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One chunk that at least one leg proposes, with what both legs think of it."""

    passage: "Passage"
    cosine: float | None
    """−1…1, exact; None when the question was not embedded."""
    bm25: float
    """≥ 0; 0 when no word of the question occurs."""
    vector_rank: int | None
    """From 1; None when the vector leg did not propose it."""
    keyword_rank: int | None
    matched: tuple[str, ...] = ()
    """Lexemes of the question that occur in it."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one round trip to the store brought back, and what fusion needs to weigh the legs."""

    candidates: tuple[Candidate, ...]
    terms: tuple[Term, ...]
    """Of the question, over every text-search configuration the collection holds."""
    total_chunks: int
    languages: Mapping[str, int]
    """Chunks per language in the collection; may be a little stale."""
    exact: bool
    """Whether the vector leg scanned exactly (narrow filter, small collection) or used HNSW."""
    shortfall: int = 0
    """Rows the vector leg could not fill although more match: must be 0."""
    embedding: EmbeddingSpec | None = None
    """Of the collection as the search met it; None where the store does not know."""
    generation: int | None = None
    """Likewise, `Collection.generation`."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a passage stands where it stands."""

    vector_rank: int | None = None
    cosine: float | None = None
    keyword_rank: int | None = None
    bm25: float | None = None
    fused_rank: int | None = None
    fused_score: float | None = None
    reranked_rank: int | None = None
    reranked_score: float | None = None
    matched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One chunk of a passage that was joined of several."""

    chunk_id: str
    start: int
    """Where the chunk's text starts in the passage's."""
    end: int
    places: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk found for a question, or several that follow one another."""

    chunk_id: str
    document_id: str
    collection: str
    ordinal: int
    text: str
    score: float = 0.0
    """0…1, higher is better, comparable within one answer."""
    title: str | None = None
    uri: str | None = None
    headings: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    elements: tuple[str, ...] = ()
    language: str | None = None
    metadata: Metadata = field(default_factory=dict)
    """The document's metadata, as the caller gave it."""
    explanation: Explanation | None = None
    parts: tuple[Part, ...] = ()
    """The chunks it was joined of, in order; none: it is one chunk."""

    def scored(self, score: float, explanation: Explanation | None) -> "Passage":
        """Return it with a score; `dataclasses.replace` takes five times as long."""
        return Passage(
            self.chunk_id,
            self.document_id,
            self.collection,
            self.ordinal,
            self.text,
            score,
            self.title,
            self.uri,
            self.headings,
            self.places,
            self.elements,
            self.language,
            self.metadata,
            explanation,
            self.parts,
        )

    @property
    def chunk_ids(self) -> Sequence[str]:
        return [part.chunk_id for part in self.parts] or [self.chunk_id]

    @property
    def page(self) -> int | None:
        return self.places[0].page if self.places else None

    @property
    def box(self) -> Box | None:
        return self.places[0].box if self.places else None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """Passages in order, best first."""

    passages: tuple[Passage, ...]
    timings_ms: Mapping[str, float]
    """`embed`, `retrieve`, `fuse`; `rewrite` and `rerank` where that is done."""
    warnings: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    """What fusion gave each leg, 0…1."""
    generations: Mapping[str, int] = field(default_factory=dict)
    """`Collection.generation` of each collection that was searched, as far as it is known."""

    def __iter__(self) -> Iterator[Passage]:
        return iter(self.passages)

    def __len__(self) -> int:
        return len(self.passages)

    def __getitem__(self, index: int) -> Passage:
        return self.passages[index]


# --- answers -------------------------------------------------------------------------------

NoAnswerReason = Literal["no_documents", "no_relevant_passages", "not_in_passages"]


@dataclass(frozen=True, slots=True)
class Citation:
    """A marker `[n]` in an answer and the passage it points at."""

    marker: int
    chunk_id: str
    document_id: str
    collection: str
    quote: str
    start: int
    end: int
    """Character offsets of the quote in the chunk's text."""
    score: float
    supported: bool
    """Whether the sentence with the marker is borne out by the passage."""
    title: str | None = None
    uri: str | None = None
    headings: tuple[str, ...] = ()
    page: int | None = None
    bbox: Box | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the language model counts them; 0 where there is none."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, the passages it was made from and the citations that hold it."""

    text: str
    citations: tuple[Citation, ...]
    passages: tuple[Passage, ...]
    no_answer_reason: NoAnswerReason | None = None
    generator: str = "extractive"
    usage: Usage = Usage()
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    trace_id: str | None = None


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a question is asked, as its trace tells it; nothing else depends on it."""

    user: str | None = None
    """At most 200 characters, of whatever names a person or a program."""
    session: str | None = None
    """The conversation that the question belongs to, likewise."""
    key: str | None = None
    """Name of the API key that was shown: who says so."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody thinks of an answer."""

    trace_id: str
    """The answer's: 32 hexadecimal digits, lower case."""
    score: float
    """0…1, higher is better."""
    comment: str | None = None
    given_by: str = ""
    """Whose opinion it is: a later one of the same on the same answer takes its place."""


Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class AnswerPassages:
    """What an answer will be made from: told before the answer is."""

    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class AnswerText:
    """The next piece of an answer's text; pieces joined are the text of the finished answer.

    With one exception: where a language model failed midway the finished answer is another, made
    of the passages' own sentences, and takes the place of the pieces.
    """

    text: str


AnswerEvent = AnswerPassages | AnswerText | Answer
"""What is told of an answer under way, in this order; the answer itself comes last, once."""


# --- jobs ----------------------------------------------------------------------------------

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Stage = Literal["listing", "fetching", "converting", "chunking", "embedding", "storing"]
"""`listing` is a bucket's; the others are a document's, in this order."""
JobKind = Literal["document", "bucket", "reindex"]
Outcome = Literal["created", "updated", "unchanged", "superseded"]


@dataclass(frozen=True, slots=True)
class JobFailure:
    """How a job failed, in public words."""

    code: str
    detail: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of queued work: for one document, or for a bucket and what is in it."""

    job_id: UUID
    collection: str
    document_id: str
    status: JobStatus
    stage: Stage | None = None
    progress: float = 0.0
    """0…1 within the stage."""
    outcome: Outcome | None = None
    error: JobFailure | None = None
    attempts: int = 0
    chunks: int | None = None
    pages: int | None = None
    language: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    kind: JobKind = "document"
    """A bucket's job has the id of the bucket and prefix in place of a document's, a reindex the
    name of its collection."""
    parent_id: UUID | None = None
    """The job that made this one."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What a bucket's job found and did, by outcome; how far a reindex is, in documents."""
    result: Mapping[str, Any] = field(default_factory=dict)
    """What a reindex found out."""

    @property
    def is_finished(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class QueueState:
    """How the queue stands, for an operator."""

    jobs: Mapping[JobStatus, int]
    """Jobs by status; finished ones as long as they are kept."""
    oldest_waiting_seconds: float
    """Age of the oldest job that may be claimed now; 0 when none waits."""


# --- access --------------------------------------------------------------------------------

Scope = Literal["ingest", "query", "admin"]
"""What a key may do: take documents in and out, ask, or everything."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: its secret can't be read back."""

    key_id: UUID
    name: str
    scopes: frozenset[Scope]
    collections: frozenset[str] | None = None
    """None: every collection."""
    requests_per_minute: int | None = None
    """None: as the settings say; 0: no limit."""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who makes a request, and what they may do."""

    name: str
    """For logs and the audit trail: the key's name, `loopback`, `admin`."""
    scopes: frozenset[Scope]
    collections: frozenset[str] | None = None
    """None: every collection."""
    key_id: UUID | None = None
    requests_per_minute: int | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def sees(self, collection: str) -> bool:
        return self.collections is None or collection in self.collections


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what: documents taken in and deleted, keys and collections changed."""

    action: str
    """`document.ingest`, `document.delete`, `document.update`, `collection.create`,
    `collection.delete`, `key.create`, `key.revoke`, `job.cancel`, `job.retry` …"""
    actor: str
    collection: str | None = None
    target: str | None = None
    """Id of the document, key or job."""
    request_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None
    entry_no: int | None = None
    """Later entries have higher ones."""


DriftKind = Literal[
    "orphaned_files", "unknown_files", "missing_originals", "missing_results", "orphaned_chunks",
    "miscounted_documents", "orphaned_words", "missing_words", "miscounted_collections",
    "stranded_versions", "unused_vectors", "bucket_changes",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which what is stored disagrees with itself, and how often it was found."""

    kind: DriftKind
    found: int
    repaired: int = 0
    """So many were put right, or are: a document that is read again has a job."""
    examples: Sequence[str] = ()
    """Some of what was found: documents as `collection/document_id`, or keys of files."""

    @property
    def is_fault(self) -> bool:
        """Whether something is wrong: vectors that nobody uses only take room."""
        return self.kind != "unused_vectors" and self.found > self.repaired


@dataclass(frozen=True, slots=True)
class DeletionReceipt:
    """What a deletion removed; true when it is returned."""

    collection: str
    document_ids: Sequence[str]
    chunks: int
    versions: int
    blobs: int
    cached_vectors: int = 0
    """Embeddings of the texts, which would have been used again for the same ones."""
