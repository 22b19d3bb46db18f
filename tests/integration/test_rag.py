"""The library through its front door: real PostgreSQL, real Docling, the real bundled model."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from pydantic import SecretStr

from conftest import TestServer
from listening import Listener, answer
from ragcore import Rag
from ragcore.errors import CollectionMismatch, InvalidInput
from ragcore.flows.submit import Upload
from ragcore.model import Job
from ragcore.settings import ChunkingSettings, ConversionSettings, Settings
from ragcore.testing.memory.embedder import MemoryEmbedder

FERRY = """# Ferry timetable

## Winter

The ferry Aurora leaves Norvik at 07:40 on weekdays and carries 120 passengers.

## Summer

In summer the ferry leaves every hour. A bicycle costs 4 crowns.
"""
PAROM = """# Расписание парома

## Зима

Паром «Аврора» отправляется из Норвика в 07:40 по будням и берёт 120 пассажиров.

## Лето

Летом паром ходит каждый час. Провоз велосипеда стоит 4 кроны.
"""


pytestmark = pytest.mark.asyncio(loop_scope="module")


def make_settings(database_url: str, data_dir: Path) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=SecretStr(database_url),
        conversion=ConversionSettings(processes=1),
    )


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return make_settings(database_url, tmp_path / "data")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(
    postgres_server: TestServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Rag]:
    """One Rag for all tests here: its conversion child and its model take seconds to load."""
    with postgres_server.database(template=migrated_template) as url:
        async with Rag.open(make_settings(url, tmp_path_factory.mktemp("data"))) as rag:
            yield rag


@pytest_asyncio.fixture(loop_scope="module")
async def rag(opened: Rag) -> AsyncIterator[Rag]:
    """The Rag, with an empty collection of the test's own."""
    opened.collection = f"test-{uuid4().hex[:8]}"
    await opened.create_collection(opened.collection)
    yield opened
    await opened.delete_collection(opened.collection)


async def test_a_document_goes_in_and_a_cited_answer_comes_out(rag: Rag, tmp_path: Path) -> None:
    (tmp_path / "ferry.md").write_text(FERRY)
    (tmp_path / "паром.md").write_text(PAROM)
    jobs = [job async for job in rag.ingest_many([tmp_path / "ferry.md", tmp_path / "паром.md"])]
    assert [(job.status, job.outcome) for job in jobs] == [("succeeded", "created")] * 2
    assert {job.language for job in jobs} == {"en", "ru"}

    for question, fact in (
        ("When does the ferry Aurora leave Norvik?", "07:40"),
        ("Сколько стоит провоз велосипеда?", "4 кроны"),
    ):
        answer = await rag.ask(question)
        assert answer.no_answer_reason is None
        assert fact in answer.text
        citation = answer.citations[0]
        passage = next(p for p in answer.passages if p.chunk_id == citation.chunk_id)
        assert passage.text[citation.start : citation.end] == citation.quote
        assert citation.supported
        assert 0 <= citation.score <= 1


async def test_a_url_goes_in_and_is_fetched_again(
    opened: Rag, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = f"web-{uuid4().hex[:8]}"
    guard = opened.runtime.web.guard
    monkeypatch.setattr(guard, "_allowed", frozenset({"127.0.0.1"}))
    async with Listener().listening() as listener:
        listener.answers["/ferry.md"] = answer(FERRY.encode(), Content_Type="text/markdown")
        url = listener.url("/ferry.md")
        [job] = await opened.ingest(url, collection=collection, metadata={"year": 2026})
        assert (job.status, job.outcome) == ("succeeded", "created")
        [again] = await opened.ingest(url, collection=collection)
        assert (again.outcome, again.document_id) == ("unchanged", job.document_id)
        listener.answers["/ferry.md"] = answer(PAROM.encode(), Content_Type="text/markdown")
        refreshed = await opened.refresh(job.document_id, collection=collection)
        assert (refreshed.outcome, refreshed.language) == ("updated", "ru")
        document = await opened.document_by_uri(url, collection=collection)
        assert document.metadata == {"year": 2026}
    await opened.delete_collection(collection)


async def test_a_url_that_can_not_be_had_is_a_failed_job_and_stops_no_other(
    opened: Rag, tmp_path: Path
) -> None:
    collection = f"web-{uuid4().hex[:8]}"
    (tmp_path / "ferry.md").write_text(FERRY)
    sources = ["http://127.0.0.1:9/", "https://127.1/x", "http://a b/", tmp_path / "ferry.md"]
    jobs = [job async for job in opened.ingest_many(sources, collection=collection)]
    codes = sorted(job.error.code for job in jobs if job.error is not None)
    assert codes == ["forbidden_url", "forbidden_url", "invalid_input"]
    assert [job.outcome for job in jobs if job.error is None] == ["created"]
    await opened.delete_collection(collection)


async def test_nothing_is_answered_from_nothing(rag: Rag) -> None:
    answer = await rag.ask("When does the ferry leave?")
    assert (answer.no_answer_reason, answer.citations) == ("no_documents", ())


async def test_a_question_about_something_else_is_declined(rag: Rag) -> None:
    await rag.ingest_text(FERRY, filename="ferry.md")
    answer = await rag.ask("Who composed the opera Turandot?")
    assert answer.no_answer_reason in ("no_relevant_passages", "not_in_passages")
    assert answer.citations == ()


async def test_the_same_file_again_is_unchanged_and_a_changed_one_replaced(
    rag: Rag, tmp_path: Path
) -> None:
    path = tmp_path / "ferry.md"
    path.write_text(FERRY)
    [first] = await rag.ingest(path)
    [again] = await rag.ingest(path)
    path.write_text(FERRY.replace("120 passengers", "150 passengers"))
    [changed] = await rag.ingest(path)
    assert [job.outcome for job in (first, again, changed)] == ["created", "unchanged", "updated"]
    texts = " ".join(chunk.text for chunk in await rag.chunks(first.document_id))
    assert "150 passengers" in texts and "120 passengers" not in texts
    assert len(await rag.documents()) == 1
    assert "150 passengers" in await rag.markdown(first.document_id)


async def test_a_file_that_cannot_be_read_fails_alone(rag: Rag, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "b.md").write_text(FERRY)
    (folder / "c.txt").write_text("")
    (folder / ".hidden").write_text("left out")
    jobs = {job.document_id.split("~")[0]: job for job in await rag.ingest(folder)}
    assert {name: job.status for name, job in jobs.items()} == {
        "a.bin": "failed",
        "b.md": "succeeded",
        "c.txt": "failed",
    }
    codes = {name: job.error and job.error.code for name, job in jobs.items()}
    assert codes == {"a.bin": "unsupported_format", "b.md": None, "c.txt": "no_text_found"}


async def test_filters_narrow_what_is_found(rag: Rag) -> None:
    for year in (2024, 2025):
        await rag.ingest_text(
            FERRY.replace("120", f"{year}"), document_id=f"y{year}", metadata={"year": year}
        )
    hits = await rag.search("How many passengers?", filters={"year": {"$gte": 2025}}, explain=True)
    assert {hit.document_id for hit in hits} == {"y2025"}
    assert hits[0].explanation is not None and hits[0].metadata == {"year": 2025}
    await rag.update("y2025", metadata={"year": 2023})
    assert len(await rag.search("How many passengers?", filters={"year": {"$gte": 2025}})) == 0


async def test_a_deleted_document_answers_no_more(rag: Rag) -> None:
    blobs = rag.runtime.settings.data_dir / "blobs"
    job = await rag.ingest_text(FERRY)
    receipt = await rag.delete(job.document_id)
    assert (receipt.document_ids, receipt.chunks) == ((job.document_id,), job.chunks)
    assert receipt.blobs == 3  # the original, its DoclingDocument, its Markdown
    assert list(blobs.rglob("*")) == []
    assert len(await rag.search("When does the ferry leave?")) == 0


async def test_readers_see_the_old_version_or_the_new_one(rag: Rag) -> None:
    texts = [FERRY.replace("120", f"{number}") for number in range(100, 106)]
    await rag.ingest_text(texts[0], document_id="ferry")
    finished = asyncio.Event()
    seen: list[set[str]] = []

    async def poll() -> None:
        while not finished.is_set():
            chunks = await rag.chunks("ferry")
            text = " ".join(chunk.text for chunk in chunks)
            seen.append({n for n in map(str, range(100, 106)) if f"{n} passengers" in text})

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(poll())
        for text in texts[1:]:
            await rag.ingest_text(text, document_id="ferry")
        finished.set()
    assert all(len(numbers) == 1 for numbers in seen), "a reader saw no version, or two"
    assert len(set.union(*seen)) > 1


async def test_progress_is_told_by_stage(rag: Rag) -> None:
    seen: list[Job] = []
    await rag.ingest_text(FERRY, on_progress=seen.append)
    stages = list(dict.fromkeys(job.stage for job in seen))
    assert stages[0] == "fetching" and stages[-1] is None
    assert {"converting", "embedding", "storing"} <= set(stages)
    assert seen[-1].status == "succeeded"


async def test_a_file_is_understood_without_being_stored(rag: Rag) -> None:
    conversion = await rag.convert(FERRY.encode(), filename="ferry.md")
    assert "## Winter" in conversion.markdown
    assert conversion.document.title == "Ferry timetable"
    assert conversion.document.chunks[0].headings
    assert '"schema_name"' in conversion.docling_json
    assert await rag.documents() == []


async def test_sources_that_cannot_be_meant_are_refused(rag: Rag, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file"):
        await rag.ingest(tmp_path / "missing.pdf")
    with pytest.raises(InvalidInput, match="one document"):
        await rag.ingest(tmp_path, document_id="one")
    for source in ("ftp://example.org/a.pdf", "file:///etc/passwd", "data://x"):
        with pytest.raises(InvalidInput, match="http and https"):
            await rag.ingest(source)


async def test_another_model_or_chunker_is_refused_with_the_way_out(settings: Settings) -> None:
    async with Rag.open(settings):
        pass
    with pytest.raises(CollectionMismatch, match="multilingual-e5-small"):
        await Rag.open(settings, embedding=MemoryEmbedder(dimension=8))
    smaller = settings.model_copy(update={"chunking": ChunkingSettings(max_tokens=100)})
    with pytest.raises(CollectionMismatch):
        await Rag.open(smaller)


async def test_a_killed_ingest_is_done_again_without_a_trace(
    settings: Settings, database_url: str, tmp_path: Path
) -> None:
    """The process dies while the document is converted; the next one puts it in place once."""
    path = tmp_path / "ferry.md"
    path.write_text(FERRY)
    script = (
        "import asyncio, os, signal, sys\n"
        "from ragcore import Rag\n"
        "def die(job):\n"
        "    if job.stage == 'embedding': os.kill(os.getpid(), signal.SIGKILL)\n"
        "async def main():\n"
        "    async with Rag.open() as rag:\n"
        "        await rag.ingest(sys.argv[1], on_progress=die)\n"
        "asyncio.run(main())\n"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "RAGCORE_DATABASE_URL": database_url,
        "RAGCORE_DATA_DIR": str(settings.data_dir),
    }
    command = [sys.executable, "-c", script, str(path)]
    killed = await asyncio.to_thread(subprocess.run, command, env=environment, timeout=240)
    assert killed.returncode == -signal.SIGKILL
    async with Rag.open(settings) as rag:
        assert await rag.documents() == []
        [job] = await rag.ingest(path)
        assert job.outcome == "created"
        assert len(await rag.documents()) == 1
        assert len(await rag.chunks(job.document_id)) == job.chunks
        states = {job.status: job.outcome for job in await rag.runtime.catalog.jobs()}
        assert "queued" not in states


async def test_a_job_that_a_dead_worker_took_is_finished_where_no_other_is_left(rag: Rag) -> None:
    upload = Upload(rag.collection, filename="ferry.md")
    job = await rag.runtime.submit.stream(_once(FERRY.encode()), upload)
    catalog, gone = rag.runtime.catalog, timedelta(seconds=-1)
    assert await catalog.claim(owner="dead", lease=gone, job_id=job.job_id) is not None
    done = await asyncio.wait_for(rag._finish(job, None), 60)
    assert (done.outcome, done.attempts) == ("created", 2)


async def test_what_cannot_be_stored_is_refused_in_an_update(rag: Rag) -> None:
    job = await rag.ingest_text(FERRY, filename="ferry.md")
    with pytest.raises(InvalidInput, match="NUL"):
        await rag.update(job.document_id, metadata={"a": "\0"})
    changed = await rag.update(job.document_id, title="Ferry\0 times")
    assert changed.title == "Ferry times"


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def test_deleting_a_document_takes_nodes_added_to_it(rag: Rag) -> None:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

    await rag.ingest_text(FERRY, document_id="ferry")
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="ferry")}
    vector = await rag.runtime.model.embed_query("captain")
    note = TextNode(text="The captain is Ann.", relationships=source, embedding=vector.tolist())
    other = TextNode(text="The cook is Bob.", embedding=vector.tolist())
    await rag.vector_store().async_add([note, other])
    await rag.delete("ferry")
    texts = [hit.text for hit in await rag.search("Who is the captain, and who is the cook?")]
    assert texts == ["The cook is Bob."]
