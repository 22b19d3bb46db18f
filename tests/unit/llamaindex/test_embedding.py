"""Our embedding models as LlamaIndex sees them."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode

from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.llamaindex.embedding import as_llama_embedding

TEXTS = ["The ferry leaves at nine.", "Паром уходит в девять."]


@pytest.fixture
async def bundled() -> AsyncIterator[BundledEmbedder]:
    embedder = BundledEmbedder(threads=1)
    yield embedder
    await embedder.aclose()


async def test_is_a_llamaindex_embedding_with_the_models_own_vectors(
    bundled: BundledEmbedder,
) -> None:
    llama = as_llama_embedding(bundled)
    assert isinstance(llama, BaseEmbedding)
    texts = await llama.aget_text_embedding_batch(TEXTS)
    question = await llama.aget_query_embedding(TEXTS[0])
    np.testing.assert_allclose(texts, await bundled.embed_documents(TEXTS), atol=1e-6)
    np.testing.assert_allclose(question, await bundled.embed_query(TEXTS[0]), atol=1e-6)
    assert not np.allclose(question, texts[0], atol=1e-3), "prefixes of the two differ"


async def test_sync_methods_agree_with_async_ones_inside_a_running_loop(
    bundled: BundledEmbedder,
) -> None:
    llama = as_llama_embedding(bundled)
    assert llama.get_text_embedding(TEXTS[1]) == await llama.aget_text_embedding(TEXTS[1])
    assert llama.get_query_embedding(TEXTS[1]) == await llama.aget_query_embedding(TEXTS[1])


def test_sync_methods_work_without_a_loop() -> None:
    embedder = BundledEmbedder(threads=1)
    llama = as_llama_embedding(embedder)
    assert len(llama.get_text_embedding_batch(TEXTS)) == 2
    asyncio.run(embedder.aclose())


async def test_embeds_nodes_as_a_transformation(bundled: BundledEmbedder) -> None:
    nodes = await as_llama_embedding(bundled).acall([TextNode(text=text) for text in TEXTS])
    assert [len(node.get_embedding()) for node in nodes] == [384, 384]
