"""LlamaIndex models that users bring along."""

import threading
from typing import Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import Field
from llama_index.core.embeddings import MockEmbedding

from ragcore.adapters.models.llama import LlamaIndexEmbedder
from ragcore.errors import ModelUnavailable, Rejected


class StatusError(Exception):
    """As HTTP clients raise it."""

    def __init__(self, status_code: int) -> None:
        super().__init__(f"status {status_code}")
        self.status_code = status_code


class Scripted(BaseEmbedding):
    """A model that computes in its sync methods, as most local ones do, and fails on request."""

    failure: Any = None
    threads: list[str] = Field(default_factory=list)

    def _get_text_embedding(self, text: str) -> list[float]:
        self.threads.append(threading.current_thread().name)
        if self.failure is not None and text != "dimension":
            raise self.failure
        return [3.0, 4.0] if text else [0.0, 0.0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


async def test_dimension_and_name_are_the_models() -> None:
    embedder = await LlamaIndexEmbedder.open(MockEmbedding(embed_dim=7))
    assert embedder.spec.dimension == 7
    assert embedder.spec.model == "MockEmbedding:unknown"
    await embedder.aclose()


async def test_vectors_get_unit_length() -> None:
    embedder = await LlamaIndexEmbedder.open(Scripted())
    np.testing.assert_allclose(await embedder.embed_documents(["a", "b"]), [[0.6, 0.8]] * 2)
    np.testing.assert_allclose(await embedder.embed_query("a"), [0.6, 0.8])
    await embedder.aclose()


async def test_nothing_is_computed_on_the_event_loops_thread() -> None:
    model = Scripted()
    embedder = await LlamaIndexEmbedder.open(model)
    await embedder.embed_documents(["a"])
    await embedder.embed_query("a")
    await embedder.aclose()
    assert len(model.threads) == 3
    assert threading.current_thread().name not in model.threads


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ConnectionError("refused"), ModelUnavailable),
        (StatusError(500), ModelUnavailable),
        (StatusError(429), ModelUnavailable),
        (StatusError(400), Rejected),
        (ValueError("too long"), Rejected),
        (Rejected("by one of ours"), Rejected),
        (TypeError("a bug"), TypeError),
    ],
)
async def test_foreign_errors_become_ours_and_bugs_stay_bugs(
    failure: Exception, expected: type[Exception]
) -> None:
    embedder = await LlamaIndexEmbedder.open(Scripted(failure=failure))
    with pytest.raises(expected):
        await embedder.embed_documents(["a"])
    await embedder.aclose()


async def test_a_vector_without_direction_is_refused() -> None:
    embedder = await LlamaIndexEmbedder.open(Scripted())
    with pytest.raises(Rejected, match="direction"):
        await embedder.embed_documents(["a", ""])
    await embedder.aclose()
