"""The embedding flow over a model of hashed words."""

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.errors import ModelUnavailable, Rejected, StoreUnavailable
from ragcore.flows.embedding import Embedding, Patience
from ragcore.model import Vector, Vectors
from ragcore.testing.memory.cache import MemoryEmbeddingCache
from ragcore.testing.memory.embedder import MemoryEmbedder

IMPATIENT = Patience(attempts=3, first_wait_seconds=0.001)
TEXTS = [f"text number {number}" for number in range(10)]


def asked(model: MemoryEmbedder) -> list[str]:
    return [text for call in model.calls for text in call]


async def test_what_is_in_the_cache_is_not_computed_again() -> None:
    cache = MemoryEmbeddingCache()
    first = await Embedding(MemoryEmbedder(), cache=cache).embed_documents(TEXTS)
    model = MemoryEmbedder()
    again = await Embedding(model, cache=cache).embed_documents([*TEXTS, "a new text"])
    assert asked(model) == ["a new text"]
    np.testing.assert_array_equal(first, again[:-1])


async def test_other_models_share_no_vectors() -> None:
    cache = MemoryEmbeddingCache()
    await Embedding(MemoryEmbedder(dimension=32), cache=cache).embed_documents(TEXTS)
    model = MemoryEmbedder(dimension=64)
    await Embedding(model, cache=cache).embed_documents(TEXTS)
    assert sorted(asked(model)) == sorted(TEXTS)


async def test_repeated_texts_are_computed_once_and_stand_in_their_places() -> None:
    model = MemoryEmbedder()
    vectors = await Embedding(model).embed_documents(["b", "a", "b", "b"])
    assert sorted(asked(model)) == ["a", "b"]
    np.testing.assert_array_equal(vectors[0], vectors[3])
    assert not np.allclose(vectors[0], vectors[1])


async def test_no_texts_need_no_model() -> None:
    model = MemoryEmbedder()
    vectors, warnings = await Embedding(model).documents([])
    assert vectors.shape == (0, model.spec.dimension)
    assert (list(warnings), model.calls) == ([], [])


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 60))
def test_batches_keep_to_the_tokens(lengths: list[int], limit: int) -> None:
    texts = [f"{number} " * length for number, length in enumerate(lengths)]
    model = MemoryEmbedder()
    asyncio.run(Embedding(model, batch_tokens=limit).embed_documents(texts))
    assert sorted(asked(model)) == sorted(texts)
    for call in model.calls:
        assert len(call) == 1 or sum(map(model.count_tokens, call)) <= limit


async def test_one_poisoned_text_is_named_and_harms_no_other() -> None:
    poisoned = "harmless words before the middle of it, " * 3 + "then comes arsenic at the end"
    model = MemoryEmbedder(poison="arsenic")
    texts = [*TEXTS, poisoned]
    vectors, warnings = await Embedding(model).documents(texts)
    assert len(warnings) == 1
    assert "refused a text of 149 characters" in warnings[0]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(vectors[:-1], await MemoryEmbedder().embed_documents(TEXTS))
    harmless = await MemoryEmbedder().embed_query("harmless words before the middle of it")
    assert vectors[-1] @ harmless > 0.8


async def test_a_text_refused_in_every_part_is_left_to_its_words() -> None:
    model = MemoryEmbedder(poison="x")
    vectors, warnings = await Embedding(model).documents(["x" * 500, "good"])
    assert len(warnings) == 1
    assert "only be found by its words" in warnings[0]
    np.testing.assert_array_equal(vectors[0], await model.embed_query(""))


async def test_a_text_that_crashes_the_model_harms_no_other() -> None:
    class Crashes(MemoryEmbedder):
        async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
            if any("arsenic" in text for text in texts):
                raise ModelUnavailable("the model's process has terminated")
            return await super().embed_documents(texts)

    poisoned = "some words before the middle of it, and only then comes arsenic at the end"
    vectors, warnings = await Embedding(Crashes(), patience=IMPATIENT).documents([*TEXTS, poisoned])
    assert len(warnings) == 1
    assert "the model's process has terminated" in warnings[0]
    np.testing.assert_array_equal(vectors[:-1], await MemoryEmbedder().embed_documents(TEXTS))


async def test_a_model_that_refuses_everything_is_an_error() -> None:
    with pytest.raises(Rejected):
        await Embedding(MemoryEmbedder(poison="")).embed_documents(["any"])


async def test_a_model_that_is_away_for_a_moment_is_asked_again() -> None:
    model = MemoryEmbedder(failures=2)
    await Embedding(model, patience=IMPATIENT).embed_documents(["text"])
    assert asked(model) == ["text"] * 3


async def test_a_model_that_stays_away_is_an_error_after_a_few_attempts() -> None:
    model = MemoryEmbedder(failures=100)
    with pytest.raises(ModelUnavailable):
        await Embedding(model, patience=IMPATIENT).embed_documents(["text"])
    assert asked(model) == ["text"] * 3 + ["?"]


async def test_finished_batches_survive_a_failure() -> None:
    class FailsOnThird(MemoryEmbedder):
        async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
            if len(self.calls) == 2:
                self.failures = 100
            return await super().embed_documents(texts)

    cache = MemoryEmbeddingCache()
    flow = Embedding(FailsOnThird(), cache=cache, batch_tokens=3, concurrency=1, patience=IMPATIENT)
    with pytest.raises(ModelUnavailable):
        await flow.embed_documents(TEXTS)
    assert len(cache.vectors) == 2
    model = MemoryEmbedder()
    await Embedding(model, cache=cache).embed_documents(TEXTS)
    assert len(asked(model)) == len(TEXTS) - 2


async def test_so_many_batches_are_under_way_at_once() -> None:
    class Busy(MemoryEmbedder):
        now = most = 0

        async def embed_documents(self, texts: Sequence[str]) -> np.ndarray:
            self.now += 1
            self.most = max(self.most, self.now)
            await asyncio.sleep(0.01)
            self.now -= 1
            return await super().embed_documents(texts)

    model = Busy()
    await Embedding(model, batch_tokens=3, concurrency=3).embed_documents(TEXTS)
    assert model.most == 3


async def test_progress_ends_at_one_and_never_falls() -> None:
    seen: list[float] = []
    flow = Embedding(MemoryEmbedder(), batch_tokens=3, concurrency=1)
    await flow.documents(TEXTS, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert len(seen) == len(TEXTS)


async def test_a_broken_cache_only_costs_time(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryEmbeddingCache):
        async def get(self, model_key: str, hashes: Sequence[bytes]) -> Mapping[bytes, Vector]:
            raise StoreUnavailable("PostgreSQL is away")

        async def put(self, model_key: str, vectors: Mapping[bytes, Vector]) -> None:
            raise StoreUnavailable("PostgreSQL is away")

    vectors = await Embedding(MemoryEmbedder(), cache=Broken()).embed_documents(TEXTS)
    np.testing.assert_array_equal(vectors, await MemoryEmbedder().embed_documents(TEXTS))
    assert "PostgreSQL is away" in caplog.text


async def test_a_question_asked_again_is_remembered() -> None:
    model = MemoryEmbedder()
    flow = Embedding(model)
    np.testing.assert_array_equal(await flow.embed_query("why?"), await flow.embed_query("why?"))
    assert asked(model) == ["why?"]


async def test_a_question_that_is_too_long_is_read_in_parts() -> None:
    model = MemoryEmbedder(max_tokens=20)
    vector = await Embedding(model).embed_query("where is the ferry " * 20)
    assert vector @ await model.embed_query("where is the ferry") > 0.95


async def test_a_question_that_is_refused_in_every_part_is_an_error() -> None:
    with pytest.raises(Rejected):
        await Embedding(MemoryEmbedder(poison="x")).embed_query("x" * 100)


class Resting(MemoryEmbedder):
    """A model that is left alone for a moment after failures."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.back_at = monotonic() + seconds
        self.refusals = 0

    def _require_awake(self) -> None:
        if (left := self.back_at - monotonic()) > 0:
            self.refusals += 1
            raise ModelUnavailable("it failed again and again", retry_after_seconds=left)

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        self._require_awake()
        return await super().embed_documents(texts)

    async def embed_query(self, text: str) -> Vector:
        self._require_awake()
        return await super().embed_query(text)


async def test_documents_wait_for_a_model_that_says_when_it_is_back() -> None:
    model = Resting(seconds=0.1)
    await Embedding(model, patience=IMPATIENT).embed_documents(["text"])
    assert model.refusals == 1


async def test_a_question_does_not_wait_for_it() -> None:
    model = Resting(seconds=60)
    with pytest.raises(ModelUnavailable) as refused:
        await Embedding(model, patience=IMPATIENT).embed_query("question?")
    assert model.refusals == 1
    assert 0 < (refused.value.retry_after_seconds or 0) <= 60
