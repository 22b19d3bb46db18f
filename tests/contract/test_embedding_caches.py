from collections.abc import AsyncIterator

import numpy as np
import pytest

from ragcore.adapters.postgres.cache import PostgresEmbeddingCache
from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.testing.contracts.cache import EmbeddingCacheContract
from ragcore.testing.memory.cache import MemoryEmbeddingCache


class TestMemoryEmbeddingCache(EmbeddingCacheContract):
    @pytest.fixture
    def cache(self) -> MemoryEmbeddingCache:
        return MemoryEmbeddingCache()


class TestPostgresEmbeddingCache(EmbeddingCacheContract):
    @pytest.fixture
    async def pool(self, database_url: str) -> AsyncIterator[Pool]:
        async with open_pool(database_url, size=4) as pool:
            yield pool

    @pytest.fixture
    def cache(self, pool: Pool) -> PostgresEmbeddingCache:
        return PostgresEmbeddingCache(pool)

    async def test_what_nobody_asks_for_is_forgotten(
        self, cache: PostgresEmbeddingCache, pool: Pool
    ) -> None:
        await cache.put("model", {b"old": np.ones(2, np.float32), b"asked": np.ones(2, np.float32)})
        async with pool.connection() as connection:
            await connection.execute(
                "UPDATE ragcore.embedding_cache SET used_at = now() - interval '40 days'"
            )
        await cache.get("model", [b"asked"])
        assert await cache.forget_unused(days=30) == 1
        assert set(await cache.get("model", [b"old", b"asked"])) == {b"asked"}
