from collections.abc import AsyncIterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from ragcore.errors import (
    CollectionNotFound,
    DocumentTooLarge,
    IdempotencyConflict,
    InvalidInput,
    QueueUnavailable,
    StoreUnavailable,
)
from ragcore.flows.submit import Submit, Upload, original_key
from ragcore.steps.identity import id_from_bytes
from ragcore.testing.contracts.catalog import claimed, indexed
from ragcore.testing.memory.blobs import MemoryBlobs
from ragcore.testing.memory.catalog import MemoryCatalog


class Bell:
    """A doorbell that remembers, or one whose Redis is away."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.rung: list[UUID] = []
        self.is_away = is_away

    async def ring(self, job_id: UUID) -> None:
        if self.is_away:
            raise QueueUnavailable("Redis is away")
        self.rung.append(job_id)


@pytest.fixture
def catalog() -> MemoryCatalog:
    return MemoryCatalog("default")


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def submit(catalog: MemoryCatalog, blobs: MemoryBlobs, bell: Bell) -> Submit:
    return Submit(catalog, blobs, bell, fingerprint="one", max_bytes=10)


async def put_in_place(catalog: MemoryCatalog, job_id: UUID) -> None:
    await catalog.put_in_place(await claimed(catalog, job_id), indexed("text"))


async def test_an_upload_is_stored_recorded_and_rung(
    submit: Submit, catalog: MemoryCatalog, blobs: MemoryBlobs, bell: Bell
) -> None:
    job = await submit.stream(pieces(b"te", b"xt"), Upload("default"))
    assert (job.status, job.document_id) == ("queued", id_from_bytes(sha256(b"text").digest()))
    assert bell.rung == [job.job_id]
    lease = await claimed(catalog, job.job_id)
    assert blobs.files[original_key(lease.version_id)][0] == b"text"


async def test_a_bell_that_fails_loses_nothing(
    catalog: MemoryCatalog, blobs: MemoryBlobs, caplog: pytest.LogCaptureFixture
) -> None:
    submit = Submit(catalog, blobs, Bell(is_away=True), fingerprint="one", max_bytes=10)
    job = await submit.stream(pieces(b"text"), Upload("default"))
    assert await catalog.waiting() == [job]
    assert "waits for the sweep" in caplog.text


async def test_too_much_is_refused_while_it_streams(submit: Submit, blobs: MemoryBlobs) -> None:
    with pytest.raises(DocumentTooLarge, match="10 bytes"):
        await submit.stream(pieces(b"x" * 6, b"x" * 6), Upload("default"))
    assert blobs.files == {}


@pytest.mark.parametrize(
    "upload",
    [
        Upload("Default"),
        Upload("default", document_id="a/b"),
        Upload("default", document_id=""),
        Upload("default", metadata={"a": float("nan")}),
        Upload("default", metadata={"a": "\0"}),
        Upload("default", metadata={"a": "\ud800"}),
        Upload("default", metadata={"a": "x" * 70_000}),
    ],
)
async def test_what_cannot_be_recorded_is_refused_before_it_is_stored(
    submit: Submit, blobs: MemoryBlobs, upload: Upload
) -> None:
    with pytest.raises(InvalidInput):
        await submit.stream(pieces(b"text"), upload)
    assert blobs.files == {}


async def test_the_same_bytes_again_leave_no_second_file(
    submit: Submit, catalog: MemoryCatalog, blobs: MemoryBlobs, bell: Bell
) -> None:
    first = await submit.stream(pieces(b"text"), Upload("default"))
    await put_in_place(catalog, first.job_id)
    again = await submit.stream(pieces(b"text"), Upload("default"))
    assert again.outcome == "unchanged"
    assert len(blobs.files) == 1
    assert bell.rung == [first.job_id]


async def test_an_unchanged_local_file_is_not_copied(
    submit: Submit, catalog: MemoryCatalog, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(b"text")
    upload = Upload("default", uri=path.as_uri())
    known = {"sha256": sha256(b"text").digest(), "size": 4}
    first = await submit.file(path, upload, **known)
    assert first.document_id.startswith("report.txt~")
    await put_in_place(catalog, first.job_id)
    blobs.files.clear()
    assert (await submit.file(path, upload, **known)).outcome == "unchanged"
    assert blobs.files == {}


async def test_a_file_that_changes_after_it_was_hashed_is_recorded_as_it_was_copied(
    submit: Submit, catalog: MemoryCatalog, tmp_path: Path
) -> None:
    path = tmp_path / "report.txt"
    path.write_bytes(b"new")
    upload = Upload("default", uri=path.as_uri())
    first = await submit.file(path, upload, sha256=sha256(b"old").digest(), size=3)
    await put_in_place(catalog, first.job_id)
    again = await submit.file(path, upload, sha256=sha256(b"old").digest(), size=3)
    assert again.outcome == "unchanged"  # of what is there now, not of what was hashed
    new = await submit.file(path, upload, sha256=sha256(b"new").digest(), size=3)
    assert new.outcome == "unchanged"
    path.write_bytes(b"old")
    assert (await submit.file(path, upload, sha256=sha256(b"old").digest(), size=3)).outcome is None


async def test_a_file_that_went_away_is_the_callers_error(
    submit: Submit, blobs: MemoryBlobs, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await submit.file(tmp_path / "gone", Upload("default"), sha256=b"", size=0)
    assert blobs.files == {}


async def test_names_that_cannot_be_stored_are_cleaned(
    submit: Submit, catalog: MemoryCatalog
) -> None:
    upload = Upload("default", filename="caf\udce9\0.txt", mime_type="text/plain\0")
    job = await submit.stream(pieces(b"text"), upload)
    lease = await claimed(catalog, job.job_id)
    assert (lease.filename, lease.mime_type) == ("caf  .txt", "text/plain")


async def test_a_conflicting_key_leaves_no_file(submit: Submit, blobs: MemoryBlobs) -> None:
    await submit.stream(pieces(b"one"), Upload("default"), idempotency_key="k")
    with pytest.raises(IdempotencyConflict):
        await submit.stream(pieces(b"two"), Upload("default"), idempotency_key="k")
    again = await submit.stream(pieces(b"one"), Upload("default"), idempotency_key="k")
    assert again.status == "queued"


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


# --- stored first, recorded after ------------------------------------------------------------


async def test_several_files_are_one_request_under_one_key(
    submit: Submit, blobs: MemoryBlobs, bell: Bell
) -> None:
    async def send(*texts: bytes, title: str | None = None) -> list[UUID]:
        uploads = [
            (Upload("default", filename=f"{n}.txt", title=title), await submit.store(pieces(text)))
            for n, text in enumerate(texts)
        ]
        return [job.job_id for job in await submit.record_all(uploads, idempotency_key="k")]

    first = await send(b"one", b"two")
    assert bell.rung == first
    assert await send(b"one", b"two") == first
    assert len(blobs.files) == 2
    for other in (send(b"two", b"one"), send(b"one"), send(b"one", b"two", title="Other")):
        with pytest.raises(IdempotencyConflict):
            await other
    assert len(blobs.files) == 2
    assert bell.rung == first


async def test_a_refused_request_leaves_no_file(submit: Submit, blobs: MemoryBlobs) -> None:
    uploads = [
        (Upload("default"), await submit.store(pieces(b"one"))),
        (Upload("nowhere"), await submit.store(pieces(b"two"))),
    ]
    with pytest.raises(CollectionNotFound):
        await submit.record_all(uploads)
    assert blobs.files == {}


async def test_what_is_not_recorded_can_be_discarded(submit: Submit, blobs: MemoryBlobs) -> None:
    stored = await submit.store(pieces(b"one"))
    assert (stored.sha256, stored.size) == (sha256(b"one").digest(), 3)
    await submit.discard(stored)
    assert blobs.files == {}


class AwayAfterCommit(MemoryCatalog):
    """A catalogue whose answer gets lost."""

    async def submit_all(self, *asked: Any, **more: Any) -> Any:
        await super().submit_all(*asked, **more)
        raise StoreUnavailable("the connection broke")


async def test_an_answer_that_got_lost_loses_no_bytes(blobs: MemoryBlobs, bell: Bell) -> None:
    catalog = AwayAfterCommit("default")
    submit = Submit(catalog, blobs, bell, fingerprint="one", max_bytes=10)
    with pytest.raises(StoreUnavailable):
        await submit.record(Upload("default"), await submit.store(pieces(b"one")))
    (job,) = await catalog.waiting()
    lease = await claimed(catalog, job.job_id)
    assert original_key(lease.version_id) in blobs.files


async def test_a_bell_that_is_away_is_not_rung_again_and_again(
    catalog: MemoryCatalog, blobs: MemoryBlobs, caplog: pytest.LogCaptureFixture
) -> None:
    submit = Submit(catalog, blobs, Bell(is_away=True), fingerprint="one", max_bytes=10)
    uploads = [
        (Upload("default"), await submit.store(pieces(text))) for text in (b"one", b"two", b"3")
    ]
    assert len(await submit.record_all(uploads)) == 3
    assert caplog.text.count("waits for the sweep") == 1


async def test_a_date_needs_its_time_zone(submit: Submit, blobs: MemoryBlobs) -> None:
    upload = Upload("default", expires_at=datetime(2040, 1, 1))
    with pytest.raises(InvalidInput, match="time zone"):
        await submit.stream(pieces(b"one"), upload)
    assert blobs.files == {}
