"""What goes over the wire: the public contract, apart from the library's own values."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from ragcore import model
from ragcore.model import JobStatus, NoAnswerReason, Outcome, SearchMode, Stage

CollectionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,48}$", examples=["default"])]
DocumentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:~-]{1,200}$")]
Box = tuple[float, float, float, float]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Out):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Public and stable; listed in docs/reference/errors.md.")
    request_id: str


# --- documents in --------------------------------------------------------------------------


class TextIn(_In):
    """A text to be made searchable."""

    text: str = Field(min_length=1)
    collection: CollectionName | None = None
    document_id: DocumentId | None = None
    title: str | None = None
    filename: str = Field(
        default="text.txt", description="Says how to read the text: `notes.md` is Markdown."
    )
    metadata: dict[str, Any] | None = None


class JobErrorOut(_Out):
    code: str
    detail: str
    retryable: bool


class JobOut(_Out):
    """One unit of work, for one document."""

    job_id: UUID
    collection: str
    document_id: str
    status: JobStatus
    status_url: str
    stage: Stage | None
    progress: float
    outcome: Outcome | None
    error: JobErrorOut | None
    attempts: int
    chunks: int | None
    pages: int | None
    language: str | None
    timings_ms: dict[str, float]
    warnings: list[str]
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, job: model.Job) -> "JobOut":
        error = job.error and JobErrorOut(
            code=job.error.code, detail=job.error.detail, retryable=job.error.retryable
        )
        return cls(
            job_id=job.job_id,
            collection=job.collection,
            document_id=job.document_id,
            status=job.status,
            status_url=f"/jobs/{job.job_id}",
            stage=job.stage,
            progress=job.progress,
            outcome=job.outcome,
            error=error,
            attempts=job.attempts,
            chunks=job.chunks,
            pages=job.pages,
            language=job.language,
            timings_ms=dict(job.timings_ms),
            warnings=list(job.warnings),
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )


class JobsOut(_Out):
    jobs: list[JobOut]


# --- questions -----------------------------------------------------------------------------


class SearchIn(_In):
    """A question, and where and how to look for passages."""

    question: str = Field(min_length=1, max_length=100_000)
    collection: CollectionName | list[CollectionName] | None = None
    top_k: int | None = Field(default=None, ge=1, le=100)
    mode: SearchMode = "hybrid"
    filters: dict[str, Any] | None = Field(
        default=None, examples=[{"year": {"$gte": 2024}, "language": "en"}]
    )
    explain: bool = False


class QueryIn(SearchIn):
    """A question to be answered."""

    generate: bool = Field(default=True, description="False: never call a language model.")


class PassageOut(_Out):
    chunk_id: str
    document_id: str
    collection: str
    text: str
    score: float
    title: str | None
    uri: str | None
    headings: list[str]
    page: int | None
    bbox: Box | None
    language: str | None
    metadata: dict[str, Any]
    explanation: model.Explanation | None

    @classmethod
    def of(cls, passage: model.Passage) -> "PassageOut":
        return cls(
            chunk_id=passage.chunk_id,
            document_id=passage.document_id,
            collection=passage.collection,
            text=passage.text,
            score=passage.score,
            title=passage.title,
            uri=passage.uri,
            headings=list(passage.headings),
            page=passage.page,
            bbox=passage.box,
            language=passage.language,
            metadata=dict(passage.metadata),
            explanation=passage.explanation,
        )


class SearchOut(_Out):
    passages: list[PassageOut]
    timings_ms: dict[str, float]
    warnings: list[str]

    @classmethod
    def of(cls, result: model.SearchResult) -> "SearchOut":
        return cls(
            passages=[PassageOut.of(passage) for passage in result.passages],
            timings_ms=dict(result.timings_ms),
            warnings=list(result.warnings),
        )


class CitationOut(_Out):
    marker: int
    chunk_id: str
    document_id: str
    collection: str
    title: str | None
    uri: str | None
    headings: list[str]
    page: int | None
    bbox: Box | None
    quote: str
    start: int
    end: int
    score: float
    supported: bool

    @classmethod
    def of(cls, citation: model.Citation) -> "CitationOut":
        return cls(
            marker=citation.marker,
            chunk_id=citation.chunk_id,
            document_id=citation.document_id,
            collection=citation.collection,
            title=citation.title,
            uri=citation.uri,
            headings=list(citation.headings),
            page=citation.page,
            bbox=citation.bbox,
            quote=citation.quote,
            start=citation.start,
            end=citation.end,
            score=citation.score,
            supported=citation.supported,
        )


class UsageOut(_Out):
    prompt_tokens: int
    completion_tokens: int


class AnswerOut(_Out):
    answer: str
    no_answer_reason: NoAnswerReason | None
    generator: str
    citations: list[CitationOut]
    passages: list[PassageOut]
    usage: UsageOut
    timings_ms: dict[str, float]
    warnings: list[str]
    trace_id: str | None

    @classmethod
    def of(cls, answer: model.Answer) -> "AnswerOut":
        return cls(
            answer=answer.text,
            no_answer_reason=answer.no_answer_reason,
            generator=answer.generator,
            citations=[CitationOut.of(citation) for citation in answer.citations],
            passages=[PassageOut.of(passage) for passage in answer.passages],
            usage=UsageOut(
                prompt_tokens=answer.usage.prompt_tokens,
                completion_tokens=answer.usage.completion_tokens,
            ),
            timings_ms=dict(answer.timings_ms),
            warnings=list(answer.warnings),
            trace_id=answer.trace_id,
        )


# --- documents -----------------------------------------------------------------------------


class DocumentOut(_Out):
    document_id: str
    collection: str
    title: str | None
    uri: str | None
    mime_type: str | None
    language: str | None
    metadata: dict[str, Any]
    extracted: dict[str, Any]
    chunks: int
    pages: int | None
    created_at: datetime | None
    updated_at: datetime | None

    @classmethod
    def of(cls, document: model.Document) -> "DocumentOut":
        return cls(
            document_id=document.document_id,
            collection=document.collection,
            title=document.title,
            uri=document.uri,
            mime_type=document.mime_type,
            language=document.language,
            metadata=dict(document.metadata),
            extracted=dict(document.extracted),
            chunks=document.chunks,
            pages=document.pages,
            created_at=document.created_at,
            updated_at=document.updated_at,
        )


class DocumentsOut(_Out):
    documents: list[DocumentOut]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")


# --- operation -----------------------------------------------------------------------------


class LiveOut(_Out):
    status: Literal["ok"] = "ok"


class ReadyOut(_Out):
    """`ok` when documents can be taken and questions answered; each dependency by name."""

    status: Literal["ok", "unavailable"]
    dependencies: dict[str, str] = Field(
        description="`ok`, or what is wrong. Without the queue jobs only start later."
    )


class VersionOut(_Out):
    version: str
    embedding_model: str
