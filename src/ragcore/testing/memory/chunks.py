"""Collections and chunks in memory: the same answers as PostgreSQL, without stemming."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from ragcore.errors import CollectionMismatch, CollectionNotFound
from ragcore.model import (
    Candidate,
    Candidates,
    Chunk,
    Collection,
    DeletionReceipt,
    Document,
    EmbeddingSpec,
    Filter,
    Passage,
    Term,
    Vector,
    Vectors,
)
from ragcore.steps import filtering
from ragcore.steps.fingerprints import require_same
from ragcore.steps.identity import checked_collection
from ragcore.steps.languages import normalise_words

_K1: Final = 1.2
_B: Final = 0.75


@dataclass(frozen=True, slots=True)
class _Row:
    """A chunk as it is searched."""

    chunk: Chunk
    vector: Vector
    document: Document
    words: Counter[str]

    @property
    def length(self) -> int:
        return self.words.total()


class MemoryChunks:
    """`ports.ChunkStore` for tests of flows."""

    def __init__(self, *collections: str) -> None:
        self._rows: dict[str, dict[str, list[_Row]]] = {name: {} for name in collections}
        self._embeddings: dict[str, EmbeddingSpec] = {}

    def add_collection(self, name: str, embedding: EmbeddingSpec) -> None:
        self._rows.setdefault(name, {})
        self._embeddings[name] = embedding

    def drop_collection(self, name: str) -> Mapping[str, int]:
        """Forget a collection; return how many chunks each of its documents had."""
        self._embeddings.pop(name, None)
        dropped = self._rows.pop(name, {})
        return {document_id: len(rows) for document_id, rows in sorted(dropped.items())}

    def count(self, name: str) -> tuple[int, int]:
        """Return how many documents and chunks a collection holds."""
        documents = self._documents(name)
        return len(documents), sum(map(len, documents.values()))

    def replace(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Make `chunks` the document's only ones."""
        self._documents(document.collection)[document.document_id] = [
            _Row(chunk, vector, document, Counter(_words(chunk.embedding_text)))
            for chunk, vector in zip(chunks, vectors, strict=True)
        ]

    def remove(self, collection: str, document_id: str) -> None:
        self._documents(collection).pop(document_id, None)

    async def candidates(
        self,
        collection: str,
        *,
        vector: Vector | None,
        text: str | None,
        filters: Filter | None = None,
        vector_limit: int = 50,
        keyword_limit: int = 50,
    ) -> Candidates:
        every = self._all(collection)
        if filters is not None:
            filtering.check(filters)
        matching = [
            row
            for row in every
            if filters is None or filtering.matches(filters, filtering.fields_of(row.document))
        ]
        terms = _terms(text or "", every)
        cosines = _cosines(vector, matching)
        scores = {row.chunk.chunk_id: _bm25(row, terms, every) for row in matching}
        by_vector = _ranks(cosines, vector_limit)
        by_words = _ranks({id_: s for id_, s in scores.items() if s > 0}, keyword_limit)
        found = [
            Candidate(
                passage=_passage(row),
                cosine=cosines.get(row.chunk.chunk_id),
                bm25=scores[row.chunk.chunk_id],
                vector_rank=by_vector.get(row.chunk.chunk_id),
                keyword_rank=by_words.get(row.chunk.chunk_id),
                matched=tuple(term.lexeme for term in terms if term.lexeme in row.words),
            )
            for row in matching
            if row.chunk.chunk_id in by_vector or row.chunk.chunk_id in by_words
        ]
        languages = Counter(row.chunk.language for row in every if row.chunk.language is not None)
        return Candidates(
            candidates=tuple(found),
            terms=terms,
            total_chunks=len(every),
            languages=dict(languages),
            exact=True,
            embedding=self._embeddings.get(collection),
        )

    async def passages(self, collection: str, chunk_ids: Sequence[str]) -> Sequence[Passage]:
        rows = {row.chunk.chunk_id: row for row in self._all(collection)}
        return [_passage(rows[chunk_id]) for chunk_id in chunk_ids if chunk_id in rows]

    async def document_chunks(
        self, collection: str, document_id: str, *, first: int = 0, limit: int | None = None
    ) -> Sequence[Passage]:
        rows = self._documents(collection).get(document_id, [])
        return [_passage(row) for row in rows if row.chunk.ordinal >= first][:limit]

    async def neighbours(
        self, collection: str, chunk_ids: Sequence[str], *, radius: int = 1
    ) -> Mapping[str, Sequence[Passage]]:
        return {
            row.chunk.chunk_id: [
                _passage(other)
                for other in rows
                if abs(other.chunk.ordinal - row.chunk.ordinal) <= radius
            ]
            for rows in self._documents(collection).values()
            for row in rows
            if row.chunk.chunk_id in chunk_ids
        }

    def _documents(self, collection: str) -> dict[str, list[_Row]]:
        checked_collection(collection)
        try:
            return self._rows[collection]
        except KeyError as error:
            raise CollectionNotFound(f"There is no collection {collection!r}") from error

    def _all(self, collection: str) -> list[_Row]:
        return [row for rows in self._documents(collection).values() for row in rows]


class MemoryCollections:
    """`ports.Collections` for tests of flows; it shares the chunks it counts and drops."""

    def __init__(self, chunks: MemoryChunks) -> None:
        self._chunks = chunks
        self._collections: dict[str, Collection] = {}

    async def open(
        self,
        name: str,
        *,
        embedding: EmbeddingSpec,
        chunker: str,
        create: bool = True,
        language: str | None = None,
        strict: bool = False,
    ) -> Collection:
        checked_collection(name)
        if name not in self._collections and create:
            self._chunks.add_collection(name, embedding)
            self._collections[name] = Collection(
                name,
                embedding,
                chunker,
                language=language,
                strict=strict,
                created_at=datetime.now(UTC),
            )
        found = await self.get(name)
        require_same(found, embedding=embedding, chunker=chunker)
        return found

    async def get(self, name: str) -> Collection:
        try:
            return self._collections[name]
        except KeyError as error:
            raise CollectionNotFound(f"There is no collection {name!r}") from error

    async def list(self) -> Sequence[tuple[Collection, int, int]]:
        return [
            (collection, *self._chunks.count(name))
            for name, collection in sorted(self._collections.items())
        ]

    async def delete(self, name: str) -> tuple[DeletionReceipt, Sequence[UUID]]:
        await self.get(name)
        del self._collections[name]
        dropped = self._chunks.drop_collection(name)
        receipt = DeletionReceipt(
            collection=name,
            document_ids=tuple(dropped),
            chunks=sum(dropped.values()),
            versions=0,
            blobs=0,
        )
        return receipt, ()


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", normalise_words(text).lower())


def _terms(text: str, rows: Sequence[_Row]) -> tuple[Term, ...]:
    found = []
    for word in dict.fromkeys(_words(text)):
        frequency = sum(word in row.words for row in rows)
        idf = math.log(1 + (len(rows) - frequency + 0.5) / (frequency + 0.5))
        found.append(Term(word, frequency, idf))
    return tuple(sorted(found, key=lambda term: (term.documents, term.lexeme)))


def _bm25(row: _Row, terms: Iterable[Term], rows: Sequence[_Row]) -> float:
    mean_length = max(1.0, sum(other.length for other in rows) / len(rows))
    norm = _K1 * (1 - _B + _B * row.length / mean_length)
    return sum(
        term.idf * (_K1 + 1) * row.words[term.lexeme] / (row.words[term.lexeme] + norm)
        for term in terms
    )


def _cosines(vector: Vector | None, rows: Sequence[_Row]) -> dict[str, float]:
    if vector is None:
        return {}
    for row in rows:
        if row.vector.shape != vector.shape:
            raise CollectionMismatch(f"Vectors here do not have {len(vector)!r} dimensions")
    return {row.chunk.chunk_id: float(row.vector @ vector) for row in rows}


def _ranks(scores: Mapping[str, float], limit: int) -> dict[str, int]:
    best = sorted(scores, key=lambda chunk_id: -scores[chunk_id])[:limit]
    return {chunk_id: rank for rank, chunk_id in enumerate(best, start=1)}


def _passage(row: _Row) -> Passage:
    return Passage(
        chunk_id=row.chunk.chunk_id,
        document_id=row.document.document_id,
        collection=row.document.collection,
        ordinal=row.chunk.ordinal,
        text=row.chunk.text,
        title=row.document.title,
        uri=row.document.uri,
        headings=row.chunk.headings,
        places=row.chunk.places,
        elements=row.chunk.elements,
        language=row.chunk.language,
        metadata=row.document.metadata,
    )
