from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ragcore.errors import BlobsUnavailable, CollectionNotFound
from ragcore.flows.forget import Forget
from ragcore.flows.retention import Retain
from ragcore.flows.submit import original_key
from ragcore.model import AllOf, Collection, Condition, EmbeddingSpec
from ragcore.testing.contracts.catalog import ingest, submission
from ragcore.testing.memory.audit import MemoryAudit
from ragcore.testing.memory.blobs import MemoryBlobs
from ragcore.testing.memory.catalog import MemoryCatalog
from ragcore.testing.memory.retention import MemoryRetention


class OneCollection:
    """Knows `default`, and that is all of it that deleting asks for."""

    async def get(self, name: str) -> Collection:
        if name != "default":
            raise CollectionNotFound(f"there is no collection {name!r}")
        return Collection(name, EmbeddingSpec("test", 3, 100), "words")


class Pages(MemoryCatalog):
    """A catalogue whose pages are short, and that may be stopped after so many deletions."""

    def __init__(self) -> None:
        super().__init__("default")
        self.deletions = 0
        self.most_deletions = 1000

    async def matching(self, *asked: Any, limit: int = 1000, **more: Any) -> Sequence[str]:
        return await super().matching(*asked, limit=2, **more)

    async def forget(self, *asked: Any, **more: Any) -> Any:
        if self.deletions == self.most_deletions:
            raise KeyboardInterrupt
        self.deletions += 1
        return await super().forget(*asked, **more)


@pytest.fixture
def catalog() -> Pages:
    return Pages()


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def forget(catalog: Pages, blobs: MemoryBlobs) -> Forget:
    return Forget(catalog, OneCollection(), blobs)  # type: ignore[arg-type]


async def fill(catalog: MemoryCatalog, blobs: MemoryBlobs, *names: str, **said: Any) -> None:
    for name in names:
        made = submission(name, document_id=name, **said)
        await blobs.put(original_key(made.version_id), content())
        await ingest(catalog, made, name)


async def content() -> Any:
    yield b"text"


async def test_what_matches_goes_with_its_files_and_the_receipt_adds_up(
    forget: Forget, catalog: Pages, blobs: MemoryBlobs
) -> None:
    await fill(catalog, blobs, *"abcde", metadata={"year": 1})
    await fill(catalog, blobs, "kept", metadata={"year": 2})
    wanted = Condition("year", "eq", 1)
    expected = await forget.matching("default", wanted, dry_run=True)
    assert (expected.document_ids, expected.chunks, expected.versions) == (tuple("abcde"), 5, 5)
    assert len(await catalog.documents("default")) == len(blobs.files) == 6
    receipt = await forget.matching("default", wanted)
    assert (receipt.document_ids, receipt.chunks, receipt.versions) == (tuple("abcde"), 5, 5)
    assert receipt.blobs == 5
    assert catalog.deletions == 3
    assert [d.document_id for d in await catalog.documents("default")] == ["kept"]
    assert len(blobs.files) == 1
    assert (await forget.matching("default", wanted)).document_ids == ()


async def test_a_kill_in_the_middle_leaves_a_smaller_rest(
    forget: Forget, catalog: Pages, blobs: MemoryBlobs
) -> None:
    await fill(catalog, blobs, *"abcde")
    catalog.most_deletions = 1
    with pytest.raises(KeyboardInterrupt):
        await forget.matching("default", AllOf(()))
    assert [d.document_id for d in await catalog.documents("default")] == ["c", "d", "e"]
    catalog.most_deletions = 1000
    assert (await forget.matching("default", AllOf(()))).document_ids == ("c", "d", "e")
    assert blobs.files == {}


async def test_a_document_on_its_way_is_stopped(forget: Forget, catalog: Pages) -> None:
    job = (await catalog.submit(submission("one", metadata={"year": 1}))).job
    receipt = await forget.matching("default", Condition("year", "eq", 1))
    assert receipt.document_ids == ("a",)
    assert (await catalog.job(job.job_id)).status == "cancelled"


async def test_a_collection_must_exist(forget: Forget) -> None:
    with pytest.raises(CollectionNotFound):
        await forget.matching("nowhere", AllOf(()), dry_run=True)


class AwayBlobs(MemoryBlobs):
    async def delete_prefix(self, prefix: str) -> int:
        raise BlobsUnavailable("the store is away")


async def test_no_receipt_is_given_for_files_that_are_still_there(catalog: Pages) -> None:
    await fill(catalog, MemoryBlobs(), "a")
    forget = Forget(catalog, OneCollection(), AwayBlobs())  # type: ignore[arg-type]
    with pytest.raises(BlobsUnavailable):
        await forget.documents("default", ["a"])


# --- retention -------------------------------------------------------------------------------


async def test_what_has_been_kept_long_enough_goes(
    forget: Forget, catalog: Pages, blobs: MemoryBlobs
) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    await fill(catalog, blobs, "a", "b", "c", expires_at=past)
    await fill(catalog, blobs, "kept")
    retain = Retain(
        catalog,
        MemoryRetention(catalog, MemoryAudit()),
        forget,
        finished_jobs=timedelta(seconds=-1),
        audit_trail=None,
    )
    assert await retain() == 3 + 4  # documents and jobs; versions went with their documents
    assert [d.document_id for d in await catalog.documents("default")] == ["kept"]
    assert await catalog.jobs() == []
    assert [(e.action, e.actor, e.target) for e in catalog.recorded] == [
        ("document.delete", "retention", name) for name in "abc"
    ]
    assert await retain() == 0


async def test_what_is_kept_for_ever_stays(
    forget: Forget, catalog: Pages, blobs: MemoryBlobs
) -> None:
    await fill(catalog, blobs, "a")
    retention = MemoryRetention(catalog, MemoryAudit())
    retain = Retain(catalog, retention, forget, finished_jobs=None, audit_trail=None)
    assert await retain() == 0
    assert len(await catalog.jobs()) == 1
