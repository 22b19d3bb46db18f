"""Collections on their way to another embedding model or chunker."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field

from ragcore.model import Generation, GenerationState, Job
from ragcore.ports import SwitchMode
from ragcore_api.schemas.collections import CollectionOut
from ragcore_api.schemas.jobs import JobOut
from ragcore_api.schemas.values import MOST_QUESTION_CHARACTERS, In, Out, examples

_Question = Annotated[str, Field(min_length=1, max_length=MOST_QUESTION_CHARACTERS, pattern=r"\S")]


class ReindexIn(In):
    """Where a collection shall be moved to; what is left out stays as it is."""

    model_config = examples(
        {"embedding_model": "ollama:bge-m3"},
        {"max_tokens": 256, "questions": ["When does the ferry leave?"], "switch": "manual"},
    )

    embedding_model: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Provider and name, such as `ollama:bge-m3`.",
    )
    max_tokens: int | None = Field(
        default=None,
        ge=16,
        le=8192,
        description="The longest chunk, in tokens of the model; with another model and nothing "
        "given here: as configured.",
    )
    questions: list[_Question] = Field(
        default=[],
        max_length=100,
        description="What old and new answers are compared on; without any, up to 20 are drawn "
        "from headings and first sentences of the collection.",
    )
    switch: SwitchMode = Field(
        default="auto",
        description="`auto`: switched when every document is there; `manual`: waits for "
        "`POST …/reindex/switch`, so that the comparison can be read before.",
    )


class AcceptLossIn(In):
    """Whether documents may be lost from sight by it."""

    model_config = examples({}, {"accept_loss": True})

    accept_loss: bool = Field(
        default=False,
        description="Go on although some documents are not there and would not be found; they stay "
        "stored and can be ingested again.",
    )


_JOB: dict[str, Any] = {
    "job_id": "5f0c1f0e-6a0b-4f7e-9f0a-2f6f0d9f1c11",
    "collection": "reports",
    "document_id": "reports",
    "status": "succeeded",
    "kind": "reindex",
    "stage": None,
    "progress": 1.0,
    "outcome": None,
    "created_at": "2026-03-02T09:00:00Z",
    "started_at": "2026-03-02T09:00:01Z",
    "finished_at": "2026-03-02T09:20:00Z",
    "attempts": 1,
    "chunks": None,
    "pages": None,
    "language": None,
    "timings_ms": {},
    "warnings": [],
    "error": None,
    "parent_id": None,
    "counts": {"documents": 1000, "done": 1000, "nodes": 0},
    "result": {
        "state": "ready",
        "generation": 7,
        "embedding_model": "ollama:bge-m3",
        "chunker": "hybrid-1:384:bundled",
        "comparison": {
            "questions": 1,
            "compared": "documents",
            "are_drawn": False,
            "top_k": 10,
            "overlap": 0.8,
            "same_first": 1.0,
            "moved": 0.5,
            "found_before": None,
            "found_after": None,
            "milliseconds_before": 12.1,
            "milliseconds_after": 14.9,
            "samples": [
                {
                    "question": "When does the ferry leave?",
                    "overlap": 0.8,
                    "moved": 0.5,
                    "first_before": "timetable",
                    "first_after": "timetable",
                    "wanted_before": None,
                    "wanted_after": None,
                }
            ],
        },
        "problems": [],
        "warnings": [],
    },
    "status_url": "/jobs/5f0c1f0e-6a0b-4f7e-9f0a-2f6f0d9f1c11",
}


class GenerationOut(Out):
    """A collection's chunks under another embedding model or chunker than those that answer."""

    model_config = examples(
        {
            "generation": 7,
            "state": "ready",
            "embedding_model": "ollama:bge-m3",
            "dimension": 1024,
            "chunker": "hybrid-1:384:bundled",
            "documents": 1000,
            "missing": 0,
            "created_at": "2026-03-02T09:00:00Z",
            "retired_at": None,
            "job": _JOB,
        }
    )

    generation: int
    state: GenerationState = Field(
        description="`filling`: by a job. `ready`: filled, waits to be switched to. `retired`: "
        "answered before the last switch, and is kept up to date for going back."
    )
    embedding_model: str
    dimension: int
    chunker: str
    documents: int = Field(description="It holds so many as they are in place.")
    missing: int = Field(description="It lacks so many, or holds another version of them.")
    created_at: datetime | None
    retired_at: datetime | None = Field(description="When it stopped answering.")
    job: JobOut | None = Field(
        description="Of its filling: progress, and in `result` the comparison and the problems. "
        "Null when the job is no longer kept."
    )

    @classmethod
    def told(cls, generation: Generation, job: Job | None) -> Self:
        return cls(
            generation=generation.generation,
            state=generation.state,
            embedding_model=generation.embedding.model,
            dimension=generation.embedding.dimension,
            chunker=generation.chunker,
            documents=generation.documents,
            missing=generation.missing,
            created_at=generation.created_at,
            retired_at=generation.retired_at,
            job=None if job is None else JobOut.of(job),
        )


class ReindexOut(Out):
    """What answers, and what there is beside it."""

    collection: CollectionOut
    generations: list[GenerationOut] = Field(description="Empty: it was not moved lately.")
