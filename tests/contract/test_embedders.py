"""Every embedding model keeps the same promises."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from fakes.ollama import FakeOllama
from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.llama import LlamaIndexEmbedder
from ragcore.adapters.models.ollama import OllamaEmbedder
from ragcore.adapters.models.ollama_servers import OllamaServers
from ragcore.flows.embedding import Embedding
from ragcore.ports import Embedder
from ragcore.testing.contracts.embedder import TEXTS, EmbedderContract
from ragcore.testing.memory.embedder import MemoryEmbedder


@pytest.fixture(scope="module", params=["onnx", "native"])
def bundled(request: pytest.FixtureRequest) -> Iterator[BundledEmbedder]:
    embedder = BundledEmbedder(threads=2, engine=request.param)
    yield embedder
    asyncio.run(embedder.aclose())


@pytest.fixture(scope="module")
def fake_ollama() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


class TestMemoryEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return MemoryEmbedder()


class TestBundledEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, bundled: BundledEmbedder) -> Embedder:
        return bundled

    async def test_the_event_loop_stays_free(self, embedder: Embedder) -> None:
        turns = 0
        embedding = asyncio.create_task(embedder.embed_documents([text * 5 for text in TEXTS]))
        while not embedding.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 100


class TestOllamaEmbedder(EmbedderContract):
    @pytest.fixture
    async def embedder(self, fake_ollama: FakeOllama) -> AsyncIterator[Embedder]:
        servers = OllamaServers([fake_ollama.url])
        yield await OllamaEmbedder.open(servers)
        await servers.aclose()


class TestLlamaIndexEmbedder(EmbedderContract):
    @pytest.fixture
    async def embedder(self, fake_ollama: FakeOllama) -> AsyncIterator[Embedder]:
        from llama_index.embeddings.ollama import OllamaEmbedding

        model = OllamaEmbedding(
            "nomic-embed-text-v2-moe",
            base_url=fake_ollama.url,
            query_instruction="search_query:",
            text_instruction="search_document:",
        )
        embedder = await LlamaIndexEmbedder.open(model)
        yield embedder
        await embedder.aclose()
        model._client.close()


class TestEmbeddingFlow(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return Embedding(MemoryEmbedder())


async def test_both_engines_of_the_bundled_model_agree() -> None:
    onnx, native = (BundledEmbedder(threads=1, engine=name) for name in ("onnx", "native"))
    texts = [*TEXTS, "", "слово " * 600, "a\0b"]
    cosines = (await onnx.embed_documents(texts) * await native.embed_documents(texts)).sum(axis=1)
    question = await onnx.embed_query(TEXTS[1]) @ await native.embed_query(TEXTS[1])
    await onnx.aclose()
    await native.aclose()
    assert min(*cosines, question) > 0.9995
    assert np.all(cosines < 1.0001)
