"""What goes over the wire: the public contract, apart from the library's own values."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, computed_field

from ragcore.model import JobStatus, NoAnswerReason, Outcome, SearchMode, Stage

CollectionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,48}$", examples=["default"])]
DocumentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:~-]{1,200}$")]
Box = tuple[float, float, float, float]


class _In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, validate_by_name=True)

    @classmethod
    def of(cls, value: object) -> Self:
        """Take a value of the library, field by field; aliases name the fields that differ."""
        return cls.model_validate(value)


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

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def status_url(self) -> str:
        return f"/jobs/{self.job_id}"


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


class ExplanationOut(_Out):
    """Why a passage stands where it stands: its rank and score in each leg, and after fusion."""

    vector_rank: int | None
    cosine: float | None
    keyword_rank: int | None
    bm25: float | None
    fused_rank: int | None
    fused_score: float | None
    reranked_rank: int | None
    reranked_score: float | None
    matched: list[str]


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
    bbox: Box | None = Field(validation_alias="box")
    language: str | None
    metadata: dict[str, Any]
    explanation: ExplanationOut | None


class SearchOut(_Out):
    passages: list[PassageOut]
    timings_ms: dict[str, float]
    warnings: list[str]


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


class UsageOut(_Out):
    prompt_tokens: int
    completion_tokens: int


class AnswerOut(_Out):
    answer: str = Field(validation_alias="text")
    no_answer_reason: NoAnswerReason | None
    generator: str
    citations: list[CitationOut]
    passages: list[PassageOut]
    usage: UsageOut
    timings_ms: dict[str, float]
    warnings: list[str]
    trace_id: str | None


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
