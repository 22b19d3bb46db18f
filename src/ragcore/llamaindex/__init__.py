"""ragcore as LlamaIndex sees it: vector store, retriever, query engine, embedding model.

Names are loaded when they are first used: importing LlamaIndex takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ragcore.llamaindex.embedding import RagEmbedding, as_llama_embedding
    from ragcore.llamaindex.postprocessors import JoinNeighbours, Rerank
    from ragcore.llamaindex.query_engine import (
        AnswererSynthesizer,
        Conversation,
        RagQueryEngine,
        answer_of,
    )
    from ragcore.llamaindex.retriever import RagRetriever, search_results
    from ragcore.llamaindex.supabase import supabase_vector_store
    from ragcore.llamaindex.vector_store import RagVectorStore

__all__ = [
    "AnswererSynthesizer",
    "Conversation",
    "JoinNeighbours",
    "RagEmbedding",
    "RagQueryEngine",
    "RagRetriever",
    "RagVectorStore",
    "Rerank",
    "answer_of",
    "as_llama_embedding",
    "search_results",
    "supabase_vector_store",
]

_MODULES = {
    "AnswererSynthesizer": "query_engine",
    "Conversation": "query_engine",
    "JoinNeighbours": "postprocessors",
    "RagEmbedding": "embedding",
    "RagQueryEngine": "query_engine",
    "RagRetriever": "retriever",
    "RagVectorStore": "vector_store",
    "Rerank": "postprocessors",
    "answer_of": "query_engine",
    "as_llama_embedding": "embedding",
    "search_results": "retriever",
    "supabase_vector_store": "supabase",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
