"""What every `ports.EmbeddingCache` promises."""

import asyncio
from hashlib import blake2b

import numpy as np

from ragcore.model import Vector
from ragcore.ports import EmbeddingCache

MODEL = "memory:words@1:4:"


class EmbeddingCacheContract:
    """Subclass, supply a `cache` fixture, inherit the tests."""

    async def test_vectors_come_back_bit_by_bit(self, cache: EmbeddingCache) -> None:
        vectors = {_hash(n): _vector(n) for n in range(3)}
        await cache.put(MODEL, vectors)
        found = await cache.get(MODEL, list(vectors))
        assert {key: vector.tobytes() for key, vector in found.items()} == {
            key: vector.tobytes() for key, vector in vectors.items()
        }
        assert {vector.dtype for vector in found.values()} == {np.dtype(np.float32)}

    async def test_only_what_is_known_comes_back(self, cache: EmbeddingCache) -> None:
        await cache.put(MODEL, {_hash(1): _vector(1)})
        assert set(await cache.get(MODEL, [_hash(1), _hash(2)])) == {_hash(1)}
        assert dict(await cache.get(MODEL, [])) == {}

    async def test_models_do_not_share_vectors(self, cache: EmbeddingCache) -> None:
        await cache.put(MODEL, {_hash(1): _vector(1)})
        assert dict(await cache.get("another", [_hash(1)])) == {}

    async def test_storing_again_changes_nothing(self, cache: EmbeddingCache) -> None:
        await cache.put(MODEL, {_hash(1): _vector(1)})
        await cache.put(MODEL, {_hash(1): _vector(1), _hash(2): _vector(2)})
        assert len(await cache.get(MODEL, [_hash(1), _hash(2)])) == 2

    async def test_nothing_can_be_stored(self, cache: EmbeddingCache) -> None:
        await cache.put(MODEL, {})

    async def test_writers_of_the_same_vectors_do_not_lock_each_other_out(
        self, cache: EmbeddingCache
    ) -> None:
        numbers = list(range(300))
        writers = (
            cache.put(MODEL, {_hash(n): _vector(n) for n in order})
            for order in (numbers, numbers[::-1]) * 4
        )
        await asyncio.gather(*writers)
        assert len(await cache.get(MODEL, [_hash(n) for n in numbers])) == len(numbers)


def _hash(number: int) -> bytes:
    return blake2b(str(number).encode(), digest_size=32).digest()


def _vector(number: int) -> Vector:
    return np.random.default_rng(number).standard_normal(4).astype(np.float32)
