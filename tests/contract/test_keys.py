from collections.abc import AsyncIterator

import pytest

from ragcore.adapters.postgres.audit import PostgresAudit
from ragcore.adapters.postgres.keys import PostgresKeys
from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.testing.contracts.audit import AuditContract
from ragcore.testing.contracts.keys import KeysContract
from ragcore.testing.memory.audit import MemoryAudit
from ragcore.testing.memory.keys import MemoryKeys


class TestMemoryKeys(KeysContract):
    @pytest.fixture
    def audit(self) -> MemoryAudit:
        return MemoryAudit()

    @pytest.fixture
    def keys(self, audit: MemoryAudit) -> MemoryKeys:
        return MemoryKeys(audit)


class TestMemoryAudit(AuditContract):
    @pytest.fixture
    def audit(self) -> MemoryAudit:
        return MemoryAudit()


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with open_pool(database_url, size=2) as pool:
        yield pool


class TestPostgresKeys(KeysContract):
    @pytest.fixture
    def audit(self, pool: Pool) -> PostgresAudit:
        return PostgresAudit(pool)

    @pytest.fixture
    def keys(self, pool: Pool) -> PostgresKeys:
        return PostgresKeys(pool)


class TestPostgresAudit(AuditContract):
    @pytest.fixture
    def audit(self, pool: Pool) -> PostgresAudit:
        return PostgresAudit(pool)
