from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from ragcore.adapters.postgres.audit import PostgresAudit
from ragcore.adapters.postgres.callbacks import PostgresCallbacks
from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.adapters.postgres.retention import PostgresRetention
from ragcore.model import EmbeddingSpec
from ragcore.ports import Idempotency
from ragcore.testing.contracts.catalog import submission
from ragcore.testing.contracts.retention import RetentionContract
from ragcore.testing.memory.audit import MemoryAudit
from ragcore.testing.memory.callbacks import MemoryCallbacks
from ragcore.testing.memory.catalog import MemoryCatalog
from ragcore.testing.memory.retention import MemoryRetention

KEY = Idempotency("old", b"body")


class TestMemoryRetention(RetentionContract):
    @pytest.fixture
    def catalog(self) -> MemoryCatalog:
        return MemoryCatalog("default")

    @pytest.fixture
    def callbacks(self, catalog: MemoryCatalog) -> MemoryCallbacks:
        return MemoryCallbacks(catalog)

    @pytest.fixture
    def audit(self) -> MemoryAudit:
        return MemoryAudit()

    @pytest.fixture
    def retention(self, catalog: MemoryCatalog, audit: MemoryAudit) -> MemoryRetention:
        return MemoryRetention(catalog, audit)

    async def test_keys_older_than_a_day_go(
        self, catalog: MemoryCatalog, retention: MemoryRetention
    ) -> None:
        first = await catalog.submit(submission("one"), idempotency=KEY)
        catalog.idempotency_keys["", "old"].created_at = datetime.now(UTC) - timedelta(hours=25)
        assert await retention.forget_idempotency_keys() == 1
        assert (await catalog.submit(submission("one"), idempotency=KEY)).job != first.job


class TestPostgresRetention(RetentionContract):
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

    @pytest.fixture
    def audit(self, pool: Pool) -> PostgresAudit:
        return PostgresAudit(pool)

    @pytest.fixture
    def retention(self, pool: Pool) -> PostgresRetention:
        return PostgresRetention(pool)

    async def test_keys_older_than_a_day_go(
        self, catalog: PostgresCatalog, retention: PostgresRetention, pool: Pool
    ) -> None:
        first = await catalog.submit(submission("one"), idempotency=KEY)
        async with pool.connection() as connection:
            await connection.execute(
                "UPDATE ragcore.idempotency_keys SET created_at = now() - interval '25 hours'"
            )
        assert await retention.forget_idempotency_keys() == 1
        assert (await catalog.submit(submission("one"), idempotency=KEY)).job != first.job
