"""Any embedding model of ours as a LlamaIndex `BaseEmbedding`."""

from collections.abc import Sequence
from typing import Any, Protocol

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from ragcore.llamaindex.bridge import Bridged
from ragcore.model import Vector, Vectors

_BATCH = 256  # texts handed over at once; the model makes its own batches, by tokens


class TextEmbedder(Protocol):
    """What is asked of a model; `ports.Embedder` says what it does."""

    async def embed_documents(self, texts: Sequence[str]) -> Vectors: ...

    async def embed_query(self, text: str) -> Vector: ...


def as_llama_embedding(embedder: TextEmbedder | Bridged[TextEmbedder]) -> "RagEmbedding":
    """Return a LlamaIndex embedding over the model; prefixes stay the model's own affair.

    A model that holds connections belongs to one event loop: give it `Bridged`, so that sync calls
    get one of their own. A bare `embedder` must belong to none; the bundled one does not.
    """
    bridged = embedder if isinstance(embedder, Bridged) else Bridged.shared(embedder)
    return RagEmbedding(bridged)


class RagEmbedding(BaseEmbedding):
    """Async methods are native, sync ones go over the bridge. Vectors have unit length."""

    _embedder: Bridged[TextEmbedder] = PrivateAttr()

    def __init__(
        self,
        embedder: Bridged[TextEmbedder],
        *,
        model_name: str = "ragcore",
        embed_batch_size: int = _BATCH,
        **options: Any,
    ) -> None:
        super().__init__(model_name=model_name, embed_batch_size=embed_batch_size, **options)
        self._embedder = embedder

    @classmethod
    def class_name(cls) -> str:
        return "RagEmbedding"

    async def _aget_query_embedding(self, query: str) -> list[float]:
        vector = await self._embedder.call(lambda model: model.embed_query(query))
        return [float(x) for x in vector]

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _lists(await self._embedder.call(lambda model: model.embed_documents(texts)))

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        vector = self._embedder.call_sync(lambda model: model.embed_query(query))
        return [float(x) for x in vector]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return _lists(self._embedder.call_sync(lambda model: model.embed_documents(texts)))

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]


def _lists(vectors: Vectors) -> list[list[float]]:
    return [[float(x) for x in vector] for vector in vectors]
