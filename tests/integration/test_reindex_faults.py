"""Moves of a collection that meet trouble: other settings, failures, stock clients, kills."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import pytest_asyncio
from llama_index.core.schema import TextNode
from pydantic import SecretStr

from conftest import TestServer
from ragcore import Rag
from ragcore.adapters.postgres.nodes import NodeRow
from ragcore.errors import CollectionMismatch, InvalidInput, RollbackLoses
from ragcore.model import Vectors
from ragcore.runtime import open_runtime
from ragcore.settings import ConversionSettings, Settings
from ragcore.testing.memory.embedder import MemoryEmbedder

pytestmark = pytest.mark.asyncio(loop_scope="module")

FERRY = "# Ferries\n\nThe ferry to Vega leaves at noon."
LIGHTHOUSE = "# Маяки\n\nМаяк на острове зажгли осенью 1871 года."


class Killed(BaseException):
    """Nothing after it runs, as after a kill."""


class Counting(MemoryEmbedder):
    """Keeps the texts of documents that it embedded, and may be told to stop the world."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded: list[str] = []
        self.stops_at: int | None = None
        """After so many texts whoever asks is killed."""

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        if self.stops_at is not None and len(self.embedded) + len(texts) > self.stops_at:
            raise Killed
        self.embedded += texts
        return await super().embed_documents(texts)


@pytest.fixture(scope="module")
def url(postgres_server: TestServer, migrated_template: str) -> Iterator[str]:
    with postgres_server.database(template=migrated_template) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def settings(url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        database_url=SecretStr(url),
        conversion=ConversionSettings(processes=1),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(settings: Settings, other: Counting) -> AsyncIterator[Rag]:
    async with Rag.open(settings, other_embeddings=[other]) as rag:
        yield rag


@pytest_asyncio.fixture(loop_scope="module")
async def rag(opened: Rag, other: Counting, request: pytest.FixtureRequest) -> Rag:
    """The Rag with two documents in a collection of the test's own."""
    opened.collection = request.node.name.removeprefix("test_")[:48].rstrip("_")
    for document_id, text in (("ferry", FERRY), ("lighthouse", LIGHTHOUSE)):
        own = f"{text} ({opened.collection})"  # no other test has its vector in the cache
        await opened.ingest_text(own, document_id=document_id, filename="a.md")
    other.embedded.clear()
    other.stops_at = None
    return opened


def executed(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query, values)  # type: ignore[arg-type]  # made by the test
        return cursor.fetchall() if cursor.description else []


async def first(rag: Rag, question: str, *, mode: Any = "hybrid") -> str:
    (best, *_) = await rag.search(question, mode=mode)
    return best.document_id


# --- what is configured --------------------------------------------------------------------


async def test_a_collection_of_another_model_than_is_configured_moves_to_it(
    rag: Rag, settings: Settings
) -> None:
    """What was configured has changed; answers can't be compared, and that stops nothing."""
    now = MemoryEmbedder()
    with pytest.raises(CollectionMismatch):
        await Rag.open(settings, collection=rag.collection, embedding=now)
    async with open_runtime(settings, embedder=now) as runtime:
        reindex = runtime.reindex
        job = await reindex.start(
            rag.collection, embedding_model=now.spec.model, submitted_by="test"
        )
        job = await reindex.finish(job)
    assert (job.status, job.result["state"]) == ("succeeded", "switched"), job.error
    assert job.result["comparison"]["code"] == "collection_mismatch"
    async with Rag.open(settings, collection=rag.collection, embedding=now) as changed:
        assert await first(changed, "маяк на острове", mode="vector") == "lighthouse"


async def test_what_was_gone_back_to_answers_whatever_is_configured(
    rag: Rag, settings: Settings, other: Counting
) -> None:
    """The model is configured for new collections after the move, and then the move is undone."""
    before = rag.runtime.embedder.spec
    await rag.reindex(embedding_model=other.spec.model)
    async with Rag.open(settings, collection=rag.collection, embedding=MemoryEmbedder()) as changed:
        back = await changed.roll_back_reindex()
        assert back.embedding == before
        assert await first(changed, "When does the ferry leave?", mode="vector") == "ferry"
        job = await changed.ingest_text("# Tar\n\nTar is burnt in pits.", document_id="tar")
        assert (job.status, job.outcome) == ("succeeded", "created")
        assert await first(changed, "burning tar", mode="vector") == "tar"
        await changed.roll_back_reindex()
        assert await first(changed, "tar", mode="vector") == "tar"  # it was made for both


async def test_what_can_not_be_done_is_refused_before_anything_is_queued(rag: Rag) -> None:
    for wanted in ("nonsense", "memory:other", "ollama:"):
        with pytest.raises(InvalidInput):
            await rag.reindex(embedding_model=wanted)
    with pytest.raises(InvalidInput, match="21 or more"):
        await rag.reindex(max_tokens=16)
    assert await rag.generations() == []


async def test_it_moves_on_every_supported_postgresql(any_postgres: str, tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=SecretStr(any_postgres),
        conversion=ConversionSettings(processes=1),
    )
    other = MemoryEmbedder()
    async with Rag.open(settings, other_embeddings=[other]) as rag:
        await rag.ingest_text(FERRY, document_id="ferry", filename="a.md")
        for _ in range(2):
            job = await rag.reindex(embedding_model=other.spec.model, max_tokens=32)
            assert job.result["state"] == "switched"
            assert await first(rag, "When does the ferry leave?", mode="vector") == "ferry"
            back = await rag.roll_back_reindex()
            assert back.embedding == rag.runtime.embedder.spec
            assert await first(rag, "When does the ferry leave?", mode="vector") == "ferry"


# --- failures ------------------------------------------------------------------------------


async def test_a_failed_reindex_is_kept_and_run_again_from_where_it_stopped(
    rag: Rag, url: str, other: Counting
) -> None:
    reindex, catalog = rag.runtime.reindex, rag.runtime.catalog
    job = await reindex.start(rag.collection, embedding_model=other.spec.model, submitted_by="test")
    other.stops_at = 1
    one_by_one = replace(reindex, at_once=1)
    with pytest.raises(Killed):
        await one_by_one.next(job_id=job.job_id)
    executed(
        url,
        "UPDATE ragcore.jobs SET status = 'failed', finished_at = now() WHERE job_id = %s",
        job.job_id,
    )
    assert await reindex.tidy() == 0
    (generation,) = await rag.generations()
    assert (generation.documents, generation.missing) == (1, 1)

    other.stops_at = None
    await catalog.run_again(job.job_id)
    job = await reindex.finish(job)
    assert (job.status, job.result["state"]) == ("succeeded", "switched"), job.error
    own = [text for text in other.embedded if rag.collection in text]
    assert len(own) == len(set(own)) == 2  # each text once; others calibrate its scores


async def test_a_language_that_the_new_model_does_not_serve_is_warned_of(
    url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    english = MemoryEmbedder(languages=frozenset({"en"}))
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("english"),
        database_url=SecretStr(url),
        conversion=ConversionSettings(processes=1),
    )
    async with Rag.open(settings, collection="served", other_embeddings=[english]) as rag:
        await rag.ingest_text(FERRY, document_id="ferry", filename="a.md")
        await rag.ingest_text(LIGHTHOUSE, document_id="lighthouse", filename="a.md")
        job = await rag.reindex(embedding_model=english.spec.model)
        (warning,) = job.result["warnings"]
        assert "'ru'" in warning["detail"] and warning["documents"] == 1

        await rag.create_collection("strictly", strict=True)
        await rag.ingest_text(FERRY, collection="strictly", document_id="a", filename="a.md")
        await rag.ingest_text(LIGHTHOUSE, collection="strictly", document_id="b", filename="a.md")
        job = await rag.reindex(collection="strictly", embedding_model=english.spec.model)
        assert job.result["state"] == "ready"  # not switched: that one would be lost
        assert [each["document_id"] for each in job.result["problems"]] == ["b"]
        assert job.result["problems"][0]["code"] == "unfit_model"


async def test_one_that_failed_long_ago_is_dropped(rag: Rag, url: str) -> None:
    job = await rag.runtime.reindex.start(rag.collection, max_tokens=32, submitted_by="test")
    executed(
        url,
        "UPDATE ragcore.jobs SET status = 'failed', finished_at = now() - interval '2 days'"
        " WHERE job_id = %s",
        job.job_id,
    )
    assert await rag.runtime.reindex.tidy() == 1
    assert await rag.generations() == []


async def test_only_a_reindex_that_gets_on_is_forgiven_crashes(rag: Rag, url: str) -> None:
    """Else one text that kills its workers would do so for ever."""
    generations = rag.runtime.reindex.generations
    job = await rag.runtime.reindex.start(rag.collection, max_tokens=32, submitted_by="test")
    executed(url, "UPDATE ragcore.jobs SET crashes = 3, attempts = 4 WHERE job_id = %s", job.job_id)
    lease = await generations.claim(owner="test", lease=rag.runtime.work.lease, job_id=job.job_id)
    assert lease is not None and lease.crashes == 3
    query = "SELECT crashes, attempts FROM ragcore.jobs WHERE job_id = %s"
    await generations.note(lease, counts={}, result={}, went_on=False)
    assert executed(url, query, job.job_id) == [(3, 5)]
    await generations.note(lease, counts={}, result={}, went_on=True)
    assert executed(url, query, job.job_id) == [(0, 1)]
    await rag.discard_reindex()


async def test_a_generation_kept_long_enough_is_dropped_with_its_tables(rag: Rag, url: str) -> None:
    await rag.reindex(max_tokens=32)
    (before,) = await rag.generations()
    tables = "SELECT count(*) FROM information_schema.tables WHERE table_name ~ '_(gen|old)[.]'"
    (count,) = executed(url, tables)[0]
    executed(
        url,
        "UPDATE ragcore.generations SET retired_at = retired_at - interval '8 days'"
        " WHERE collection = %s",
        rag.collection,
    )
    assert await rag.runtime.reindex.tidy() == 1
    assert await rag.generations() == []
    assert executed(url, tables) == [(count - 2,)]  # chunks and words
    assert before.state == "retired"
    assert await first(rag, "When does the ferry leave?") == "ferry"


async def test_nothing_drifts_apart_by_a_move_and_back(rag: Rag, other: Counting) -> None:
    """Files, documents, chunks, words and counts, of what answers and of what is beside it."""

    async def drifts() -> dict[str, int]:
        return {each.kind: each.found for each in await rag.runtime.reconcile() if each.found}

    before = await drifts()
    await rag.vector_store().async_add([await node("n1", "Seal oil.", rag.runtime.embedder)])
    await rag.reindex(max_tokens=32, embedding_model=other.spec.model, switch="manual")
    assert await drifts() == before
    await rag.switch_reindex()
    assert await drifts() == before
    await rag.ingest_text("# Tar\n\nTar is burnt in pits.", document_id="tar", filename="a.md")
    await rag.roll_back_reindex()
    assert await drifts() == before
    await rag.delete("tar")
    assert await drifts() == before


# --- stock clients and nodes ---------------------------------------------------------------


async def test_what_a_stock_client_writes_at_the_last_moment_is_there_after_the_switch(
    rag: Rag, url: str
) -> None:
    """It knows no generations: its transaction has read the table, and writes when it is locked."""
    table = f'vecs."{rag.collection}"'
    waiting = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND NOT granted"
    with psycopg.connect(url) as stock:
        stock.execute(f"SELECT count(*) FROM {table}")  # type: ignore[arg-type]
        moving = asyncio.create_task(rag.reindex(max_tokens=32))
        while executed(url, waiting) == [(0,)]:
            assert not moving.done()
            await asyncio.sleep(0.01)
        note = '{"text": "a stock note about salt"}'
        await asyncio.to_thread(
            stock.execute,
            f"INSERT INTO {table} SELECT 'stock', vec, %s FROM {table} LIMIT 1",  # type: ignore[arg-type]
            [note],
        )
        await asyncio.to_thread(stock.commit)
    job = await moving
    assert (job.status, job.result["state"]) == ("succeeded", "switched"), job.error
    found = await rag.search("salt", mode="keyword")
    assert [passage.chunk_id for passage in found] == ["stock"]


async def test_nodes_move_too_and_going_back_without_later_ones_is_refused(
    rag: Rag, other: Counting
) -> None:
    store = rag.vector_store()
    await store.async_add([await node("n1", "Seal oil lights the lamp.", rag.runtime.embedder)])
    await rag.reindex(embedding_model=other.spec.model)
    assert "Seal oil lights the lamp." in other.embedded
    found = await rag.search("seal oil lamp", mode="vector", top_k=1)
    assert [passage.chunk_id for passage in found] == ["n1"]

    await store.async_add([await node("n2", "Whale oil costs more.", other)])
    with pytest.raises(RollbackLoses, match="1 nodes"):
        await rag.roll_back_reindex()
    assert [p.chunk_id for p in await rag.search("whale oil", top_k=1)] == ["n2"]


async def node(node_id: str, text: str, embedder: Any) -> TextNode:
    (vector,) = await embedder.embed_documents([text])
    return TextNode(id_=node_id, text=text, embedding=[float(x) for x in vector])


async def test_nodes_keep_their_vectors_where_the_model_stays(rag: Rag) -> None:
    """They may be of more than the text."""
    other_text = await node("n1", "Nothing of the kind.", rag.runtime.embedder)
    other_text.set_content("Seal oil lights the lamp.")
    await rag.vector_store().async_add([other_text])
    before = await rag.runtime.nodes(rag.collection).vectors(["n1"])
    await rag.reindex(max_tokens=32)
    after = await rag.runtime.nodes(rag.collection).vectors(["n1"])
    assert after["n1"].tolist() == before["n1"].tolist()
    assert [p.chunk_id for p in await rag.search("seal oil", mode="keyword")] == ["n1"]


async def test_vectors_are_read_on_after_a_move_to_another_dimension(
    rag: Rag, other: Counting
) -> None:
    """A statement that the server has prepared would give another type than it was prepared for."""
    nodes = rag.runtime.nodes(rag.collection)
    ids = [
        each.node_id if isinstance(each, NodeRow) else each.chunk_id
        for each in await nodes.get(None)
    ]
    for _ in range(100):  # so often on each connection that it is prepared
        assert len(await nodes.vectors(ids)) == 2
    await rag.reindex(embedding_model=other.spec.model)
    ids = [
        each.node_id if isinstance(each, NodeRow) else each.chunk_id
        for each in await nodes.get(None)
    ]
    for _ in range(100):  # so often on each connection that it is prepared
        vectors = await nodes.vectors(ids)
        assert [len(vector) for vector in vectors.values()] == [other.spec.dimension] * 2


# --- a real worker, killed -----------------------------------------------------------------


async def test_a_worker_that_is_killed_is_followed_by_one_that_goes_on(
    postgres_server: TestServer, migrated_template: str, redis_url: str, tmp_path: Path
) -> None:
    documents = 60
    with postgres_server.database(template=migrated_template) as url:
        settings = Settings(
            data_dir=tmp_path / "data",
            database_url=SecretStr(url),
            conversion=ConversionSettings(processes=1),
        )
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAGCORE_")} | {
            "RAGCORE_DATABASE_URL": url,
            "RAGCORE_REDIS_URL": redis_url,
            "RAGCORE_DATA_DIR": str(settings.data_dir),
            "RAGCORE_CONVERSION__PROCESSES": "1",
        }

        def worker() -> "subprocess.Popen[bytes]":
            return subprocess.Popen([sys.executable, "-m", "ragcore_worker"], env=environment)

        async with Rag.open(settings) as rag:
            for number in range(documents):
                text = f"# Log {number}\n\nThe keeper wrote line {number}.\n\n" * 3
                await rag.ingest_text(text, document_id=f"log-{number}", filename="a.md")
            job = await rag.runtime.reindex.start("default", max_tokens=32, submitted_by="test")
            kills = 0
            running = worker()
            try:
                while not job.is_finished:
                    await asyncio.sleep(0.05)
                    (generation, *_) = await rag.generations()
                    if kills < 2 and generation.documents > (kills + 1) * documents // 4:
                        running.send_signal(signal.SIGKILL)
                        running.wait()
                        kills += 1
                        running = worker()
                    job = await rag.runtime.catalog.job(job.job_id)
            finally:
                running.terminate()
                running.wait()
            assert kills == 2
            assert (job.status, job.result["state"]) == ("succeeded", "switched"), job.error
            found = {document.document_id for document in await rag.documents(limit=1000)}
            held = executed(url, 'SELECT DISTINCT document_id FROM vecs."default"')
            assert found == {row[0] for row in held} == {f"log-{n}" for n in range(documents)}
            doubled = executed(
                url,
                'SELECT document_no, ordinal FROM vecs."default" GROUP BY 1, 2 HAVING count(*) > 1',
            )
            assert doubled == []
            assert not await rag.runtime.reindex.tidy()
