"""Questions, passages and answers."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ragcore.model import NoAnswerReason, SearchMode
from ragcore_api.schemas.values import (
    MOST_QUESTION_CHARACTERS,
    Box,
    CollectionName,
    In,
    Out,
    examples,
)

_Collections = Annotated[list[CollectionName], Field(min_length=1, max_length=20)]


class MessageIn(In):
    """One message of the conversation so far."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=100_000)


class SearchIn(In):
    """A question, and where and how to look for passages."""

    model_config = examples(
        {"question": "When does the last ferry leave on Sundays?"},
        {
            "question": "What grew?",
            "collection": ["reports", "minutes"],
            "top_k": 10,
            "filters": {"year": {"$gte": 2024}, "language": "en"},
            "explain": True,
        },
    )

    question: str = Field(
        min_length=1,
        max_length=MOST_QUESTION_CHARACTERS,
        pattern=r"\S",
        examples=["When does the last ferry leave on Sundays?"],
    )
    collection: CollectionName | _Collections | None = Field(
        default=None, description="A name, or several; default: `default`."
    )
    top_k: int | None = Field(
        default=None, ge=1, le=100, description="Most passages; default: as configured, 6."
    )
    mode: SearchMode = Field(
        default="hybrid", description="By meaning and by words, or by one of them alone."
    )
    filters: dict[str, Any] | None = Field(
        default=None,
        description="Over metadata and document_id, title, language, mime_type, created_at, with "
        "$eq $ne $in $nin $gt $gte $lt $lte $exists $and $or $not.",
        examples=[{"year": {"$gte": 2024}, "language": "en"}],
    )
    explain: bool = Field(
        default=False, description="Tell each passage's rank and score in each leg."
    )
    history: list[MessageIn] = Field(
        default=[],
        max_length=100,
        description="The conversation before the question, oldest turn first: a language model "
        "finds out by it what a follow-up means. Where none is asked (`/search`, `generate: "
        "false`, none configured) it is not read, and a warning says so.",
    )
    stream: bool = Field(default=False, description="Only for an answer: as server-sent events.")
    user: str | None = Field(
        default=None,
        max_length=200,
        description="Who asks, for the trace of an answer; default: the key's name.",
    )
    session: str | None = Field(
        default=None, max_length=200, description="The conversation, for the trace of an answer."
    )
    generate: bool = Field(
        default=True,
        description="False: never call a language model, neither for the answer nor, where so "
        "configured, to reword the question or to rerank.",
    )


class QueryIn(SearchIn):
    """A question to be answered."""


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


_PASSAGE: dict[str, Any] = {
    "chunk_id": "c3f1a0d2b4e59687",
    "chunk_ids": ["c3f1a0d2b4e59687"],
    "document_id": "timetable~5f1d8c02a7b94e13",
    "collection": "default",
    "ordinal": 7,
    "text": "On Sundays the last ferry leaves at 21:40.",
    "score": 0.83,
    "title": "Winter timetable",
    "uri": "https://example.org/timetable.pdf",
    "headings": ["Departures", "Sundays"],
    "page": 3,
    "bbox": [72.0, 96.5, 540.0, 180.2],
    "language": "en",
    "metadata": {"year": 2026},
    "explanation": None,
}


class PassageOut(Out):
    """A stretch of a document, found for a question."""

    model_config = examples(_PASSAGE)

    chunk_id: str
    chunk_ids: list[str] = Field(
        description="Those it is made of, in order: one, unless neighbours are joined."
    )
    document_id: str
    collection: str
    ordinal: int = Field(
        description="Position in the document, from 0; its neighbours are in the list of chunks."
    )
    text: str
    score: float = Field(description="0…1, higher is better, comparable within one answer.")
    title: str | None
    uri: str | None
    headings: list[str] = Field(description="From the outermost inwards.")
    page: int | None = Field(description="From 1; null where the format has no pages.")
    bbox: Box | None = Field(
        validation_alias="box",
        description="Left, top, right, bottom in points from the top left of the page.",
    )
    language: str | None
    metadata: dict[str, Any]
    explanation: ExplanationOut | None = Field(description="Only when asked to `explain`.")


class SearchOut(Out):
    """Passages, best first."""

    model_config = examples(
        {"passages": [_PASSAGE], "timings_ms": {"embed": 6.1, "retrieve": 4.8}, "warnings": []}
    )

    passages: list[PassageOut]
    timings_ms: dict[str, float] = Field(description="Milliseconds of `embed`, `retrieve` …")
    warnings: list[str]


class CitationOut(Out):
    """A marker `[n]` in an answer, and what bears it out."""

    marker: int = Field(description="The n of `[n]`.")
    chunk_id: str
    document_id: str
    collection: str
    title: str | None
    uri: str | None
    headings: list[str]
    page: int | None
    bbox: Box | None
    quote: str = Field(description="The passage's own words.")
    start: int = Field(description="Where the quote starts in the text of the chunk.")
    end: int
    score: float
    supported: bool = Field(description="Whether the sentence is borne out by the passage.")


class UsageOut(Out):
    prompt_tokens: int
    completion_tokens: int


_CITATION: dict[str, Any] = {
    "marker": 1,
    "chunk_id": "c3f1a0d2b4e59687",
    "document_id": "timetable~5f1d8c02a7b94e13",
    "collection": "default",
    "title": "Winter timetable",
    "uri": "https://example.org/timetable.pdf",
    "headings": ["Departures", "Sundays"],
    "page": 3,
    "bbox": [72.0, 96.5, 540.0, 180.2],
    "quote": "On Sundays the last ferry leaves at 21:40.",
    "start": 0,
    "end": 42,
    "score": 0.83,
    "supported": True,
}


class AnswerOut(Out):
    """An answer, the citations that hold it, and the passages it was made from."""

    model_config = examples(
        {
            "answer": "On Sundays the last ferry leaves at 21:40. [1]",
            "no_answer_reason": None,
            "generator": "extractive",
            "citations": [_CITATION],
            "passages": [_PASSAGE],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0},
            "timings_ms": {"embed": 6.1, "retrieve": 4.8, "generate": 31.0},
            "warnings": [],
            "trace_id": None,
        }
    )

    answer: str = Field(validation_alias="text")
    no_answer_reason: NoAnswerReason | None = Field(description="null: there is an answer.")
    generator: str = Field(
        description="Who worded it: `extractive` (the passages' own sentences), or a model."
    )
    citations: list[CitationOut]
    passages: list[PassageOut]
    usage: UsageOut
    timings_ms: dict[str, float]
    warnings: list[str]
    trace_id: str | None = Field(description="For `POST /feedback`; null where nothing is traced.")


# --- events of a streamed answer -----------------------------------------------------------


class PassagesEvent(Out):
    """Data of the event `passages`: what the answer will be made from."""

    passages: list[PassageOut]


class TokenEvent(Out):
    """Data of the event `token`: the next piece of the text."""

    text: str


class CitationsEvent(Out):
    """Data of the event `citations`: what holds the text that was sent."""

    citations: list[CitationOut]
    no_answer_reason: NoAnswerReason | None
