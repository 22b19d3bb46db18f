"""Documents on their way in, and the jobs that take them."""

from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import Field, computed_field

from ragcore.model import JobStatus, Outcome, Stage
from ragcore_api.schemas.values import CollectionName, DocumentId, In, Out


class TextIn(In):
    """A text to be made searchable."""

    text: str = Field(min_length=1)
    collection: CollectionName | None = None
    document_id: DocumentId | None = None
    title: str | None = None
    filename: str = Field(
        default="text.txt", description="Says how to read the text: `notes.md` is Markdown."
    )
    metadata: dict[str, Any] | None = None


class JobErrorOut(Out):
    code: str
    detail: str
    retryable: bool


class JobOut(Out):
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


class JobsOut(Out):
    jobs: list[JobOut]
