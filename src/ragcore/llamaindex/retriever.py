"""ragcore's search as a LlamaIndex retriever."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.filters import filter_of
from ragcore.llamaindex.nodes import scored_node
from ragcore.model import Filter, SearchMode, SearchResult


class Search(Protocol):
    """What a retriever needs of `flows.search.Search`."""

    async def __call__(
        self,
        question: str,
        *,
        collection: str | Sequence[str],
        top_k: int,
        mode: SearchMode,
        filters: Filter | None,
        explain: bool,
        language_models: bool,
    ) -> SearchResult: ...


_collected: ContextVar[list[SearchResult] | None] = ContextVar("_collected", default=None)


@contextmanager
def search_results() -> Iterator[list[SearchResult]]:
    """Collect what retrievers of this module find inside the block.

    LlamaIndex hands on nodes alone; this is where a caller gets the timings, warnings and leg
    weights of each search, also when the retriever stands inside a router or a fusion.
    """
    results: list[SearchResult] = []
    token = _collected.set(results)
    try:
        yield results
    finally:
        _collected.reset(token)


class RagRetriever(BaseRetriever):
    """Finds the passages of one or more collections for a question, best first.

    Other wordings of the question and a reranker are used as configured; `language_models` False
    asks no language model for them. Scores are 0…1, higher is better. Usable by `retrieve` and
    `aretrieve`, inside a running event loop and outside. Raises what `flows.search.Search` raises.
    """

    def __init__(
        self,
        search: Bridged[Search],
        *,
        collection: str | Sequence[str],
        top_k: int = 6,
        mode: SearchMode = "hybrid",
        filters: Filter | MetadataFilters | None = None,
        explain: bool = False,
        language_models: bool = True,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._search = search
        self._collection = collection
        self._top_k = top_k
        self._mode: SearchMode = mode
        self._filters = filter_of(filters) if isinstance(filters, MetadataFilters) else filters
        self._explain = explain
        self._language_models = language_models

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(self._search.call_sync(lambda search: self._ask(search, query_bundle)))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _nodes(await self._search.call(lambda search: self._ask(search, query_bundle)))

    async def _ask(self, search: Search, query_bundle: QueryBundle) -> SearchResult:
        return await search(
            query_bundle.query_str,
            collection=self._collection,
            top_k=self._top_k,
            mode=self._mode,
            filters=self._filters,
            explain=self._explain,
            language_models=self._language_models,
        )


def _nodes(result: SearchResult) -> list[NodeWithScore]:
    if (results := _collected.get()) is not None:
        results.append(result)
    return [scored_node(passage) for passage in result.passages]
