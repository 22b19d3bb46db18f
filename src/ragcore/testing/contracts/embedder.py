"""What every `ports.Embedder` promises."""

import asyncio

import numpy as np

from ragcore.ports import Embedder

TEXTS = (
    "The ferry to the northern island leaves at nine in the morning.",
    "Паром на северный остров отправляется в девять утра.",
    "Soup is served in the canteen until three.",
)
SHORT_TEXT = "ferry"
CLOSE_ENOUGH = 1e-4


class EmbedderContract:
    """Subclass, supply an `embedder` fixture, inherit the tests."""

    async def test_documents_get_one_unit_vector_each(self, embedder: Embedder) -> None:
        vectors = await embedder.embed_documents(TEXTS)
        assert vectors.dtype == np.float32
        assert vectors.shape == (len(TEXTS), embedder.spec.dimension)
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=CLOSE_ENOUGH)

    async def test_questions_get_a_unit_vector(self, embedder: Embedder) -> None:
        vector = await embedder.embed_query(TEXTS[0])
        assert vector.dtype == np.float32
        assert vector.shape == (embedder.spec.dimension,)
        assert abs(np.linalg.norm(vector) - 1) < CLOSE_ENOUGH

    async def test_no_texts_give_no_vectors(self, embedder: Embedder) -> None:
        assert (await embedder.embed_documents([])).shape == (0, embedder.spec.dimension)

    async def test_order_is_kept_and_neighbours_do_not_matter(self, embedder: Embedder) -> None:
        together = await embedder.embed_documents(TEXTS)
        alone = [(await embedder.embed_documents([text]))[0] for text in reversed(TEXTS)]
        np.testing.assert_allclose(together[::-1], alone, atol=1e-3)

    async def test_a_text_is_closest_to_itself(self, embedder: Embedder) -> None:
        documents = await embedder.embed_documents(TEXTS)
        for number, text in enumerate(TEXTS):
            scores = documents @ await embedder.embed_query(text)
            assert int(np.argmax(scores)) == number

    async def test_callers_may_ask_at_the_same_time(self, embedder: Embedder) -> None:
        one_by_one = [await embedder.embed_query(text) for text in TEXTS]
        at_once = await asyncio.gather(*(embedder.embed_query(text) for text in TEXTS))
        np.testing.assert_allclose(at_once, one_by_one, atol=1e-3)

    async def test_nul_does_not_end_a_text(self, embedder: Embedder) -> None:
        with_nul, without = await embedder.embed_documents(["\0" + TEXTS[0], TEXTS[0]])
        assert with_nul @ without > 0.999

    async def test_counts_grow_with_the_text(self, embedder: Embedder) -> None:
        counts = [embedder.count_tokens(text) for text in (SHORT_TEXT, TEXTS[0], TEXTS[0] * 2)]
        assert counts == sorted(set(counts))
        assert counts[0] > 0
