"""Questions, passages and answers."""

from typing import Any

from pydantic import Field

from ragcore.model import NoAnswerReason, SearchMode
from ragcore_api.schemas.values import Box, CollectionName, In, Out


class SearchIn(In):
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


class ExplanationOut(Out):
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


class PassageOut(Out):
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


class SearchOut(Out):
    passages: list[PassageOut]
    timings_ms: dict[str, float]
    warnings: list[str]


class CitationOut(Out):
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


class UsageOut(Out):
    prompt_tokens: int
    completion_tokens: int


class AnswerOut(Out):
    answer: str = Field(validation_alias="text")
    no_answer_reason: NoAnswerReason | None
    generator: str
    citations: list[CitationOut]
    passages: list[PassageOut]
    usage: UsageOut
    timings_ms: dict[str, float]
    warnings: list[str]
    trace_id: str | None
