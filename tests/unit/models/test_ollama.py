"""The Ollama embedder against a fake server that speaks the real protocol."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from fakes.ollama import FakeModel, FakeOllama
from ragcore.adapters.models.ollama import OllamaEmbedder
from ragcore.adapters.models.ollama_servers import OllamaServers
from ragcore.errors import (
    ContextOverflow,
    ModelMissing,
    ModelOutOfMemory,
    ModelTimeout,
    ModelUnavailable,
    NotConfigured,
    RagError,
    Rejected,
)
from ragcore.flows.embedding import Embedding, Patience

V2 = "nomic-embed-text-v2-moe"
IMPATIENT = Patience(attempts=3, first_wait_seconds=0.001)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeOllama]:
    models = (
        FakeModel(f"{V2}:latest", digest="a" * 64),
        FakeModel("nomic-embed-text:latest", context_length=2048, parameters="num_ctx 8192"),
        FakeModel("bge-m3:latest", context_length=8192, parameters="temperature 1\nnum_ctx  4096"),
        FakeModel("unheard-of:latest", context_length=131072, tells_dimension=False),
        FakeModel("llama3.2:latest", capabilities=["completion", "tools"]),
    )
    with FakeOllama(*models) as fake:
        yield fake


@pytest.fixture
def ollama(server: FakeOllama) -> FakeOllama:
    """The same server with nothing remembered and nothing broken."""
    server.forget()
    return server


@asynccontextmanager
async def serving(url: str) -> AsyncIterator[OllamaServers]:
    """The way to a server; requests are tried once."""
    servers = OllamaServers([url], attempts=1, failures=1000)
    try:
        yield servers
    finally:
        await servers.aclose()


@asynccontextmanager
async def opened(
    ollama: FakeOllama, model: str | None = None, **options: Any
) -> AsyncIterator[OllamaEmbedder]:
    async with serving(ollama.url) as servers:
        yield await OllamaEmbedder.open(servers, model=model, **options)


# --- what a model is -----------------------------------------------------------------------


async def test_the_default_model_is_multilingual_and_its_digest_is_recorded(
    ollama: FakeOllama,
) -> None:
    async with opened(ollama) as embedder:
        assert embedder.spec.model == f"ollama:{V2}"
        assert embedder.spec.digest == "a" * 64
        assert embedder.spec.languages is None
        assert embedder.spec.dimension == 384


@pytest.mark.parametrize(
    ("model", "max_tokens"),
    [(V2, 512), ("nomic-embed-text", 2048), ("bge-m3", 4096), ("unheard-of", 512)],
)
async def test_texts_may_be_as_long_as_model_and_server_both_allow(
    ollama: FakeOllama, model: str, max_tokens: int
) -> None:
    async with opened(ollama, model) as embedder:
        assert embedder.spec.max_tokens == max_tokens


async def test_a_dimension_that_is_not_told_is_found_out(ollama: FakeOllama) -> None:
    async with opened(ollama, "unheard-of") as embedder:
        assert embedder.spec.dimension == 384


async def test_the_caller_knows_better(ollama: FakeOllama) -> None:
    async with opened(
        ollama, V2, query_prefix="q:", document_prefix="", max_tokens=100
    ) as embedder:
        assert embedder.spec.max_tokens == 100
        await embedder.embed_query("one")
        await embedder.embed_documents(["two"])
    assert ollama.embedded == ["q:one", "two"]


async def test_a_missing_model_comes_with_the_command_that_pulls_it(ollama: FakeOllama) -> None:
    with pytest.raises(ModelMissing, match="ragcore models pull all-minilm") as missing:
        async with opened(ollama, "all-minilm"):
            pass
    assert missing.value.model == "all-minilm"


async def test_a_language_model_is_not_an_embedding_model(ollama: FakeOllama) -> None:
    with pytest.raises(NotConfigured, match=r"llama3\.2"):
        async with opened(ollama, "llama3.2"):
            pass


async def test_a_server_that_is_away_is_named(unused_tcp_port: int) -> None:
    async with serving(f"http://127.0.0.1:{unused_tcp_port}") as servers:
        with pytest.raises(ModelUnavailable, match=f"127.0.0.1:{unused_tcp_port} is away"):
            await OllamaEmbedder.open(servers)


# --- prefixes and tokens -------------------------------------------------------------------


async def test_texts_go_out_with_the_prefixes_of_their_task(ollama: FakeOllama) -> None:
    async with opened(ollama) as embedder:
        await embedder.embed_documents(["the text", "another"])
        await embedder.embed_query("the question")
    assert ollama.embedded == [
        "search_document: the text",
        "search_document: another",
        "search_query: the question",
    ]


async def test_tokens_of_xlm_roberta_are_counted_exactly_with_their_prefix(
    ollama: FakeOllama,
) -> None:
    async with opened(ollama) as embedder:
        assert embedder.counter_name == "bundled"
        with_prefix = embedder.count_tokens("Привет, мир")
    async with opened(ollama, document_prefix="") as embedder:
        assert embedder.count_tokens("search_document: Привет, мир") == with_prefix
        assert embedder.count_tokens("Привет, мир") == 2 + len(["▁При", "вет", ",", "▁мир"])


async def test_tokens_of_other_vocabularies_are_bounded_by_bytes(ollama: FakeOllama) -> None:
    async with opened(ollama, "nomic-embed-text") as embedder:
        assert embedder.counter_name == "bytes"
        assert embedder.count_tokens("word") > len("search_document: word")


async def test_a_tokenizer_file_counts_exactly(ollama: FakeOllama, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    async with opened(ollama, "nomic-embed-text", tokenizer_file=path) as embedder:
        assert embedder.count_tokens("two words") == 3


async def test_a_text_over_the_limit_is_refused_before_it_is_sent(ollama: FakeOllama) -> None:
    async with opened(ollama) as embedder:
        ollama.requests.clear()
        with pytest.raises(ContextOverflow, match="over the 512"):
            await embedder.embed_documents(["short", "long " * 600])
    assert ollama.embedded == []


# --- what goes wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "the input length exceeds the context length", ContextOverflow),
        (500, "failed to encode response: json: unsupported value: NaN", Rejected),
        (500, "input is too large to process. increase the physical batch size", ContextOverflow),
        (500, "llama runner process has terminated", ModelUnavailable),
        (500, "model requires more system memory (5 GiB) than is available", ModelOutOfMemory),
        (500, "llama runner process has terminated: cudaMalloc failed", ModelOutOfMemory),
        (503, "server busy, please try again. maximum pending requests exceeded", ModelUnavailable),
        (429, "too many requests", ModelUnavailable),
        (401, "unauthorized", ModelUnavailable),
        (403, "forbidden", ModelUnavailable),
        (405, "method not allowed", NotConfigured),
        (404, 'model "x" not found, try pulling it first', ModelMissing),
    ],
)
async def test_failures_are_told_apart(
    ollama: FakeOllama, status: int, message: str, expected: type[Exception]
) -> None:
    async with opened(ollama) as embedder:
        ollama.fail(status, message)
        with pytest.raises(RagError) as told:
            await embedder.embed_documents(["text"])
        assert type(told.value) is expected
        await embedder.embed_documents(["text"])


async def test_a_server_that_hangs_is_unavailable(ollama: FakeOllama) -> None:
    async with opened(ollama, timeout_seconds=0.2) as embedder:
        ollama.hang(1.0)
        with pytest.raises(ModelTimeout, match="did not answer in time"):
            await embedder.embed_query("question")


async def test_trouble_that_passes_is_not_seen_through_the_flow(ollama: FakeOllama) -> None:
    async with opened(ollama) as embedder:
        expected = await embedder.embed_documents(["text"])
        ollama.fail(500, "llama runner process has terminated", times=2)
        vectors = await Embedding(embedder, patience=IMPATIENT).embed_documents(["text"])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


async def test_poison_and_excess_harm_no_other_text_of_a_document(ollama: FakeOllama) -> None:
    texts = [f"Paragraph {number} of the report." for number in range(7)]
    ollama.poison = "\N{REPLACEMENT CHARACTER}"
    poisoned = "A readable beginning of some length, then \N{REPLACEMENT CHARACTER} and an end."
    async with opened(ollama) as embedder:
        expected = await embedder.embed_documents(texts)
        flow = Embedding(embedder, patience=IMPATIENT)
        vectors, warnings = await flow.documents([*texts, poisoned, "very " * 1200 + "long"])
    np.testing.assert_allclose(vectors[:-2], expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert len(warnings) == 2
