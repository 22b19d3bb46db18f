"""Documents on their way in, and the jobs that take them."""

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, computed_field, model_validator

from ragcore.model import JobKind, JobStatus, Outcome, Stage
from ragcore_api.schemas.values import CollectionName, DocumentId, In, Out, examples

Uri = Annotated[
    str, Field(max_length=4096, pattern=r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s\x00-\x1F\x7F]+$")
]


class DescribedIn(In):
    """What can be said about a document, whichever way it comes."""

    collection: CollectionName | None = Field(
        default=None, description="Made on first use; left out: the service's default one."
    )
    document_id: DocumentId | None = Field(
        default=None,
        description="Sent again with other bytes it is a new version. Left out: derived from the "
        "URI, otherwise from the bytes.",
    )
    title: str | None = Field(default=None, max_length=2000)
    metadata: dict[str, Any] | None = Field(
        default=None, description="Any JSON object; answers to filters of questions."
    )
    callback_url: str | None = Field(
        default=None,
        max_length=4096,
        description="Sent the job, as POST and signed, when it has ended.",
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When the document is deleted by itself."
    )


class IngestIn(DescribedIn):
    """A text, or a URL to fetch: exactly one of `text`, `url`, or a `uri` without a text."""

    model_config = examples(
        {
            "text": "The ferry to Vega leaves at noon.",
            "title": "Timetable",
            "document_id": "timetable",
            "metadata": {"year": 1931},
        },
        {"url": "https://example.org/report.pdf", "collection": "reports"},
    )

    text: str | None = Field(default=None, min_length=1, description="The document itself.")
    url: str | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description="Fetched before this is answered; of the open internet, by http or https. "
        "Sent again, its server is asked whether it has changed.",
    )
    uri: Uri | None = Field(
        default=None,
        description="With a text: where it comes from, and what it is known by. "
        "Alone: the same as `url`.",
    )
    filename: str | None = Field(
        default=None,
        max_length=1000,
        description="Says how to read it: `notes.md` is Markdown.",
    )

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        sources = [self.text, self.url, None if self.text is not None else self.uri]
        if sum(source is not None for source in sources) != 1:
            raise ValueError("name exactly one source: text, url or uri; a text may have a uri")
        return self


class FormIn(DescribedIn):
    """What comes with the files of a form; `metadata` is the text of a JSON object there."""


class JobErrorOut(Out):
    code: str = Field(description="Public and stable; listed in docs/reference/errors.md.")
    detail: str
    retryable: bool = Field(description="Whether it may succeed unchanged, later.")


_JOB = {
    "job_id": "0b9a7d6c-3a51-4c0e-9a44-6a9f3a5d2c11",
    "collection": "default",
    "document_id": "timetable",
    "status": "running",
    "stage": "embedding",
    "progress": 0.4,
    "outcome": None,
    "error": None,
    "attempts": 1,
    "chunks": None,
    "pages": None,
    "language": None,
    "timings_ms": {},
    "warnings": [],
    "created_at": "2026-01-12T09:30:00Z",
    "started_at": "2026-01-12T09:30:01Z",
    "finished_at": None,
    "kind": "document",
    "parent_id": None,
    "counts": {},
    "result": {},
    "status_url": "/jobs/0b9a7d6c-3a51-4c0e-9a44-6a9f3a5d2c11",
}


class JobOut(Out):
    """One unit of work: for one document, for a bucket and what is in it, or a reindex."""

    model_config = examples(_JOB)

    job_id: UUID
    collection: str
    document_id: str
    status: JobStatus
    stage: Stage | None = Field(description="What is done now, while it runs.")
    progress: float = Field(description="0 to 1 within the stage.")
    outcome: Outcome | None = Field(description="How it ended well.")
    error: JobErrorOut | None = Field(description="How it failed, or why it is tried again.")
    attempts: int
    chunks: int | None
    pages: int | None
    language: str | None = Field(description="ISO 639-1, of most of the text.")
    timings_ms: dict[str, float] = Field(description="Wall time of each stage.")
    warnings: list[str]
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    kind: JobKind = Field(
        description="A `bucket` job has the id of its bucket and prefix as `document_id`, a "
        "`reindex` job the name of its collection."
    )
    parent_id: UUID | None = Field(description="The bucket's job that made this one.")
    counts: dict[str, int] = Field(
        description="What a bucket's job found and did, by outcome; how far a reindex is: "
        "`documents`, and those `done`."
    )
    result: dict[str, Any] = Field(
        description="What a reindex found out: `state`, `comparison`, `problems` and `warnings`, "
        "explained in docs/how-to/reindex.md. Empty for other jobs."
    )

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def status_url(self) -> str:
        return f"/jobs/{self.job_id}"


class JobsOut(Out):
    """Jobs in the order of what was sent."""

    jobs: list[JobOut]


class JobPageOut(Out):
    """Jobs, the newest first."""

    jobs: list[JobOut]
    next_cursor: UUID | None = Field(description="For `cursor`; null on the last page.")


class JobFilterIn(In):
    """Which failed jobs; what is left out does not matter."""

    model_config = examples({"collection": "reports", "code": "model_unavailable"})

    collection: CollectionName | None = None
    document_id: DocumentId | None = None
    code: str | None = Field(default=None, max_length=100, description="Of the failure.")


class JobProgressOut(Out):
    """How far a job is: the data of a `progress` event."""

    job_id: UUID
    status: JobStatus
    stage: Stage | None
    progress: float
    attempts: int
