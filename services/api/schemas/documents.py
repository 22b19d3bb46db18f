"""Documents that are there."""

from datetime import datetime
from typing import Any

from pydantic import Field

from ragcore_api.schemas.values import Out


class DocumentOut(Out):
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


class DocumentsOut(Out):
    documents: list[DocumentOut]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")
