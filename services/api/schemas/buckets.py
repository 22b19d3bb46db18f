"""Buckets that documents come from."""

from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import Field

from ragcore.model import JobStatus, Outcome
from ragcore.ports import ObjectAction, ObjectResult
from ragcore_api.schemas.jobs import JobErrorOut
from ragcore_api.schemas.values import CollectionName, In, Out, examples

Pattern = Annotated[str, Field(min_length=1, max_length=256)]


class BucketIn(In):
    """A bucket, or what lies under a prefix of it, to be ingested as far as it is new."""

    model_config = examples(
        {"bucket": "reports", "prefix": "2024/", "include": ["*.pdf"], "collection": "reports"},
        {"bucket": "reports", "delete_missing": True, "dry_run": True},
    )

    bucket: str = Field(
        min_length=1, max_length=63, description="One that an operator has configured."
    )
    prefix: str = Field(default="", max_length=1024, description="Only objects below it.")
    include: list[Pattern] = Field(
        default=[],
        max_length=50,
        description="Patterns of which one must match: `*.pdf` is for the last segment of a key, "
        "`2024/**` for a whole key. None: everything.",
    )
    exclude: list[Pattern] = Field(
        default=[], max_length=50, description="Patterns of which none may match."
    )
    collection: CollectionName | None = Field(
        default=None, description="Made on first use; left out: the service's default one."
    )
    metadata: dict[str, Any] | None = Field(
        default=None, description="Of every document, below what the object itself says."
    )
    delete_missing: bool = Field(
        default=False, description="Delete the documents whose objects are gone."
    )
    max_delete_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="When a larger share of the known objects is gone, or all of them, nothing is "
        "deleted and the job fails with `deletion_refused`; 1: any number may go.",
    )
    dry_run: bool = Field(default=False, description="Only tell what would be done.")


class ObjectOut(Out):
    """What a bucket's job decided about an object, and what became of it."""

    model_config = examples(
        {
            "key": "2024/annual.pdf",
            "action": "new",
            "reason": None,
            "job_id": "0b9a7d6c-3a51-4c0e-9a44-6a9f3a5d2c11",
            "status": "succeeded",
            "outcome": "created",
            "error": None,
        }
    )

    key: str
    action: ObjectAction
    reason: str | None = Field(description="Why it was left out, or how it failed before.")
    job_id: UUID | None = Field(description="The job of its document, where it has one.")
    status: JobStatus | None
    outcome: Outcome | None
    error: JobErrorOut | None

    @classmethod
    def told(cls, result: ObjectResult) -> Self:
        return cls(
            key=result.note.key,
            action=result.note.action,
            reason=result.note.reason,
            job_id=result.job_id,
            status=result.status,
            outcome=result.outcome,
            error=None if result.error is None else JobErrorOut.of(result.error),
        )


class ObjectPageOut(Out):
    """Objects of a bucket's job, in order of keys; those that needed nothing are only counted."""

    objects: list[ObjectOut]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")


class EventsHeardOut(Out):
    """How many of the objects that an event names had changed."""

    model_config = examples({"objects": 1})

    objects: int
