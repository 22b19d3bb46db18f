from collections.abc import AsyncIterator

import pytest

from ragcore.adapters.postgres.callbacks import PostgresCallbacks
from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.model import EmbeddingSpec
from ragcore.testing.contracts.callbacks import CallbacksContract
from ragcore.testing.memory.callbacks import MemoryCallbacks
from ragcore.testing.memory.catalog import MemoryCatalog


class TestMemoryCallbacks(CallbacksContract):
    @pytest.fixture
    def catalog(self) -> MemoryCatalog:
        return MemoryCatalog("default")

    @pytest.fixture
    def callbacks(self, catalog: MemoryCatalog) -> MemoryCallbacks:
        return MemoryCallbacks(catalog)


class TestPostgresCallbacks(CallbacksContract):
    @pytest.fixture
    async def pool(self, database_url: str) -> AsyncIterator[Pool]:
        async with open_pool(database_url, size=4) as pool:
            spec = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)
            await PostgresCollections(pool).open("default", embedding=spec, chunker="test")
            yield pool

    @pytest.fixture
    def catalog(self, pool: Pool) -> PostgresCatalog:
        return PostgresCatalog(pool)

    @pytest.fixture
    def callbacks(self, pool: Pool) -> PostgresCallbacks:
        return PostgresCallbacks(pool)
