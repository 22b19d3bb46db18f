"""When a configuration fits what is stored in a collection."""

from ragcore.errors import CollectionMismatch
from ragcore.model import Collection, EmbeddingSpec


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
