"""Collections moved to another model or chunker while they are written, asked, and killed over."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import pytest_asyncio
import vecs
from llama_index.core.vector_stores.types import VectorStoreQuery
from pydantic import SecretStr

from conftest import TestServer
from ragcore import Rag
from ragcore.errors import GenerationSwitched
from ragcore.llamaindex.supabase import sqlalchemy_url, supabase_vector_store
from ragcore.model import Passage
from ragcore.settings import ChunkingSettings, ConversionSettings, Settings
from ragcore.testing.memory.embedder import MemoryEmbedder

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # The stock store itself opens its collection so.
    pytest.mark.filterwarnings("ignore:Call to deprecated method get_collection"),
]

SENTENCES = {
    "ferry": "The ferry Aurora leaves Norvik at seven and carries passengers to Vega",
    "cheese": "Brown cheese is boiled from whey for nine hours in an iron pot",
    "маяк": "Маяк на острове зажгли осенью, и смотритель жил там с семьёй",
}
SMALL, LARGE = 32, 256
"""Tokens of a chunk: with the small ones a document has several, with the large ones one."""


def text_about(topic: str, word: str = "again") -> str:
    return f"# {topic}\n\n" + "\n\n".join(
        f"{SENTENCES[topic]}, {word} {number}." for number in range(6)
    )


@pytest.fixture(scope="module")
def url(postgres_server: TestServer, migrated_template: str) -> Iterator[str]:
    with postgres_server.database(template=migrated_template) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rag]:
    """One Rag for all tests here; `memory:bag` is a model that its collections can move to."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        database_url=SecretStr(url),
        conversion=ConversionSettings(processes=1),
        chunking=ChunkingSettings(max_tokens=LARGE),
    )
    async with Rag.open(settings) as rag:
        yield rag


@pytest_asyncio.fixture(loop_scope="module")
async def rag(opened: Rag) -> Rag:
    """The Rag, with three documents in a collection of the test's own."""
    opened.collection = f"moving-{uuid4().hex[:8]}"
    for topic in SENTENCES:
        await opened.ingest_text(text_about(topic), document_id=id_of(topic), filename="a.md")
    return opened


def id_of(topic: str) -> str:
    return {"маяк": "lighthouse"}.get(topic, topic)


def rows(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query, values).fetchall()


async def chunk_counts(rag: Rag) -> Mapping[str, int]:
    """How many chunks of each document are found."""
    found = await rag.runtime.search("ferry cheese маяк", collection=rag.collection, top_k=100)
    counts: dict[str, int] = {}
    for passage in found:
        counts[passage.document_id] = counts.get(passage.document_id, 0) + 1
    return counts


# --- kills ---------------------------------------------------------------------------------


class Killed(BaseException):
    """Nothing after it runs, as after a kill."""


class Deadly:
    """The generations, whose caller is killed before or after the call with a certain number."""

    def __init__(self, inner: object, *, at: int, is_done: bool) -> None:
        self._inner, self._at, self._is_done = inner, at, is_done
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self._inner, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            self.calls += 1
            is_last = self.calls == self._at
            if is_last and not self._is_done:
                raise Killed
            result = await method(*args, **kwargs)
            if is_last:
                raise Killed
            return result

        return call


@pytest.mark.parametrize("is_done", [False, True], ids=["before", "after"])
async def test_killed_at_any_line_it_ends_the_same(rag: Rag, url: str, is_done: bool) -> None:
    """Whoever works on it dies before, or after, each of its writes and reads in turn."""
    reindex = rag.runtime.reindex
    # A lease that has run out at once is what a dead worker leaves, sooner or later.
    work = replace(reindex.work, lease=timedelta(seconds=-1), renew_every=timedelta(hours=1))
    limits = itertools.cycle((SMALL, LARGE))
    killed = 0
    for at in itertools.count(1):
        limit = next(limits)
        job = await reindex.start(rag.collection, max_tokens=limit, submitted_by="test")
        deadly = Deadly(reindex.generations, at=at, is_done=is_done)
        dying = replace(reindex, generations=deadly, work=work)  # type: ignore[arg-type]
        was_killed = False
        try:
            await dying.next(job_id=job.job_id)
        except Killed:
            was_killed = True
        except BaseExceptionGroup as group:
            assert group.subgroup(Killed) is not None, group
            was_killed = True
        await rag.runtime.catalog.release_expired()
        while not (job := await rag.runtime.catalog.job(job.job_id)).is_finished:
            await reindex.next(job_id=job.job_id)
        assert (job.status, job.result["state"]) == ("succeeded", "switched"), (at, job.error)
        counts = await chunk_counts(rag)
        assert set(counts) == {"ferry", "cheese", "lighthouse"}, at
        assert all((n > 1) == (limit == SMALL) for n in counts.values()), (at, counts)
        killed += was_killed
        if not was_killed:
            break
    assert killed > 8  # once for each call
    await reindex.tidy()
    kept = rows(
        url,
        "SELECT count(*) FROM ragcore.generations WHERE collection = %s",
        rag.collection,
    )
    assert kept == [(1,)]  # the one before; nothing is left of the killed


# --- writes meanwhile ----------------------------------------------------------------------


async def test_what_changes_while_it_waits_is_in_it(rag: Rag) -> None:
    job = await rag.reindex(max_tokens=SMALL, switch="manual")
    assert job.result["state"] == "ready"
    await rag.ingest_text(text_about("cheese"), document_id="new", filename="a.md")
    await rag.ingest_text(text_about("ferry", "changed"), document_id="ferry", filename="a.md")
    await rag.update("lighthouse", metadata={"year": 1871})
    await rag.delete("cheese")
    (generation,) = await rag.generations()
    assert (generation.state, generation.documents, generation.missing) == ("ready", 3, 0)

    job = await rag.switch_reindex()
    assert job.result["state"] == "switched"
    counts = await chunk_counts(rag)
    assert set(counts) == {"new", "ferry", "lighthouse"}
    assert all(count > 1 for count in counts.values())
    assert "changed" in (await rag.search("ferry Aurora", filters={"document_id": "ferry"}))[0].text
    found = await rag.search("маяк", filters={"year": 1871})
    assert {passage.document_id for passage in found} == {"lighthouse"}

    # And the same towards what answered before.
    await rag.ingest_text(text_about("маяк"), document_id="late", filename="a.md")
    await rag.delete("new")
    await rag.roll_back_reindex()
    counts = await chunk_counts(rag)
    assert counts == {"ferry": 1, "lighthouse": 1, "late": 1}


async def test_searching_and_writing_while_it_moves(rag: Rag) -> None:
    """No search fails, none mixes old and new chunks, and nothing written meanwhile is lost."""
    moving, searches, written = asyncio.Event(), 0, 0

    async def keep_searching() -> None:
        nonlocal searches
        while not moving.is_set():
            for question in ("When does the ferry leave Norvik?", "Когда зажгли маяк?"):
                found = await rag.runtime.search(question, collection=rag.collection, top_k=50)
                assert found, question
                assert_unmixed(found)
                searches += 1

    async def keep_writing() -> None:
        nonlocal written
        while not moving.is_set():
            await rag.ingest_text(
                text_about("cheese", f"edition {written}"),
                document_id=f"written-{written % 4}",
                filename="a.md",
            )
            written += 1

    async def move() -> None:
        try:
            for limit in (SMALL, LARGE, SMALL):
                job = await rag.reindex(max_tokens=limit)
                assert job.status == "succeeded", job.error
                for _ in range(4):
                    await rag.roll_back_reindex()
        finally:
            moving.set()

    async with asyncio.TaskGroup() as group:
        for work in (move(), keep_searching(), keep_searching(), keep_writing()):
            group.create_task(work)
    assert searches > 10 and written > 3
    counts = await chunk_counts(rag)
    expected = {"ferry", "cheese", "lighthouse", *(f"written-{n}" for n in range(4))}
    assert set(counts) == expected
    for number in range(written - min(written, 4), written):
        found = await rag.search("cheese", filters={"document_id": f"written-{number % 4}"})
        assert all(f"edition {number} " in p.text for p in found), number


def assert_unmixed(found: list[Passage] | Any) -> None:
    """One generation has whole documents as chunks, the other has none so long."""
    assert len({passage.text.count("\n\n") > 3 for passage in found}) == 1, [
        (passage.document_id, len(passage.text)) for passage in found
    ]


async def test_an_ingest_that_meets_the_switch_is_done_again(rag: Rag) -> None:
    """Read and embedded for what answered before, it may not be put into what answers now."""
    assert GenerationSwitched.retryable
    await rag.reindex(max_tokens=SMALL, switch="manual")
    switching = asyncio.create_task(rag.switch_reindex())
    jobs = await asyncio.gather(
        *(
            rag.ingest_text(text_about("ferry", f"copy {n}"), document_id=f"c{n}", filename="a.md")
            for n in range(6)
        )
    )
    assert {job.status for job in jobs} == {"succeeded"}
    assert (await switching).result["state"] == "switched"
    counts = await chunk_counts(rag)
    assert all(counts[f"c{n}"] > 1 for n in range(6)), counts


# --- what others read ----------------------------------------------------------------------


async def test_stock_clients_read_the_collection_after_a_move(
    url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """To a model with another dimension, as `vecs` and the stock store of LlamaIndex see it."""
    other = MemoryEmbedder()
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("stock"),
        database_url=SecretStr(url),
        conversion=ConversionSettings(processes=1),
    )
    async with Rag.open(settings, collection="stock-moved", other_embeddings=[other]) as rag:
        for topic in SENTENCES:
            await rag.ingest_text(text_about(topic), document_id=id_of(topic), filename="a.md")
        assert other.spec.dimension != rag.runtime.embedder.spec.dimension
        await rag.reindex(embedding_model=other.spec.model, max_tokens=SMALL)
        nodes = {node.node_id: node for node in await rag.vector_store().aget_nodes()}
        assert len(nodes) > 3

        client = vecs.create_client(sqlalchemy_url(url))
        collection = client.get_collection("stock-moved")
        assert (len(collection), collection.dimension) == (len(nodes), other.spec.dimension)
        for id_, vector, metadata in collection.fetch(ids=list(nodes)):
            assert metadata["text"] == nodes[id_].get_content()
            assert len(vector) == other.spec.dimension
        (question,) = await other.embed_documents([text_about("cheese")])
        nearest = [float(x) for x in question]
        (best, *_) = collection.query(data=nearest, limit=1)
        assert nodes[best].ref_doc_id == "cheese"
        client.disconnect()

        store = supabase_vector_store(url, "stock-moved", other.spec.dimension)
        found = store.query(VectorStoreQuery(query_embedding=nearest, similarity_top_k=1))
        assert found.ids == [best]


async def test_a_process_that_knew_the_collection_before_follows_it(
    url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two services, one moves the collection: the other asks and ingests with the new model."""
    first, second = MemoryEmbedder(), MemoryEmbedder()

    def settings() -> Settings:
        return Settings(
            data_dir=data_dir,
            database_url=SecretStr(url),
            conversion=ConversionSettings(processes=1),
        )

    data_dir = tmp_path_factory.mktemp("two")
    async with (
        Rag.open(settings(), collection="two", other_embeddings=[first]) as mover,
        Rag.open(settings(), collection="two", other_embeddings=[second]) as other,
    ):
        await other.ingest_text(text_about("ferry"), document_id="ferry", filename="a.md")
        assert [p.document_id for p in await other.search("the ferry")] == ["ferry"]
        await mover.reindex(embedding_model=first.spec.model)
        assert [p.document_id for p in await other.search("the ferry")] == ["ferry"]
        job = await other.ingest_text(text_about("маяк"), document_id="m", filename="a.md")
        assert job.outcome == "created"
        again = await other.ingest_text(text_about("маяк"), document_id="m", filename="a.md")
        assert again.outcome == "unchanged"
        for each in (mover, other):
            found = await each.search("маяк на острове", mode="vector", top_k=1)
            assert [passage.document_id for passage in found] == ["m"]
