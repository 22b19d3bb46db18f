"""From a URL to a job, with pages, catalogue and files in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from ragcore.adapters.docling.formats import refuse_type, refuse_unreadable
from ragcore.errors import (
    DocumentNotFound,
    DocumentTooLarge,
    IdempotencyConflict,
    InvalidInput,
    UnsupportedFormat,
)
from ragcore.flows.fetch import Fetch
from ragcore.flows.submit import Submit, Upload, original_key
from ragcore.model import Job, PageMarks
from ragcore.ports import OpenPage
from ragcore.steps.identity import id_from_uri
from ragcore.testing.contracts.catalog import claimed, indexed
from ragcore.testing.memory.blobs import MemoryBlobs
from ragcore.testing.memory.catalog import MemoryCatalog

URL = "https://example.org/report.txt"


class Shelf:
    """`ports.Pages` with a single page, whose mark is its content."""

    def __init__(self) -> None:
        self.content = b"one"
        self.mime_type = "text/plain; charset=windows-1251"
        self.size: int | None = None
        self.sent = 0

    def canonical(self, url: str) -> str:
        return url.partition("#")[0]

    @asynccontextmanager
    async def get(
        self, url: str, *, known: PageMarks | None = None
    ) -> AsyncIterator[OpenPage | None]:
        marks = PageMarks(url, url, etag=self.content.decode(), mime_type=self.mime_type)
        if known == marks:
            yield None
            return
        self.sent += 1
        yield OpenPage(marks, "report.txt", self.size, self._pieces())

    async def _pieces(self) -> AsyncIterator[bytes]:
        yield self.content


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def catalog() -> MemoryCatalog:
    return MemoryCatalog("default")


@pytest.fixture
def blobs() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def fetch(shelf: Shelf, catalog: MemoryCatalog, blobs: MemoryBlobs) -> Fetch:
    submit = Submit(catalog, blobs, None, fingerprint="one", max_bytes=10)
    return Fetch(shelf, catalog, blobs, submit, refuse_type, refuse_unreadable)


async def done(catalog: MemoryCatalog, job: Job) -> Job:
    """Have a worker put the job's version in place, if there is work."""
    if not job.is_finished:
        await catalog.put_in_place(await claimed(catalog, job.job_id), indexed("text"))
    return await catalog.job(job.job_id)


async def test_a_page_becomes_a_document_known_by_its_url(
    fetch: Fetch, catalog: MemoryCatalog, blobs: MemoryBlobs
) -> None:
    job = await done(catalog, await fetch(URL + "#part", Upload("default")))
    assert (job.outcome, job.document_id) == ("created", id_from_uri(URL))
    document = await catalog.document("default", job.document_id)
    assert document.uri == URL
    (version,) = await catalog.versions("default", job.document_id)
    assert version.filename == "report.txt"
    assert blobs.files[original_key(version.version_id)][0] == b"one"


async def test_an_unchanged_page_is_neither_sent_nor_stored_again(
    fetch: Fetch, catalog: MemoryCatalog, blobs: MemoryBlobs, shelf: Shelf
) -> None:
    await done(catalog, await fetch(URL, Upload("default")))
    before = set(blobs.files)
    again = await fetch(URL, Upload("default"))
    assert (again.outcome, shelf.sent) == ("unchanged", 1)
    assert set(blobs.files) == before


async def test_an_unchanged_page_that_is_described_anew_is_updated(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    first = await done(catalog, await fetch(URL, Upload("default")))
    again = await fetch(URL, Upload("default", metadata={"year": 2026}))
    assert (again.outcome, shelf.sent) == ("updated", 1)
    assert (await catalog.document("default", first.document_id)).metadata == {"year": 2026}


async def test_a_page_that_changed_is_a_new_version(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    first = await done(catalog, await fetch(URL, Upload("default")))
    shelf.content = b"two"
    again = await done(catalog, await fetch(URL, Upload("default")))
    assert (again.outcome, again.document_id) == ("updated", first.document_id)


async def test_the_same_bytes_under_new_marks_are_known_by_these(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    await done(catalog, await fetch(URL, Upload("default")))
    shelf.mime_type = "text/plain"
    assert (await fetch(URL, Upload("default"))).outcome == "unchanged"
    assert (await fetch(URL, Upload("default"))).outcome == "unchanged"
    assert shelf.sent == 2


async def test_an_unchanged_page_is_read_again_by_another_pipeline(
    fetch: Fetch, catalog: MemoryCatalog, blobs: MemoryBlobs, shelf: Shelf
) -> None:
    """From the stored file: its server is not asked for it again."""
    await done(catalog, await fetch(URL, Upload("default")))
    newer = replace(fetch, submit=replace(fetch.submit, fingerprint="two"))
    job = await newer(URL, Upload("default"))
    lease = await claimed(catalog, job.job_id)
    assert (shelf.sent, lease.mime_type) == (1, shelf.mime_type)
    assert blobs.files[original_key(lease.version_id)][0] == b"one"


async def test_a_page_whose_stored_file_is_gone_is_sent_again(
    fetch: Fetch, catalog: MemoryCatalog, blobs: MemoryBlobs, shelf: Shelf
) -> None:
    await done(catalog, await fetch(URL, Upload("default")))
    blobs.files.clear()
    newer = replace(fetch, submit=replace(fetch.submit, fingerprint="two"))
    assert (await newer(URL, Upload("default"))).status == "queued"
    assert shelf.sent == 2
    assert [content for content, _ in blobs.files.values()] == [b"one"]


async def test_what_was_uploaded_in_place_of_a_page_is_no_page(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    first = await done(catalog, await fetch(URL, Upload("default")))

    async def edited() -> AsyncIterator[bytes]:
        yield b"edited"

    upload = Upload("default", document_id=first.document_id)
    await done(catalog, await fetch.submit.stream(edited(), upload))
    again = await done(catalog, await fetch(URL, Upload("default")))
    assert (again.outcome, shelf.sent) == ("updated", 2)


async def test_a_page_is_fetched_while_something_newer_is_on_its_way(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    await done(catalog, await fetch(URL, Upload("default")))
    shelf.content = b"two"
    await fetch(URL, Upload("default"))
    shelf.content = b"one"
    last = await fetch(URL, Upload("default"))
    assert (last.status, shelf.sent) == ("queued", 3)


async def test_another_url_under_the_same_id_is_fetched(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    await done(catalog, await fetch(URL, Upload("default", document_id="a")))
    other = "https://example.org/other.txt"
    job = await fetch(other, Upload("default", document_id="a"))
    assert (job.outcome, shelf.sent) == ("updated", 2)
    assert (await catalog.document("default", "a")).uri == other


async def test_a_key_answers_with_the_first_job_whatever_the_page_holds_by_then(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf, blobs: MemoryBlobs
) -> None:
    async def asked(url: str) -> Job:
        return await fetch(
            url, Upload("default"), idempotency_key="k", asked=url.encode().ljust(32)
        )

    first = await asked(URL)
    await done(catalog, first)
    before = set(blobs.files)
    assert (await asked(URL)).job_id == first.job_id
    shelf.content = b"two"
    assert (await asked(URL)).job_id == first.job_id
    assert set(blobs.files) == before
    with pytest.raises(IdempotencyConflict):
        await asked("https://example.org/other.txt")


@pytest.mark.parametrize("mime_type", ["video/mp4", "AUDIO/MPEG; x=1", "font/woff2", "text/css"])
async def test_what_can_be_no_document_is_refused_unread(
    fetch: Fetch, shelf: Shelf, blobs: MemoryBlobs, mime_type: str
) -> None:
    shelf.mime_type = mime_type
    with pytest.raises(UnsupportedFormat):
        await fetch(URL, Upload("default"))
    assert not blobs.files


async def test_what_is_too_large_is_refused_by_its_announced_size(
    fetch: Fetch, shelf: Shelf, blobs: MemoryBlobs
) -> None:
    shelf.size = 11
    with pytest.raises(DocumentTooLarge):
        await fetch(URL, Upload("default"))
    assert not blobs.files


async def test_a_document_is_fetched_again_from_where_it_came(
    fetch: Fetch, catalog: MemoryCatalog, shelf: Shelf
) -> None:
    await done(catalog, await fetch(URL, Upload("default", document_id="a", title="Mine")))
    assert (await fetch.again("default", "a")).outcome == "unchanged"
    shelf.content = b"two"
    await done(catalog, await fetch.again("default", "a"))
    document = await catalog.document("default", "a")
    assert (document.title, document.uri) == ("Mine", URL)


async def test_only_what_came_from_a_url_can_be_fetched_again(
    fetch: Fetch, catalog: MemoryCatalog
) -> None:
    async def text() -> AsyncIterator[bytes]:
        yield b"text"

    for uri in (None, "file:///report.txt", "s3://bucket/key"):
        upload = Upload("default", document_id="a", uri=uri)
        await done(catalog, await fetch.submit.stream(text(), upload))
        with pytest.raises(InvalidInput, match="'a'"):
            await fetch.again("default", "a")
    with pytest.raises(DocumentNotFound):
        await fetch.again("default", "b")
