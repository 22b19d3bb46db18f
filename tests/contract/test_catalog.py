import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.errors import LeaseLost
from ragcore.model import EmbeddingSpec
from ragcore.ports import Idempotency
from ragcore.testing.contracts.catalog import (
    HOLD,
    CatalogContract,
    claimed,
    indexed,
    ingest,
    submission,
)
from ragcore.testing.memory.catalog import MemoryCatalog

SPEC = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)


class TestMemoryCatalog(CatalogContract):
    @pytest.fixture
    def catalog(self) -> MemoryCatalog:
        return MemoryCatalog("default")


class TestPostgresCatalog(CatalogContract):
    @pytest.fixture
    async def catalog(self, database_url: str) -> AsyncIterator[PostgresCatalog]:
        async with open_pool(database_url, size=8) as pool:
            await PostgresCollections(pool).open("default", embedding=SPEC, chunker="test")
            yield PostgresCatalog(pool)

    async def test_an_older_version_that_waited_for_a_newer_one_does_not_replace_it(
        self, catalog: PostgresCatalog
    ) -> None:
        for turn in range(10):
            old = (await catalog.submit(submission(f"old {turn}"))).job
            new = (await catalog.submit(submission(f"new {turn}"))).job
            leases = [await claimed(catalog, job.job_id) for job in (new, old)]
            settled = await asyncio.gather(
                *(catalog.put_in_place(lease, indexed(*["text"] * 50)) for lease in leases)
            )
            assert settled[0].outcome in ("created", "updated")
            current = (await catalog.document("default", "a")).version_id
            assert current == leases[0].version_id, f"turn {turn}"

    async def test_requests_that_share_documents_never_deadlock(
        self, catalog: PostgresCatalog
    ) -> None:
        names = ["a", "b", "c", "d"]

        async def request(number: int) -> None:
            mine = names[number:] + names[:number]
            for turn in range(5):
                await catalog.submit_all(
                    [submission(f"{number} {turn}", document_id=name) for name in mine],
                    idempotency=Idempotency(f"{number} {turn}", b"body"),
                )

        async def forget() -> None:
            for _ in range(5):
                await catalog.forget("default", names)

        await asyncio.gather(*(request(number) for number in range(4)), forget())

    async def test_uploads_deletions_and_workers_of_one_document_never_deadlock(
        self, catalog: PostgresCatalog
    ) -> None:
        async def write(number: int) -> None:
            for turn in range(5):
                made = submission(f"{number} {turn}")
                job = (await catalog.submit(made)).job
                lease = await catalog.claim(owner="me", lease=HOLD, job_id=job.job_id)
                if lease is not None:
                    with suppress(LeaseLost):  # the document was forgotten meanwhile
                        await catalog.put_in_place(lease, indexed("one", "two"))

        async def forget() -> None:
            for _ in range(10):
                await catalog.forget("default", ["a"])
                await asyncio.sleep(0.01)

        await asyncio.gather(*(write(n) for n in range(4)), forget())
        await ingest(catalog, submission("last"), "last")
        assert (await catalog.document("default", "a")).chunks == 1
