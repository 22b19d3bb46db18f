"""A collection as a LlamaIndex vector store, over our own SQL."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from ragcore.adapters.postgres.nodes import NodeRow, PostgresNodes, StoredNode
from ragcore.errors import InvalidInput
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.filters import filter_of, of_documents
from ragcore.llamaindex.nodes import node_from_passage, node_from_row, row_from_node
from ragcore.model import Candidate, Candidates, EmbeddingSpec, Filter, Vector
from ragcore.steps.fusing import perfect_bm25

_EVEN = 0.5
"""`alpha` and `mmr_threshold` of a query that names none."""
_MMR_PREFETCH = 4
"""MMR chooses among so many times the nodes asked for, as LlamaIndex's own stores do."""
_LEAST_CANDIDATES = 50
"""What each leg proposes at least in HYBRID mode: the best of both is seldom the best of either."""

Scores = Mapping[str, float]
"""Nodes by id, best first, with their scores: higher is better."""


class RagVectorStore(BasePydanticVectorStore):
    """The nodes of one collection: ingested chunks and nodes added here, side by side.

    Modes: DEFAULT scores by cosine, TEXT_SEARCH and SPARSE by BM25, HYBRID in 0…1 with `alpha` as
    the vector leg's weight, MMR by cosine in an order that avoids repetition. All filters, nested
    too, and restrictions to nodes and documents never return fewer nodes than match. Every method
    works inside a running event loop and outside; the async ones never block it.
    """

    stores_text: bool = True
    flat_metadata: bool = False
    collection: str

    _nodes: Bridged[PostgresNodes] = PrivateAttr()

    def __init__(self, nodes: Bridged[PostgresNodes], *, collection: str) -> None:
        super().__init__(collection=collection)  # type: ignore[call-arg]  # fields of a subclass
        self._nodes = nodes

    @classmethod
    def from_url(
        cls,
        database_url: str,
        *,
        collection: str = "default",
        embedding: EmbeddingSpec | None = None,
        pool_size: int = 4,
    ) -> "RagVectorStore":
        """Open a collection of a migrated database, from anywhere; `close` it at the end.

        With `embedding` a collection that is missing is made by the first `add`. Connects with the
        first call; raises StoreUnavailable or CollectionNotFound then.
        """

        @asynccontextmanager
        async def open_() -> AsyncIterator[PostgresNodes]:
            from ragcore.adapters.postgres.pool import open_pool

            async with open_pool(database_url, size=pool_size) as pool:
                prepare = None if embedding is None else _maker(pool, collection, embedding)
                yield PostgresNodes(pool, collection, prepare=prepare)

        return cls(Bridged.opened_by(open_), collection=collection)

    @classmethod
    def class_name(cls) -> str:
        return "RagVectorStore"

    @property
    def client(self) -> Bridged[PostgresNodes]:
        """What the store works with: row operations, on whichever event loop asks."""
        return self._nodes

    def close(self) -> None:
        """Close the connections that sync calls opened."""
        self._nodes.close()

    async def aclose(self) -> None:
        """Close the connections that calls from other loops opened."""
        await self._nodes.aclose()

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings, in place of those with the same ids."""
        return self._nodes.call_sync(lambda store: _add(store, nodes))

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes with their embeddings, in place of those with the same ids."""
        return await self._nodes.call(lambda store: _add(store, nodes))

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove every node of a document, and an ingested document from the catalogue.

        Its stored files go with the sweep of orphans; `Rag.delete` takes them at once.
        """
        self._nodes.call_sync(lambda store: store.delete_document(ref_doc_id))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove every node of a document, and an ingested document from the catalogue.

        Its stored files go with the sweep of orphans; `Rag.delete` takes them at once.
        """
        await self._nodes.call(lambda store: store.delete_document(ref_doc_id))

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove the nodes of these ids that match; without ids and filters, none."""
        self._nodes.call_sync(lambda store: _delete_nodes(store, node_ids, filters))

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove the nodes of these ids that match; without ids and filters, none."""
        await self._nodes.call(lambda store: _delete_nodes(store, node_ids, filters))

    def clear(self) -> None:
        """Remove all nodes, and all documents of the collection; the collection stays."""
        self._nodes.call_sync(lambda store: store.clear())

    async def aclear(self) -> None:
        """Remove all nodes, and all documents of the collection; the collection stays."""
        await self._nodes.call(lambda store: store.clear())

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes of these ids, in that order, that match; all when neither is given."""
        return self._nodes.call_sync(lambda store: _get_nodes(store, node_ids, filters))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes of these ids, in that order, that match; all when neither is given."""
        return await self._nodes.call(lambda store: _get_nodes(store, node_ids, filters))

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes with their scores; see the class for modes."""
        return self._nodes.call_sync(lambda store: _query(store, query))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the best nodes with their scores; see the class for modes."""
        return await self._nodes.call(lambda store: _query(store, query))


def _maker(pool: Any, collection: str, embedding: EmbeddingSpec) -> Callable[[], Awaitable[object]]:
    from ragcore.adapters.postgres.collections import PostgresCollections
    from ragcore.errors import CollectionNotFound

    async def make() -> None:
        collections = PostgresCollections(pool)
        try:
            await collections.get(collection)
        except CollectionNotFound:
            await collections.open(collection, embedding=embedding, chunker="nodes")

    return make


# --- writing and reading -------------------------------------------------------------------


async def _add(store: PostgresNodes, nodes: Sequence[BaseNode]) -> list[str]:
    await store.add([row_from_node(node) for node in nodes])
    return [node.node_id for node in nodes]


async def _delete_nodes(
    store: PostgresNodes, node_ids: list[str] | None, filters: MetadataFilters | None
) -> None:
    matching = filter_of(filters)
    if node_ids is not None or matching is not None:
        await store.delete(node_ids, matching)


async def _get_nodes(
    store: PostgresNodes, node_ids: list[str] | None, filters: MetadataFilters | None
) -> list[BaseNode]:
    found = [_node(stored) for stored in await store.get(node_ids, filter_of(filters))]
    if node_ids is None:
        return found
    by_id = {node.node_id: node for node in found}
    return [by_id[node_id] for node_id in node_ids if node_id in by_id]


def _node(stored: StoredNode) -> BaseNode:
    return node_from_row(stored) if isinstance(stored, NodeRow) else node_from_passage(stored)


# --- querying ------------------------------------------------------------------------------


async def _query(store: PostgresNodes, query: VectorStoreQuery) -> VectorStoreQueryResult:
    # An index over this store passes empty lists for "any".
    filters = of_documents(filter_of(query.filters), query.doc_ids or None)
    match query.mode:
        case VectorStoreQueryMode.DEFAULT:
            scores = await _by_cosine(store, query, filters, query.similarity_top_k)
        case VectorStoreQueryMode.TEXT_SEARCH | VectorStoreQueryMode.SPARSE:
            scores = await _by_words(store, query, filters)
        case VectorStoreQueryMode.HYBRID:
            scores = await _by_both(store, query, filters)
        case VectorStoreQueryMode.MMR:
            scores = await _by_cosine_and_difference(store, query, filters)
        case mode:
            raise InvalidInput(
                f"query mode {mode.value!r} is not supported: use default, text_search, sparse, "
                "hybrid or mmr"
            )
    return await _result(store, scores)


async def _by_cosine(
    store: PostgresNodes, query: VectorStoreQuery, filters: Filter | None, limit: int
) -> Scores:
    found = await store.candidates(
        vector=_vector(query),
        text=None,
        filters=filters,
        node_ids=query.node_ids or None,
        vector_limit=limit,
        keyword_limit=0,
    )
    return _best(_scores(found, lambda candidate: candidate.cosine), limit)


async def _by_words(
    store: PostgresNodes, query: VectorStoreQuery, filters: Filter | None
) -> Scores:
    limit = query.sparse_top_k or query.similarity_top_k
    found = await _candidates(store, query, filters, vector=None, limits=(0, limit))
    return _best(_scores(found, lambda it: it.bm25 if it.keyword_rank else None), limit)


async def _by_both(store: PostgresNodes, query: VectorStoreQuery, filters: Filter | None) -> Scores:
    """Add up both legs, each in 0…1: cosine within the candidates' range, share of the best BM25.

    A keyword leg that finds few of the question's words has little to say, so the sum does not
    lose to the vector leg alone.
    """
    limits = (
        max(query.similarity_top_k, _LEAST_CANDIDATES),
        max(query.sparse_top_k or query.similarity_top_k, _LEAST_CANDIDATES),
    )
    found = await _candidates(store, query, filters, vector=_vector(query), limits=limits)
    alpha = _EVEN if query.alpha is None else query.alpha
    cosines = [it.cosine for it in found.candidates if it.cosine is not None]
    low, high = min(cosines, default=0.0), max(cosines, default=0.0)
    best_bm25 = perfect_bm25(found)

    def score(candidate: Candidate) -> float:
        vector_leg = _share((candidate.cosine or low) - low, high - low)
        return alpha * vector_leg + (1 - alpha) * _share(candidate.bm25, best_bm25)

    return _best(_scores(found, score), query.hybrid_top_k or query.similarity_top_k)


async def _by_cosine_and_difference(
    store: PostgresNodes, query: VectorStoreQuery, filters: Filter | None
) -> Scores:
    """Choose one by one what is near the question and far from what was chosen before."""
    limit = query.similarity_top_k
    near = await _by_cosine(store, query, filters, limit * _MMR_PREFETCH)
    vectors = await store.vectors(list(near))
    nearness = _EVEN if query.mmr_threshold is None else query.mmr_threshold
    waiting = [id_ for id_ in near if id_ in vectors]
    likeness = dict.fromkeys(waiting, 0.0)
    chosen: dict[str, float] = {}
    while waiting and len(chosen) < limit:
        best = max(waiting, key=lambda id_: nearness * near[id_] - (1 - nearness) * likeness[id_])
        waiting.remove(best)
        chosen[best] = near[best]
        for id_ in waiting:
            likeness[id_] = max(likeness[id_], _cosine(vectors[best], vectors[id_]))
    return chosen


async def _candidates(
    store: PostgresNodes,
    query: VectorStoreQuery,
    filters: Filter | None,
    *,
    vector: Vector | None,
    limits: tuple[int, int],
) -> Candidates:
    if not query.query_str:
        raise InvalidInput(f"query mode {query.mode.value!r} needs a question: set query_str")
    vector_limit, keyword_limit = limits
    return await store.candidates(
        vector=vector,
        text=query.query_str,
        filters=filters,
        node_ids=query.node_ids or None,
        vector_limit=vector_limit,
        keyword_limit=keyword_limit,
    )


async def _result(store: PostgresNodes, scores: Scores) -> VectorStoreQueryResult:
    """Fetch the nodes of these ids; one that was deleted meanwhile is left out."""
    nodes = await _get_nodes(store, list(scores), None)
    ids = [node.node_id for node in nodes]
    return VectorStoreQueryResult(nodes=nodes, similarities=[scores[id_] for id_ in ids], ids=ids)


def _vector(query: VectorStoreQuery) -> Vector:
    if query.query_embedding is None:
        raise InvalidInput(f"query mode {query.mode.value!r} needs query_embedding")
    return np.asarray(query.query_embedding, np.float32)


def _scores(found: Candidates, score: Callable[[Candidate], float | None]) -> dict[str, float]:
    scored = ((candidate.passage.chunk_id, score(candidate)) for candidate in found.candidates)
    return {id_: value for id_, value in scored if value is not None}


def _best(scores: Mapping[str, float], limit: int) -> Scores:
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return dict(best[:limit])


def _cosine(one: Vector, other: Vector) -> float:
    lengths = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / lengths if lengths else 0.0


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else 0.0
