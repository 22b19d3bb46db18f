"""Documents that are there, and what was understood of them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from ragcore.model import Document, ReadingReport, Version, VersionState
from ragcore_api.schemas.values import Box, CollectionName, In, Out, examples

_EXAMPLE: dict[str, Any] = {
    "document_id": "timetable~5f1d8c02a7b94e13",
    "collection": "default",
    "title": "Winter timetable",
    "uri": "https://example.org/timetable.pdf",
    "mime_type": "application/pdf",
    "language": "en",
    "metadata": {"year": 2026, "department": "harbour"},
    "extracted": {"author": "Harbour office"},
    "version_id": "0b6e9c0e-6a3f-4a57-9a53-0f6f0f7f3c11",
    "chunks": 42,
    "pages": 12,
    "created_at": "2026-03-01T09:00:00Z",
    "updated_at": "2026-03-02T17:30:00Z",
    "expires_at": None,
}

_VERSION_EXAMPLE: dict[str, Any] = {
    "version_id": "0b6e9c0e-6a3f-4a57-9a53-0f6f0f7f3c11",
    "sequence": 1,
    "state": "current",
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "size_bytes": 182_311,
    "filename": "timetable.pdf",
    "mime_type": "application/pdf",
    "fingerprint": "0f343b0931126a20f133d67c2b018a3b",
    "chunks": 42,
    "pages": 12,
    "language": "en",
    "created_at": "2026-03-01T09:00:00Z",
}

Extracted = Annotated[
    dict[str, Any], Field(description="What the file says of itself: author, dates …")
]


class DocumentOut(Out):
    """One logical source, with a stable id inside its collection."""

    model_config = examples(_EXAMPLE)

    document_id: str
    collection: str
    title: str | None
    uri: str | None = Field(description="Where it came from; null for an upload.")
    mime_type: str | None = Field(description="By its content, not by its name.")
    language: str | None = Field(description="ISO 639-1 code of most of its text.")
    metadata: dict[str, Any] = Field(description="What its owner says of it; filterable.")
    extracted: Extracted
    version_id: UUID | None = Field(
        description="The version that answers; null while the first is on its way."
    )
    chunks: int
    pages: int | None = Field(description="null where the format has none.")
    created_at: datetime | None
    updated_at: datetime | None
    expires_at: datetime | None = Field(description="When it deletes itself; null: never.")


class DocumentsOut(Out):
    documents: list[DocumentOut]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")


class DocumentVersionOut(Out):
    """One set of bytes of a document, and what became of it."""

    version_id: UUID
    sequence: int = Field(description="From 1, in order of arrival.")
    state: VersionState = Field(
        description="`current` answers; `pending` is on its way; `replaced` answered before; "
        "`superseded` came too late; `failed` could not be read."
    )
    sha256: str
    size_bytes: int
    filename: str | None
    mime_type: str | None
    fingerprint: str = Field(description="Of the parser, chunker and model that processed it.")
    chunks: int | None
    pages: int | None
    language: str | None
    created_at: datetime | None


class ReadingReportOut(Out):
    """How well the version in place could be read."""

    parser: str
    profile: str = Field(description="`fast`, `layout`, `full`, `ocr`, or the format's own.")
    mime_type: str
    encoding: str | None
    pages: int | None
    pages_without_text: list[int]
    ocr_pages: list[int]
    ocr_confidence: float | None = Field(description="Mean over recognised words, 0…1.")
    replaced_characters: int
    characters: int
    warnings: list[str]
    is_doubtful: bool = Field(description="Somebody should look at the document.")


class DocumentDetailOut(DocumentOut):
    """A document with its versions, and how well it could be read."""

    model_config = examples(_EXAMPLE | {"versions": [_VERSION_EXAMPLE], "reading_report": None})

    versions: list[DocumentVersionOut] = Field(description="The newest first.")
    reading_report: ReadingReportOut | None = Field(
        description="null while nothing of it is in place."
    )

    @classmethod
    def made_of(
        cls, document: Document, versions: Sequence[Version], report: ReadingReport | None
    ) -> Self:
        return cls(
            **DocumentOut.of(document).model_dump(),
            versions=[DocumentVersionOut.of(version) for version in versions],
            reading_report=None if report is None else ReadingReportOut.of(report),
        )


def _without_default(schema: dict[str, Any]) -> None:
    del schema["default"]


class DocumentPatchIn(In):
    """What to change; what is left out stays."""

    model_config = examples(
        {"title": "Winter timetable", "metadata": {"year": 2026}},
        {"expires_at": "2027-01-01T00:00:00Z"},
        {"expires_at": None},
    )

    title: Annotated[str, Field(min_length=1, max_length=500)] | SkipJsonSchema[None] = Field(
        default=None, json_schema_extra=_without_default
    )
    metadata: dict[str, Any] | SkipJsonSchema[None] = Field(
        default=None,
        description="Replaces the whole object; `{}` empties it.",
        json_schema_extra=_without_default,
    )
    expires_at: AwareDatetime | None = Field(
        default=None, description="When the document deletes itself; null: never."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name at least one of title, metadata and expires_at")
        for name in {"title", "metadata"} & self.model_fields_set:
            if getattr(self, name) is None:
                raise ValueError(f"{name} can't be null; leave it out to keep it")
        return self


class DocumentsDeleteIn(In):
    """Which documents to delete."""

    model_config = examples(
        {"filter": {"year": {"$lt": 2020}}, "dry_run": True},
        {"collection": "minutes", "filter": {"document_id": {"$in": ["a", "b"]}}},
    )

    collection: CollectionName | None = None
    filter: dict[str, Any] = Field(
        min_length=1,
        description="As in a question. It can't be empty: to delete everything, delete the "
        "collection.",
    )
    dry_run: bool = Field(default=False, description="Only tell what would be deleted.")


class ReceiptOut(Out):
    """What a deletion removed: it is gone when you read this."""

    model_config = examples(
        {
            "collection": "default",
            "document_ids": ["timetable~5f1d8c02a7b94e13"],
            "chunks": 42,
            "versions": 2,
            "blobs": 6,
            "cached_vectors": 42,
            "dry_run": False,
        }
    )

    collection: str
    document_ids: list[str]
    chunks: int
    versions: int
    blobs: int = Field(description="Stored files.")
    cached_vectors: int = Field(description="Embeddings of the texts that were kept to be reused.")
    dry_run: bool = Field(default=False, description="True: nothing was deleted.")


class PlaceOut(Out):
    """Where a stretch of text stands on a page."""

    page: int = Field(description="From 1.")
    bbox: Box | None = Field(
        validation_alias="box", description="Left, top, right, bottom in points from the top left."
    )


class ChunkOut(Out):
    """A stretch of a document's text, as it is found and cited."""

    model_config = examples(
        {
            "chunk_id": "c3f1a0d2b4e59687",
            "ordinal": 7,
            "text": "On Sundays the last ferry leaves at 21:40.",
            "headings": ["Departures", "Sundays"],
            "page": 3,
            "bbox": [72.0, 96.5, 540.0, 180.2],
            "places": [{"page": 3, "bbox": [72.0, 96.5, 540.0, 180.2]}],
            "language": "en",
        }
    )

    chunk_id: str
    ordinal: int = Field(description="Position in the document, from 0.")
    text: str
    headings: list[str] = Field(description="From the outermost inwards.")
    page: int | None
    bbox: Box | None = Field(validation_alias="box")
    places: list[PlaceOut] = Field(description="In reading order; the first is `page`, `bbox`.")
    language: str | None


class ChunksOut(Out):
    chunks: list[ChunkOut]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")
