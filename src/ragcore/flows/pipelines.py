"""How documents become rows: a chunker and an embedding model together, one pair a collection.

A collection has the pair that was configured when it was made, until a reindex gives it another
one. So a process embeds with as many models as its collections have; they are opened when they are
first needed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ragcore.errors import CollectionMismatch, InvalidInput
from ragcore.flows.embedding import Embedding
from ragcore.model import Collection, EmbeddingSpec, Vectors
from ragcore.steps.fingerprints import are_comparable, require_same_embedding

OpenModel = Callable[[str, EmbeddingSpec | None], Awaitable[Embedding]]
"""Opens a model by provider and name; as it is described, where it was used before.

Raises InvalidInput for a name that is none, ModelUnavailable.
"""

BYTES_PER_TOKEN = 4
"""A token of Russian or English takes as many or more, where a model's own can't be counted."""

_LEAST_ROOM = 16
"""Tokens of text that a chunk must have room for; a chunker asks for as many."""


class DocumentEmbedding(Protocol):
    """What is asked of `flows.embedding` for documents."""

    @property
    def spec(self) -> EmbeddingSpec: ...

    async def documents(
        self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None
    ) -> tuple[Vectors, Sequence[str]]:
        """Return unit vectors, shape (len(texts), dimension), and warnings about single texts."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A chunker and an embedding model, and what their work is known by."""

    embedding: DocumentEmbedding
    chunker: str
    """Its fingerprint, `hybrid-1:384:bundled`: way of cutting, limit, kind of the counter."""
    max_tokens: int
    """Limit of a chunk, as the counter counts."""
    tokenizer: str
    """The counter; see `ports.ConversionRequest`."""
    fingerprint: str
    """Of all that decides about rows, the reader included."""


@dataclass(frozen=True, slots=True)
class Chunking:
    """How chunkers are named and how much their chunks may hold."""

    name: str
    """Of the way of cutting."""
    default_tokens: int
    fingerprint: Callable[[str, EmbeddingSpec], str]
    """Of a chunker and a model, together with the reader's."""

    def planned(self, embedding: Embedding, *, max_tokens: int | None = None) -> Pipeline:
        """Return the pipeline of a model, with chunks of at most so many tokens, if it reads them.

        Where only bytes can be counted a chunk may have four for each token. Raises InvalidInput
        for a number that leaves no room for text.
        """
        counter = embedding.counter_name
        least = embedding.count_tokens("") + _LEAST_ROOM
        if max_tokens is not None and max_tokens < least:
            raise InvalidInput(
                f"chunks of {max_tokens} tokens leave no room for text beside what the model"
                f" {embedding.spec.model!r} adds to it: set max_tokens to {least} or more"
            )
        units = BYTES_PER_TOKEN if counter == "bytes" else 1
        limit = min((max_tokens or self.default_tokens) * units, embedding.spec.max_tokens)
        return self._pipeline(embedding, limit, counter)

    def recorded(self, embedding: Embedding, chunker: str) -> Pipeline:
        """Return the pipeline whose chunker a collection recorded. Raises CollectionMismatch."""
        counter = embedding.counter_name
        name, _, rest = chunker.partition(":")
        limit, _, kind = rest.partition(":")
        if name != self.name or not limit.isdecimal() or kind != _kind(counter):
            raise CollectionMismatch(
                f"the chunker {chunker!r} is none that can be used here ({self.name!r} counts"
                f" by {_kind(counter)!r}): reindex the collection, or configure what it was made"
                " with"
            )
        return self._pipeline(embedding, int(limit), counter)

    def _pipeline(self, embedding: Embedding, limit: int, counter: str) -> Pipeline:
        chunker = f"{self.name}:{limit}:{_kind(counter)}"
        return Pipeline(
            embedding=embedding,
            chunker=chunker,
            max_tokens=limit,
            tokenizer=counter,
            fingerprint=self.fingerprint(chunker, embedding.spec),
        )


def _kind(counter: str) -> str:
    return counter.partition(":")[0]


class Pipelines:
    """The configured pipeline, and those of collections that were moved to another one.

    A model is opened once, and is to be closed by whoever opens them.
    """

    def __init__(
        self,
        configured: Embedding,
        *,
        chunking: Chunking,
        open_model: OpenModel,
        given: Sequence[Embedding] = (),
    ) -> None:
        self.chunking = chunking
        self.configured = chunking.planned(configured)
        self._open = open_model
        self._known = [configured, *given]
        self._opening = asyncio.Lock()
        self._fingerprints: dict[str, str] = {}

    async def embedding_of(self, spec: EmbeddingSpec) -> Embedding:
        """Return the model that made such vectors.

        Raises CollectionMismatch when it can't be had here or has changed, ModelUnavailable.
        """
        if (known := self._comparable(spec)) is not None:
            return known  # whoever waits for a model that hangs keeps nobody else waiting
        async with self._opening:
            if (known := self._comparable(spec)) is not None:
                return known
            try:
                found = await self._open(spec.model, spec)
            except InvalidInput as error:
                raise CollectionMismatch(
                    f"the embedding model {spec.model!r} can't be had here: {error}"
                ) from error
            require_same_embedding("(any)", spec, found.spec)  # its weights may have changed
            self._known.append(found)
            return found

    def _comparable(self, spec: EmbeddingSpec) -> Embedding | None:
        return next((known for known in self._known if are_comparable(spec, known.spec)), None)

    async def named(self, model: str) -> Embedding:
        """Return a model by provider and name. Raises InvalidInput, ModelUnavailable."""
        async with self._opening:
            for known in self._known:
                if known.spec.model == model:
                    return known
            found = await self._open(model, None)
            self._known.append(found)
            return found

    async def of(self, embedding: EmbeddingSpec, chunker: str) -> Pipeline:
        """Return the pipeline of a collection or generation. Raises as `embedding_of` does."""
        configured = self.configured
        if chunker == configured.chunker and are_comparable(embedding, configured.embedding.spec):
            return configured
        return self.chunking.recorded(await self.embedding_of(embedding), chunker)

    def fingerprint_of(self, collection: str) -> str:
        """Return what a version in that collection is known by, as far as was told by `learn`."""
        return self._fingerprints.get(collection, self.configured.fingerprint)

    def learn(self, collection: Collection) -> None:
        """Take note of what a collection was found to be made with.

        What is learnt late costs a document that was not changed another ingest, no more.
        """
        self._fingerprints[collection.name] = self.chunking.fingerprint(
            collection.chunker, collection.embedding
        )
