"""Damage of every kind is found, told and put right; and a deletion leaves nothing to be found."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from pydantic import SecretStr

from buckets import Bucket, S3Server
from conftest import TestServer
from ragcore import Rag
from ragcore.flows.reconcile import Reconcile
from ragcore.flows.submit import docling_key, original_key, version_prefix
from ragcore.model import Drift
from ragcore.settings import ConversionSettings, Settings
from ragcore.testing.memory.embedder import MemoryEmbedder

pytestmark = pytest.mark.asyncio(loop_scope="module")

MARKER = "Quetzalcoatlus"
TEXT = (
    f"# About {MARKER}\n\nThe {MARKER} flew over Norvik in May.\n\n# Ferry\n\nIt leaves at noon.\n"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(
    postgres_server: TestServer,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Rag]:
    with postgres_server.database(template=migrated_template) as url:
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("data"),
            database_url=SecretStr(url),
            conversion=ConversionSettings(processes=1),
        )
        async with Rag.open(settings, embedding=MemoryEmbedder(), collection="work") as rag:
            yield rag


@pytest_asyncio.fixture(loop_scope="module")
async def rag(opened: Rag) -> AsyncIterator[Rag]:
    """The Rag with a collection of the test's own, and no file or cached vector but its."""
    opened.collection = f"test-{uuid4().hex[:8]}"
    await opened.create_collection(opened.collection)
    yield opened
    await opened.delete_collection(opened.collection)
    await execute(opened, "DELETE FROM ragcore.embedding_cache")
    await opened.runtime.blobs.delete_prefix("")


@pytest.fixture
def reconcile(rag: Rag) -> Reconcile:
    """Without grace: every file and vector is old enough."""
    return replace(rag.runtime.reconcile, grace_seconds=-60)


async def execute(rag: Rag, statement: str, *values: Any) -> list[tuple[Any, ...]]:
    async with rag.runtime.pool.connection() as connection:
        cursor = await connection.execute(statement, values)
        return await cursor.fetchall() if cursor.description else []


async def stored(rag: Rag, name: str = "a", text: str = TEXT, **said: Any) -> Any:
    """Ingest a text and return its version."""
    job = await rag.ingest_text(text, document_id=name, filename="text.md", **said)
    assert job.status == "succeeded", job.error
    return (await rag.document(name)).version_id


def faults(drifts: Sequence[Drift]) -> dict[str, tuple[int, int]]:
    return {each.kind: (each.found, each.repaired) for each in drifts if each.found}


async def work_off(rag: Rag) -> None:
    """Do what a worker would."""
    while await rag.runtime.work.next() is not None:
        pass


async def test_what_agrees_is_told_so(rag: Rag, reconcile: Reconcile) -> None:
    await stored(rag)
    await stored(rag, "b")
    await stored(rag, "a", TEXT + "\nMore.\n")
    found = await reconcile()
    assert faults(found) == {"unused_vectors": (found[-1].found, 0)} or faults(found) == {}
    assert not any(each.is_fault for each in found)


async def test_files_that_nobody_needs_go_when_they_are_old(rag: Rag, reconcile: Reconcile) -> None:
    kept, lost = await stored(rag), uuid4()
    await rag.runtime.blobs.put(original_key(lost), pieces(b"lost"))
    patient = replace(reconcile, grace_seconds=3600)
    assert "orphaned_files" not in faults(await patient(repair=True))
    found = await reconcile()
    assert faults(found)["orphaned_files"] == (1, 0)
    assert next(each for each in found if each.kind == "orphaned_files").examples == [
        version_prefix(lost)
    ]
    assert faults(await reconcile(repair=True))["orphaned_files"] == (1, 1)
    keys = [key async for key, _ in rag.runtime.blobs.list()]
    assert keys and all(key.startswith(version_prefix(kept)) for key in keys)


async def test_files_of_others_are_told_and_left(rag: Rag, reconcile: Reconcile) -> None:
    for key in ("notes.txt", "versions/no-uuid/original"):
        await rag.runtime.blobs.put(key, pieces(b"theirs"))
    found = await reconcile(repair=True)
    assert faults(found)["unknown_files"] == (2, 0)
    assert any(each.is_fault for each in found)
    assert len([key async for key, _ in rag.runtime.blobs.list()]) == 2


async def test_a_document_whose_original_is_gone_is_named_and_goes_on_answering(
    rag: Rag, reconcile: Reconcile
) -> None:
    version = await stored(rag)
    await rag.runtime.blobs.delete_prefix(version_prefix(version))
    found = await reconcile(repair=True)
    assert faults(found)["missing_originals"] == (1, 0)
    drift = next(each for each in found if each.kind == "missing_originals")
    assert drift.examples == [f"{rag.collection}/a"]
    assert (await rag.search(MARKER)).passages


async def test_what_was_made_of_an_original_is_made_again(rag: Rag, reconcile: Reconcile) -> None:
    version = await stored(rag, metadata={"year": 1}, title="Mine")
    await rag.runtime.blobs.delete_prefix(docling_key(version))
    assert faults(await reconcile())["missing_results"] == (1, 0)
    assert faults(await reconcile(repair=True))["missing_results"] == (1, 1)
    await work_off(rag)
    document = await rag.document("a")
    assert (document.title, document.metadata) == ("Mine", {"year": 1})
    assert document.version_id != version
    assert not any(each.is_fault for each in await reconcile())


async def test_what_is_damaged_is_not_read_again_over_something_newer(
    rag: Rag, reconcile: Reconcile
) -> None:
    version = await stored(rag)
    await rag.runtime.blobs.delete_prefix(docling_key(version))
    upload = replace(rag._upload(document_id="a"), filename="text.md")
    newer = await rag.runtime.submit.stream(pieces(b"# Newer\n\nThe newer text."), upload)
    await reconcile(repair=True)
    await work_off(rag)
    assert (await rag.runtime.catalog.job(newer.job_id)).outcome == "updated"
    assert "newer" in (await rag.chunks("a"))[0].text
    assert not any(each.is_fault for each in await reconcile())


async def test_an_original_that_is_not_what_was_sent_is_not_read_again(
    rag: Rag, reconcile: Reconcile
) -> None:
    version = await stored(rag)
    await rag.runtime.blobs.delete_prefix(docling_key(version))
    await rag.runtime.blobs.put(original_key(version), pieces(b"damaged"))
    assert faults(await reconcile(repair=True))["missing_results"] == (1, 0)


async def test_chunks_of_no_document_go(rag: Rag, reconcile: Reconcile) -> None:
    await stored(rag)
    await execute(
        rag,
        f'INSERT INTO vecs."{rag.collection}" (id, vec, metadata, document_no, own_metadata)'
        f" SELECT id || 'x', vec, metadata, 0, false FROM vecs.\"{rag.collection}\"",
    )
    count = faults(await reconcile())["orphaned_chunks"][0]
    assert count > 0
    assert faults(await reconcile(repair=True))["orphaned_chunks"] == (count, count)
    assert not any(each.is_fault for each in await reconcile())


async def test_nodes_of_llamaindex_users_are_left(rag: Rag, reconcile: Reconcile) -> None:
    await execute(
        rag,
        f'INSERT INTO vecs."{rag.collection}" (id, vec, metadata)'
        " SELECT 'mine', array_fill(0.1, ARRAY[64])::vector, '{\"text\": \"a node\"}'",
    )
    assert not any(each.is_fault for each in await reconcile(repair=True))
    assert await execute(rag, f'SELECT id FROM vecs."{rag.collection}"') == [("mine",)]


async def test_lost_chunks_are_made_again(rag: Rag, reconcile: Reconcile) -> None:
    await stored(rag)
    await execute(rag, f'DELETE FROM vecs."{rag.collection}" WHERE ordinal = 0')
    assert faults(await reconcile())["miscounted_documents"] == (1, 0)
    assert faults(await reconcile(repair=True))["miscounted_documents"] == (1, 1)
    await work_off(rag)
    assert (await rag.chunks("a"))[0].ordinal == 0
    assert not any(each.is_fault for each in await reconcile())


async def test_chunks_that_were_removed_on_purpose_stay_away(
    rag: Rag, reconcile: Reconcile
) -> None:
    await stored(rag)
    first, *_ = await rag.chunks("a")
    await rag.vector_store().adelete_nodes([first.chunk_id])
    assert not any(each.is_fault for each in await reconcile(repair=True))
    assert first.chunk_id not in {each.chunk_id for each in await rag.chunks("a")}


async def test_words_are_written_and_removed_as_the_chunks_have_them(
    rag: Rag, reconcile: Reconcile
) -> None:
    await stored(rag)
    table = f'ragcore."postings_{rag.collection}"'
    await execute(rag, f"INSERT INTO {table} VALUES (999999, 1, 1, 'ghost')")
    await execute(
        rag,
        f'DELETE FROM {table} WHERE chunk_no = (SELECT min(chunk_no) FROM vecs."{rag.collection}")',
    )
    found = faults(await reconcile())
    assert (found["orphaned_words"], found["missing_words"]) == ((1, 0), (1, 0))
    await reconcile(repair=True)
    assert not any(each.is_fault for each in await reconcile())
    result = await rag.search(MARKER, mode="keyword")
    assert result.passages


async def test_counts_are_put_right(rag: Rag, reconcile: Reconcile) -> None:
    await stored(rag)
    counts = "SELECT sum(chunks), sum(words) FROM ragcore.chunk_counts WHERE collection = %s"
    before = await execute(rag, counts, rag.collection)
    await execute(
        rag,
        "UPDATE ragcore.chunk_counts SET chunks = 7, words = 700 WHERE collection = %s",
        rag.collection,
    )
    assert faults(await reconcile())["miscounted_collections"] == (1, 0)
    both = await asyncio.gather(reconcile(repair=True), reconcile(repair=True))
    assert sum(faults(each).get("miscounted_collections", (0, 0))[1] for each in both) == 1
    assert await execute(rag, counts, rag.collection) == before


async def test_versions_that_wait_for_nothing_fail(rag: Rag, reconcile: Reconcile) -> None:
    job = await rag.runtime.submit.stream(pieces(b"text"), rag._upload(document_id="a"))
    await execute(rag, "UPDATE ragcore.jobs SET status = 'failed' WHERE job_id = %s", job.job_id)
    assert faults(await reconcile())["stranded_versions"] == (1, 0)
    assert faults(await reconcile(repair=True))["stranded_versions"] == (1, 1)
    assert [each.state for each in await rag.versions("a")] == ["failed"]


async def test_vectors_of_texts_that_are_gone_are_forgotten(rag: Rag, reconcile: Reconcile) -> None:
    await stored(rag, text="# One\n\nThe first text.")
    await stored(rag, text="# Two\n\nThe second text.")
    cached = "SELECT count(*) FROM ragcore.embedding_cache"
    found = await reconcile()
    assert faults(found) == {"unused_vectors": (1, 0)}
    assert not any(each.is_fault for each in found)
    await reconcile(repair=True)
    assert await execute(rag, cached) == [(1,)]


async def test_it_goes_on_while_documents_come_and_go(rag: Rag, reconcile: Reconcile) -> None:
    async def change() -> None:
        for number in range(6):
            await stored(rag, f"d{number}", f"# Number {number}\n\n{MARKER} {number}.\n")
            if number % 2:
                await rag.delete(f"d{number}")

    patient = replace(reconcile, grace_seconds=3600)
    changing = asyncio.create_task(change())
    while not changing.done():
        assert not any(each.is_fault for each in await patient(repair=True))
    await changing
    assert len(await rag.documents()) == 3
    assert not any(each.is_fault for each in await reconcile())


# --- a deletion leaves nothing -------------------------------------------------------------


async def test_the_marker_is_seen_where_it_is(rag: Rag) -> None:
    """So that not finding it means something."""
    await stored_with_marker(rag)
    tables, files = await places_of(rag, MARKER)
    assert f"vecs.{rag.collection}.metadata" in tables
    assert {"ragcore.documents.metadata", "ragcore.versions.title"} <= tables
    assert files
    await rag.delete("a")


@pytest.mark.parametrize("way", ["document", "filter", "collection", "expiry"])
async def test_nothing_of_a_deleted_document_is_left(rag: Rag, way: str) -> None:
    await stored_with_marker(rag)
    await stored(rag, "b", "# Another\n\nIt stays.\n")
    cached = await execute(rag, "SELECT count(*) FROM ragcore.embedding_cache")
    async with deleting(rag, way) as receipt:
        assert receipt is None or (receipt.versions, receipt.cached_vectors > 0) == (
            (2, True) if way != "collection" else (3, True)
        )
    assert await places_of(rag, MARKER) == (set(), set())
    left = await execute(rag, "SELECT count(*) FROM ragcore.embedding_cache")
    assert left < cached
    if way != "collection":
        assert (await rag.search("Another")).passages
        assert left == [(1,)]


async def test_nothing_is_left_of_an_object_that_left_its_bucket(
    database_url: str, data_dir: Path, s3_server: S3Server, bucket: Bucket
) -> None:
    settings = Settings(
        database_url=SecretStr(database_url),
        data_dir=data_dir,
        conversion=ConversionSettings(processes=1),
        buckets={"servers": {"test": s3_server.settings(bucket.name)}},  # type: ignore[arg-type]
    )
    async with Rag.open(settings, embedding=MemoryEmbedder()) as rag:
        bucket.put("a.md", TEXT, metadata={"about": MARKER})
        bucket.put("b.md", "# Another\n\nIt stays.\n")
        await rag.sync(bucket.uri())
        assert all(await places_of(rag, MARKER))
        bucket.remove("a.md")
        await rag.sync(bucket.uri(), delete_missing=True)
        assert await places_of(rag, MARKER) == (set(), set())
        assert await execute(rag, "SELECT count(*) FROM ragcore.embedding_cache") == [(1,)]
        assert not any(each.is_fault for each in await rag.runtime.reconcile(buckets=True))
        bucket.put("b.md", "# Another\n\nIt changed.\n")
        found = await rag.runtime.reconcile(buckets=True)
        assert faults(found)["bucket_changes"] == (1, 0)


@asynccontextmanager
async def deleting(rag: Rag, way: str) -> AsyncIterator[Any]:
    if way == "document":
        yield await rag.delete("a")
    elif way == "filter":
        yield await rag.delete_matching({"about": MARKER})
    elif way == "collection":
        yield await rag.delete_collection(rag.collection)
        await rag.create_collection(rag.collection)  # which the fixture deletes
    else:
        await rag.update("a", expires_at=datetime.now(UTC) - timedelta(seconds=1))
        await rag.runtime.retain()
        (entry,) = await rag.runtime.audit.entries(collections={rag.collection}, limit=1)
        assert (entry.action, entry.actor, entry.target) == ("document.delete", "retention", "a")
        yield None


async def stored_with_marker(rag: Rag) -> None:
    """Two versions, with the marker in everything that is said of a document and in it."""
    said = {"title": f"On {MARKER}", "metadata": {"about": MARKER, MARKER: [1]}}
    await stored(rag, "a", TEXT, **said)
    await stored(rag, "a", TEXT + f"\n# More\n\nMore of {MARKER}.\n", **said)


async def places_of(rag: Rag, word: str) -> tuple[set[str], set[str]]:
    """Name the columns whose values hold a word, in any case, and the files whose bytes do."""
    columns = await execute(
        rag,
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')",
    )
    tables = set()
    for schema, table, column in columns:
        query = f'SELECT count(*) FROM "{schema}"."{table}" WHERE "{column}"::text ILIKE %s'
        if (await execute(rag, query, f"%{word}%"))[0][0]:
            tables.add(f"{schema}.{table}.{column}")
    data_dir = rag.runtime.settings.data_dir
    return tables, {str(path) for path in data_dir.rglob("*") if holds(path, word)}


def holds(path: Path, word: str) -> bool:
    if not path.is_file():
        return False
    import gzip

    content = path.read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    return word.lower().encode() in content.lower()


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content
