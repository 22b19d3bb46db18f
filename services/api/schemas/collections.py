"""Collections: what their documents have in common."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import Field

from ragcore.model import Collection
from ragcore_api.schemas.values import In, Out, examples

_EXAMPLE: dict[str, Any] = {
    "name": "default",
    "embedding_model": "bundled:multilingual-e5-small",
    "dimension": 384,
    "chunker": "hybrid-1:384:bundled",
    "language": None,
    "strict": False,
    "documents": 128,
    "chunks": 5120,
    "created_at": "2026-03-01T09:00:00Z",
}

Language = Annotated[str, Field(pattern=r"^[a-z]{2}$", examples=["ru"])]


class CollectionIn(In):
    """What a collection shall be like; what is left out is as configured, or as it is already."""

    model_config = examples({}, {"language": "ru", "strict": True})

    embedding_model: str | None = Field(
        default=None,
        max_length=200,
        description="Provider and name. It must be the one this service is configured with.",
        examples=["bundled:multilingual-e5-small"],
    )
    language: Language | None = Field(
        default=None,
        description="ISO 639-1 code of what its documents are in; null: told chunk by chunk.",
    )
    strict: bool | None = Field(
        default=None,
        description="Refuse text in a language that the model can't serve, instead of warning.",
    )


class CollectionOut(Out):
    """A named set of documents that share one embedding model."""

    model_config = examples(_EXAMPLE)

    name: str
    embedding_model: str
    dimension: int = Field(description="Of its vectors.")
    chunker: str
    language: str | None
    strict: bool
    documents: int
    chunks: int
    created_at: datetime | None

    @classmethod
    def counted(cls, collection: Collection, documents: int, chunks: int) -> Self:
        return cls(
            name=collection.name,
            embedding_model=collection.embedding.model,
            dimension=collection.embedding.dimension,
            chunker=collection.chunker,
            language=collection.language,
            strict=collection.strict,
            documents=documents,
            chunks=chunks,
            created_at=collection.created_at,
        )


class CollectionsOut(Out):
    collections: list[CollectionOut]
    next_cursor: str | None = Field(description="For `cursor`; null on the last page.")
