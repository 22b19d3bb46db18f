"""What tools answer with: less than the routes do, for it is read by language models."""

from typing import Any, Self
from uuid import UUID

from pydantic import Field

from ragcore.model import Document, Job, JobStatus, NoAnswerReason, Outcome
from ragcore_api.schemas.values import Out


class ToolPassage(Out):
    """A stretch of a document."""

    text: str
    score: float = Field(description="0 to 1, higher is better.")
    collection: str
    document_id: str
    title: str | None
    uri: str | None
    headings: list[str]
    page: int | None = Field(description="From 1; null where the format has no pages.")


class SearchResult(Out):
    """Passages, best first."""

    passages: list[ToolPassage]
    warnings: list[str]


class ToolCitation(Out):
    """What a marker [n] of an answer stands for."""

    marker: int
    quote: str = Field(description="The document's own words.")
    supported: bool = Field(description="Whether the sentence is borne out by the quote's passage.")
    collection: str
    document_id: str
    title: str | None
    uri: str | None
    page: int | None


class AskResult(Out):
    """An answer with markers [n], and what they stand for."""

    answer: str
    no_answer_reason: NoAnswerReason | None = Field(
        description="Why the documents hold no answer; null: they do."
    )
    citations: list[ToolCitation]
    warnings: list[str]
    trace_id: str | None = Field(description="For feedback on the answer; null: not traced.")


class IngestResult(Out):
    """A document on its way in."""

    job_id: UUID
    collection: str
    document_id: str = Field(description="By which it is found from now on.")
    status: JobStatus = Field(description="It can be searched when this is `succeeded`.")
    outcome: Outcome | None
    error: str | None = Field(description="Code and reason of a failure.")

    @classmethod
    def of_job(cls, job: Job) -> Self:
        return cls(
            job_id=job.job_id,
            collection=job.collection,
            document_id=job.document_id,
            status=job.status,
            outcome=job.outcome,
            error=None if job.error is None else f"{job.error.code}: {job.error.detail}",
        )


class ListedDocument(Out):
    document_id: str
    title: str | None
    uri: str | None
    mime_type: str | None
    language: str | None
    pages: int | None
    metadata: dict[str, Any]


class DocumentList(Out):
    """Documents in order of their ids."""

    documents: list[ListedDocument]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")


class DocumentText(Out):
    """A document and its text, or a part of it."""

    document: ListedDocument
    text: str = Field(description="Markdown.")
    characters: int = Field(description="Of the whole text.")
    next_offset: int | None = Field(description="For `offset`, to read on; null at the end.")

    @classmethod
    def part(cls, document: Document, text: str, *, offset: int, limit: int) -> Self:
        end = offset + limit
        return cls(
            document=ListedDocument.of(document),
            text=text[offset:end],
            characters=len(text),
            next_offset=end if end < len(text) else None,
        )
