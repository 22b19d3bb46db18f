import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from ragcore.errors import (
    ConversionFailed,
    ModelUnavailable,
    RagError,
    UnfitModel,
)
from ragcore.flows.forget import Forget, SweepOrphans
from ragcore.flows.ingest import Ingest
from ragcore.flows.submit import Submit, Upload, markdown_key
from ragcore.flows.work import Work
from ragcore.model import (
    Chunk,
    Collection,
    ConvertedDocument,
    EmbeddingSpec,
    Job,
    ReadingReport,
    Stage,
    Vectors,
)
from ragcore.ports import ConversionRequest
from ragcore.testing.memory.blobs import MemoryBlobs
from ragcore.testing.memory.catalog import MemoryCatalog

SPEC = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)


@dataclass
class Words:
    """A converter whose chunks are the file's lines, or that does what `instead` does."""

    instead: Callable[[], object] | None = None
    language: str = "en"
    fingerprint: str = "words-1"

    async def convert(
        self, request: ConversionRequest, *, progress: Callable[[Stage, float], None] | None = None
    ) -> ConvertedDocument:
        if self.instead is not None:
            result = self.instead()
            if asyncio.iscoroutine(result):
                await result
        if progress is not None:
            progress("converting", 1.0)
        text = request.path.read_text()
        markdown = request.directory / "document.md"
        markdown.write_text(text)
        return ConvertedDocument(
            chunks=tuple(
                Chunk(f"{request.seed}-{number}", number, line, line, len(line))
                for number, line in enumerate(text.splitlines())
            ),
            title="A title",
            language=self.language,
            extracted={},
            report=ReadingReport(parser="test", profile="text", mime_type="text/plain"),
            markdown_path=str(markdown),
        )

    async def aclose(self) -> None: ...


@dataclass
class Lengths:
    """An embedding of nothing but the length."""

    spec: EmbeddingSpec = SPEC
    failures: list[RagError] = field(default_factory=list)

    async def documents(
        self, texts: Sequence[str], *, progress: Callable[[float], None] | None = None
    ) -> tuple[Vectors, Sequence[str]]:
        if self.failures:
            raise self.failures.pop(0)
        if progress is not None:
            progress(1.0)
        return np.tile(np.array([1, 0, 0], np.float32), (len(texts), 1)), ["one text was cut"]


class FittingCollections:
    """One collection that always fits."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict

    async def open(self, name: str, **_: object) -> Collection:
        return Collection(name, SPEC, "words", strict=self.strict)


@dataclass
class Bench:
    """A whole ingestion in memory."""

    directory: Path
    converter: Words = field(default_factory=Words)
    embedding: Lengths = field(default_factory=Lengths)
    collections: FittingCollections = field(default_factory=FittingCollections)
    catalog: MemoryCatalog = field(default_factory=lambda: MemoryCatalog("default"))
    blobs: MemoryBlobs = field(default_factory=MemoryBlobs)

    @property
    def work(self) -> Work:
        ingest = Ingest(
            catalog=self.catalog,
            collections=self.collections,  # type: ignore[arg-type]
            blobs=self.blobs,
            converter=self.converter,
            embedding=self.embedding,
            directory=self.directory,
            fingerprint="one",
            chunker="words",
            max_tokens=100,
            tokenizer="bytes",
        )
        return Work(
            self.catalog,
            ingest,
            owner="me",
            lease=timedelta(seconds=60),
            renew_every=timedelta(milliseconds=5),
            backoff=(timedelta(), timedelta()),
        )

    async def submit(self, text: bytes, document_id: str = "a") -> Job:
        submit = Submit(self.catalog, self.blobs, None, fingerprint="one", max_bytes=10**6)
        return await submit.stream(stream(text), Upload("default", document_id=document_id))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_a_job_goes_through_all_stages(bench: Bench) -> None:
    job = await bench.submit(b"one\ntwo")
    seen: list[Stage | None] = []
    done = await bench.work.next(on_progress=lambda job: seen.append(job.stage))
    assert done is not None
    assert (done.job_id, done.outcome, done.chunks) == (job.job_id, "created", 2)
    assert done.warnings == ("one text was cut",)
    assert set(done.timings_ms) == {"fetch", "convert", "embed", "keep"}
    assert list(dict.fromkeys(seen)) == ["fetching", "converting", "embedding", "storing"]
    document = await bench.catalog.document("default", "a")
    assert document.version_id is not None
    assert bench.blobs.files[markdown_key(document.version_id)][0] == b"one\ntwo"
    assert list(bench.directory.iterdir()) == []
    assert await bench.work.next() is None


async def test_a_replaced_version_takes_its_files_along(bench: Bench) -> None:
    for text in (b"one", b"two"):
        await bench.submit(text)
        await bench.work.next()
    document = await bench.catalog.document("default", "a")
    assert {key.split("/")[1] for key in bench.blobs.files} == {str(document.version_id)}


async def test_a_failure_that_lasts_is_recorded_at_once(bench: Bench) -> None:
    bench.converter.instead = raising(ConversionFailed("the parser crashed"))
    await bench.submit(b"one")
    done = await bench.work.next()
    assert done is not None and done.error is not None
    assert (done.status, done.error.code, done.attempts) == ("failed", "conversion_failed", 1)
    assert list(bench.directory.iterdir()) == []


async def test_a_failure_that_passes_is_tried_again(bench: Bench) -> None:
    bench.embedding.failures = [ModelUnavailable("no answer"), ModelUnavailable("no answer")]
    await bench.submit(b"one")
    states = [await bench.work.next() for _ in range(3)]
    assert [job and job.status for job in states] == ["queued", "queued", "succeeded"]


async def test_a_failure_that_does_not_pass_is_given_up(bench: Bench) -> None:
    bench.embedding.failures = [ModelUnavailable("no answer") for _ in range(9)]
    await bench.submit(b"one")
    states = [await bench.work.next() for _ in range(3)]
    assert [job and job.status for job in states] == ["queued", "queued", "failed"]
    assert states[-1] is not None and states[-1].error is not None
    assert states[-1].error.retryable


async def test_a_programming_error_is_logged_and_recorded(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.converter.instead = raising(ZeroDivisionError("secret of the inside"))
    await bench.submit(b"one")
    done = await bench.work.next()
    assert done is not None and done.error is not None
    assert done.error.code == "internal"
    assert "secret" not in done.error.detail
    assert "ZeroDivisionError" in caplog.text


async def test_the_heartbeat_holds_the_lease_and_tells_the_progress(bench: Bench) -> None:
    job = await bench.submit(b"one")
    started, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        started.set()
        await go_on.wait()

    bench.converter.instead = wait
    working = asyncio.create_task(bench.work.next())
    await started.wait()
    while (await bench.catalog.job(job.job_id)).stage != "fetching":  # noqa: ASYNC110 no event tells
        await asyncio.sleep(0.005)
    go_on.set()
    done = await working
    assert done is not None and done.outcome == "created"


async def test_a_cancelled_job_stops_the_work_under_way(bench: Bench) -> None:
    job = await bench.submit(b"one")
    started = asyncio.Event()
    cancelled = []

    async def hang() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    bench.converter.instead = hang
    working = asyncio.create_task(bench.work.next())
    await started.wait()
    await bench.catalog.cancel(job.job_id)
    done = await working
    assert done is not None and done.status == "cancelled"
    assert cancelled == [True]


async def test_a_document_deleted_while_it_is_worked_on_leaves_no_file(bench: Bench) -> None:
    await bench.submit(b"one")
    forget = Forget(bench.catalog, bench.collections, bench.blobs)  # type: ignore[arg-type]

    async def delete() -> None:
        await forget.documents("default", ["a"])

    bench.converter.instead = delete
    done = await bench.work.next()
    assert done is not None and done.status == "cancelled"
    assert bench.blobs.files == {}


async def test_a_stopped_worker_gives_its_job_back(bench: Bench) -> None:
    job = await bench.submit(b"one")
    started = asyncio.Event()

    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    bench.converter.instead = hang
    working = asyncio.create_task(bench.work.next())
    await started.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert (await bench.catalog.job(job.job_id)).status == "queued"
    bench.converter.instead = None
    done = await bench.work.next()
    assert done is not None and done.outcome == "created"


async def test_text_that_the_model_cannot_serve_is_warned_of_or_refused(bench: Bench) -> None:
    bench.embedding.spec = EmbeddingSpec("english", 3, 100, languages=frozenset({"en"}))
    bench.converter.language = "ru"
    await bench.submit(b"one", "a")
    done = await bench.work.next()
    assert done is not None and "'ru'" in done.warnings[0]
    bench.collections.strict = True
    await bench.submit(b"one", "b")
    done = await bench.work.next()
    assert done is not None and done.error is not None
    assert done.error.code == UnfitModel.code


async def test_forgetting_removes_rows_and_files(bench: Bench) -> None:
    for name in ("a", "b"):
        await bench.submit(name.encode(), name)
        await bench.work.next()
    forget = Forget(bench.catalog, bench.collections, bench.blobs)  # type: ignore[arg-type]
    receipt = await forget.documents("default", ["a", "c"])
    assert (receipt.document_ids, receipt.chunks, receipt.blobs) == (("a",), 1, 2)
    kept = await bench.catalog.document("default", "b")
    assert {key.split("/")[1] for key in bench.blobs.files} == {str(kept.version_id)}


async def test_only_old_files_of_no_version_are_swept(bench: Bench) -> None:
    await bench.submit(b"one")
    live = set(bench.blobs.files)
    orphan = "versions/00000000-0000-0000-0000-000000000000/original"
    for key in (orphan, "versions/not-ours", "elsewhere/x"):
        await bench.blobs.put(key, stream(b"x"))
    assert await SweepOrphans(bench.catalog, bench.blobs)() == 0
    assert await SweepOrphans(bench.catalog, bench.blobs, grace_seconds=-1)() == 1
    assert set(bench.blobs.files) == live | {"versions/not-ours", "elsewhere/x"}


def raising(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call
