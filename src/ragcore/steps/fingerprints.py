"""What things are known by: a text in the cache of vectors, a configuration in a collection."""

from collections.abc import Iterable, Iterator
from hashlib import blake2b

from ragcore.errors import CollectionMismatch
from ragcore.model import Collection, EmbeddingSpec

Trait = tuple[str, object, object]
"""What it is, how it was, how it is now."""


def text_hash(text: str) -> bytes:
    """Return what the vector of a text is kept under, beside the model that computed it."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def require_same(stored: Collection, *, embedding: EmbeddingSpec, chunker: str) -> None:
    """Raise CollectionMismatch where vectors or chunks made now would not fit the stored ones.

    Digests count where both are known. Limits and languages of the model may change.
    """
    chunkers = ("chunker", stored.chunker, chunker)
    _require_alike(stored.name, [*_traits(stored.embedding, embedding), chunkers], embedding.model)


def require_same_embedding(
    collection: str, stored: EmbeddingSpec, configured: EmbeddingSpec
) -> None:
    """Raise CollectionMismatch where a vector made now can't be compared with the stored ones."""
    if stored is not configured:
        _require_alike(collection, _traits(stored, configured), configured.model)


def are_comparable(one: EmbeddingSpec, other: EmbeddingSpec) -> bool:
    """Tell whether vectors of the two can be compared."""
    return one is other or all(was == now for _, was, now in _traits(one, other))


def _traits(stored: EmbeddingSpec, configured: EmbeddingSpec) -> Iterator[Trait]:
    yield "embedding model", stored.model, configured.model
    yield "dimension", stored.dimension, configured.dimension
    yield "query prefix", stored.query_prefix, configured.query_prefix
    yield "document prefix", stored.document_prefix, configured.document_prefix
    if stored.digest is not None and configured.digest is not None:
        yield "model digest", stored.digest, configured.digest


def _require_alike(collection: str, traits: Iterable[Trait], model: str) -> None:
    differences = [
        f"{what} {was!r} is stored, {now!r} is configured"
        for what, was, now in traits
        if was != now
    ]
    if differences:
        raise CollectionMismatch(
            f"Collection {collection!r} was made otherwise: {'; '.join(differences)}."
            " Configure what is stored; or move the collection to what is configured, with"
            f" `ragcore reindex start {collection} --model {model}`; or use another collection"
        )
