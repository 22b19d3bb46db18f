from dataclasses import replace

import pytest

from ragcore.errors import CollectionMismatch, InvalidInput, ModelUnavailable
from ragcore.flows.embedding import Embedding
from ragcore.flows.pipelines import Chunking, Pipelines
from ragcore.model import Collection, EmbeddingSpec
from ragcore.testing.memory.embedder import MemoryEmbedder

CHUNKING = Chunking(
    name="hybrid-1",
    default_tokens=100,
    fingerprint=lambda chunker, spec: f"{chunker}|{spec.model}|{spec.digest}",
)


def embedding(model: str = "memory:words", *, digest: str = "1", tokens: int = 512) -> Embedding:
    embedder = MemoryEmbedder(max_tokens=tokens)
    embedder.spec = replace(embedder.spec, model=model, digest=digest)
    return Embedding(embedder)


class Shop:
    """Opens models, and keeps which it was asked for."""

    def __init__(self, **failures: Exception) -> None:
        self.asked: list[str] = []
        self._failures = failures

    async def __call__(self, model: str, spec: EmbeddingSpec | None) -> Embedding:
        self.asked.append(model)
        if failure := self._failures.get(model):
            raise failure
        return embedding(model)


def pipelines(shop: Shop) -> Pipelines:
    return Pipelines(embedding(), chunking=CHUNKING, open_model=shop)


def test_a_limit_in_bytes_is_four_for_each_token_and_never_over_the_model() -> None:
    planned = CHUNKING.planned(embedding(tokens=10_000))
    assert (planned.chunker, planned.max_tokens) == ("hybrid-1:400:bytes", 400)
    assert CHUNKING.planned(embedding(), max_tokens=20).max_tokens == 80
    assert CHUNKING.planned(embedding(), max_tokens=8192).max_tokens == 512


def test_a_recorded_chunker_is_used_as_it_was() -> None:
    assert CHUNKING.recorded(embedding(), "hybrid-1:77:bytes").max_tokens == 77


@pytest.mark.parametrize(
    "chunker", ["hybrid-2:77:bytes", "hybrid-1:77:bundled", "hybrid-1:many:bytes", "hybrid-1", ""]
)
def test_a_chunker_that_is_not_to_be_had_is_refused(chunker: str) -> None:
    with pytest.raises(CollectionMismatch, match="reindex"):
        CHUNKING.recorded(embedding(), chunker)


async def test_a_model_is_opened_once_and_only_when_it_is_needed() -> None:
    shop = Shop()
    known = pipelines(shop)
    assert await known.of(known.configured.embedding.spec, known.configured.chunker) is (
        known.configured
    )
    other = await known.named("shop:other")
    assert await known.named("shop:other") is other
    assert await known.embedding_of(other.spec) is other
    assert shop.asked == ["shop:other"]


async def test_a_model_that_can_not_be_had_is_told_by_what_it_is_needed_for() -> None:
    shop = Shop(**{"shop:none": InvalidInput("no such name"), "shop:away": ModelUnavailable("x")})
    known = pipelines(shop)
    spec = known.configured.embedding.spec
    with pytest.raises(InvalidInput):
        await known.named("shop:none")
    with pytest.raises(CollectionMismatch, match="no such name"):
        await known.embedding_of(replace(spec, model="shop:none"))
    with pytest.raises(ModelUnavailable):
        await known.embedding_of(replace(spec, model="shop:away"))


async def test_a_model_whose_weights_have_changed_is_another_one() -> None:
    known = pipelines(Shop())
    spec = replace(known.configured.embedding.spec, model="shop:other", digest="before")
    with pytest.raises(CollectionMismatch):
        await known.embedding_of(spec)


def test_fingerprints_of_collections_are_learnt() -> None:
    known = pipelines(Shop())
    assert known.fingerprint_of("a") == known.configured.fingerprint
    spec = replace(known.configured.embedding.spec, model="shop:other")
    known.learn(Collection("a", spec, "hybrid-1:77:bytes"))
    assert known.fingerprint_of("a") == "hybrid-1:77:bytes|shop:other|1"
    assert known.fingerprint_of("b") == known.configured.fingerprint
