"""What a collection may be called, and when a configuration fits what is stored in it."""

import re
from typing import Final

from ragcore.errors import CollectionMismatch, InvalidInput
from ragcore.model import Collection, EmbeddingSpec

_NAME: Final = re.compile(r"[a-z0-9_-]{1,48}")


def require_name(name: str) -> str:
    """Return `name`, which may then stand in SQL between double quotes. Raises InvalidInput."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"{name!r} is no name for a collection: use 1 to 48 of a-z, 0-9, '_' and '-'"
        )
    return name


def require_same(stored: Collection, *, embedding: EmbeddingSpec, chunker: str) -> None:
    """Raise CollectionMismatch where vectors or chunks made now would not fit the stored ones.

    Digests count where both are known. Limits and languages of the model may change.
    """
    differences = [
        f"{what} {was!r} is stored, {now!r} is configured"
        for what, was, now in (
            ("embedding model", stored.embedding.model, embedding.model),
            ("dimension", stored.embedding.dimension, embedding.dimension),
            ("query prefix", stored.embedding.query_prefix, embedding.query_prefix),
            ("document prefix", stored.embedding.document_prefix, embedding.document_prefix),
            ("chunker", stored.chunker, chunker),
            ("model digest", *_known_digests(stored.embedding, embedding)),
        )
        if was != now
    ]
    if differences:
        raise CollectionMismatch(
            f"Collection {stored.name!r} was made otherwise: {'; '.join(differences)}."
            " Configure what is stored, use another collection, or delete this one and ingest again"
        )


def _known_digests(stored: EmbeddingSpec, configured: EmbeddingSpec) -> tuple[str, str]:
    """Both digests where both are known, otherwise nothing that differs."""
    if stored.digest is None or configured.digest is None:
        return "", ""
    return stored.digest, configured.digest
