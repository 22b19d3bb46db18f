from collections.abc import AsyncIterator

import pytest

from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.testing.contracts.collections import CollectionsContract
from ragcore.testing.memory.chunks import MemoryChunks, MemoryCollections


class TestMemoryCollections(CollectionsContract):
    @pytest.fixture
    def collections(self) -> MemoryCollections:
        return MemoryCollections(MemoryChunks())


class TestPostgresCollections(CollectionsContract):
    @pytest.fixture
    async def collections(self, database_url: str) -> AsyncIterator[PostgresCollections]:
        async with open_pool(database_url, size=4) as pool:
            yield PostgresCollections(pool)
