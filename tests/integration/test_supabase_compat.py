"""Stock `vecs` and `SupabaseVectorStore` open our collections, and we read what they write."""

import json
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio
import vecs
from llama_index.core.schema import BaseNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from pydantic import SecretStr

from conftest import TestServer
from ragcore import Rag
from ragcore.errors import MissingExtra
from ragcore.llamaindex.supabase import sqlalchemy_url, supabase_vector_store
from ragcore.settings import ConversionSettings, Settings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # The stock store itself opens its collection so.
    pytest.mark.filterwarnings("ignore:Call to deprecated method get_collection"),
]

DOCUMENTS = {
    "timetable": """# Ferry timetable

## Winter

The ferry Aurora leaves Norvik at 07:40 on weekdays and carries 120 passengers.
""",
    "fares-ru": """# Тарифы

## Лето

Летом провоз велосипеда стоит 4 кроны.
""",
}


@pytest.fixture(scope="module")
def url(postgres_server: TestServer, migrated_template: str) -> Iterator[str]:
    with postgres_server.database(template=migrated_template) as url:
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rag(url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rag]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        database_url=SecretStr(url),
        conversion=ConversionSettings(processes=1),
    )
    async with Rag.open(settings, collection="stock") as rag:
        yield rag


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def ingested(rag: Rag) -> AsyncIterator[None]:
    """Two ingested documents, and nothing else."""
    for document_id, text in DOCUMENTS.items():
        await rag.ingest_text(
            text, document_id=document_id, metadata={"year": 2024}, filename="text.md"
        )
    yield
    await rag.vector_store().aclear()


@pytest.fixture
def collection(url: str) -> Iterator[Any]:
    """The collection as stock `vecs` sees it."""
    client = vecs.create_client(sqlalchemy_url(url))
    yield client.get_collection("stock")
    client.disconnect()


@pytest.fixture
def stock(url: str) -> Any:
    return supabase_vector_store(url, "stock", 384)


async def vector_of(rag: Rag, text: str) -> list[float]:
    return [float(x) for x in await rag.runtime.embedder.embed_query(text)]


async def our_nodes(rag: Rag) -> dict[str, BaseNode]:
    return {node.node_id: node for node in await rag.vector_store().aget_nodes()}


# --- what we write, read by stock clients --------------------------------------------------


async def test_stock_vecs_reads_the_same_chunks(rag: Rag, collection: Any) -> None:
    ours = await our_nodes(rag)
    assert len(collection) == len(ours) >= 2
    for id_, vector, metadata in collection.fetch(ids=list(ours)):
        assert metadata["text"] == ours[id_].get_content()
        assert metadata["headings"] == ours[id_].metadata["headings"]
        assert metadata["doc_id"] == ours[id_].ref_doc_id
        assert len(vector) == 384


async def test_stock_vecs_uses_our_index(collection: Any, rag: Rag) -> None:
    assert collection.is_indexed_for_measure(vecs.IndexMeasure.cosine_distance)
    vector = await vector_of(rag, "When does the ferry leave?")
    ((best, distance),) = collection.query(data=vector, limit=1, include_value=True)
    ours = await rag.vector_store().aquery(VectorStoreQuery(query_embedding=vector))
    assert ours.ids == [best]
    assert ours.similarities == [pytest.approx(1 - distance, abs=1e-5)]


async def test_the_stock_store_reads_the_same_nodes(rag: Rag, stock: Any) -> None:
    ours = await our_nodes(rag)
    vector = await vector_of(rag, "When does the ferry leave?")
    found = stock.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=10))
    assert set(found.ids) == set(ours)
    for node in found.nodes:
        same = ours[node.node_id]
        assert node.get_content() == same.get_content()
        assert node.ref_doc_id == same.ref_doc_id
        assert node.metadata["headings"] == same.metadata["headings"]


async def test_the_stock_store_reads_added_nodes_as_they_were(rag: Rag, stock: Any) -> None:
    node = TextNode(
        id_="added",
        text="Собаки ездят бесплатно.",
        metadata={"year": 2025, "tags": ["dogs"]},
        embedding=await vector_of(rag, "Собаки ездят бесплатно."),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="fares")},
    )
    await rag.vector_store().async_add([node])
    found = stock.query(
        VectorStoreQuery(
            query_embedding=node.embedding,
            filters=MetadataFilters(filters=[MetadataFilter(key="year", value=2025)]),
        )
    )
    (same,) = found.nodes
    assert same.node_id == "added"
    assert same.get_content() == node.text
    assert same.metadata == node.metadata
    assert same.ref_doc_id == "fares"


async def test_no_text_is_stored_twice(url: str, rag: Rag) -> None:
    node = TextNode(id_="added", text="Собаки ездят бесплатно.", embedding=[1.0] + [0.0] * 383)
    await rag.vector_store().async_add([node])
    with psycopg.connect(url) as connection:
        rows = connection.execute('SELECT to_jsonb(t) FROM vecs."stock" t').fetchall()
    assert len(rows) >= 3
    for (row,) in rows:
        text = row["metadata"]["text"]
        del row["vec"]
        assert json.dumps(row, ensure_ascii=False).count(json.dumps(text, ensure_ascii=False)) == 1


# --- what stock clients write, read by us --------------------------------------------------


async def test_rows_of_stock_vecs_are_found_by_words_and_by_meaning(
    rag: Rag, collection: Any
) -> None:
    text = "Puffins nest on the northern cliff."
    collection.upsert(
        [("puffins", await vector_of(rag, text), {"text": text, "places": "cliff", "page": "x"})]
    )
    for mode in ("keyword", "vector", "hybrid"):
        result = await rag.search("Where do puffins nest?", mode=mode)  # type: ignore[arg-type]
        assert result[0].chunk_id == "puffins", mode
        assert result[0].text == text
        assert result[0].metadata == {"places": "cliff", "page": "x"}
    (node,) = await rag.vector_store().aget_nodes(["puffins"])
    assert node.get_content() == text


async def test_nodes_of_the_stock_store_come_back_whole_and_go_whole(rag: Rag, stock: Any) -> None:
    nodes = [
        TextNode(
            id_=f"stock-{n}",
            text=f"Cabin {n} has a window.",
            metadata={"deck": n % 2},
            embedding=await vector_of(rag, f"Cabin {n} has a window."),
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="cabins")},
        )
        for n in range(12)
    ]
    stock.add(nodes)
    store = rag.vector_store()
    (found,) = await store.aget_nodes(["stock-7"])
    assert found.model_dump(exclude={"embedding"}) == nodes[7].model_dump(exclude={"embedding"})
    deck = MetadataFilters(filters=[MetadataFilter(key="deck", value=1)])
    assert len(await store.aget_nodes(filters=deck)) == 6
    assert (await rag.search("Which cabin has a window?", mode="keyword"))[
        0
    ].document_id == "cabins"
    await store.adelete("cabins")
    assert await store.aget_nodes([node.node_id for node in nodes]) == []


async def test_a_stock_upsert_of_our_row_changes_its_words(rag: Rag, collection: Any) -> None:
    (row,) = collection.fetch(ids=list(await our_nodes(rag))[:1])
    collection.upsert([(row[0], row[1], {**row[2], "text": "Walruses sleep here."})])
    result = await rag.search("walruses", mode="keyword")
    assert [passage.chunk_id for passage in result] == [row[0]]


async def test_a_node_content_of_another_client_is_no_reason_to_refuse_a_row(
    rag: Rag, collection: Any
) -> None:
    vector = await vector_of(rag, "anything")
    for content in ("{broken", "[]", "null", 7):
        collection.upsert([("odd", vector, {"_node_content": content})])
        (passage, *_) = await rag.search("anything", mode="vector")
        assert (passage.chunk_id, passage.text) == ("odd", "")


# --- opening -------------------------------------------------------------------------------


async def test_the_front_door_offers_the_stock_store(rag: Rag) -> None:
    from llama_index.vector_stores.supabase import SupabaseVectorStore

    assert type(rag.supabase_vector_store()) is SupabaseVectorStore


async def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.vector_stores.supabase", None)
    with pytest.raises(MissingExtra, match=r"ragcore\[supabase\]"):
        supabase_vector_store(url, "stock", 384)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
async def test_the_driver_that_vecs_works_with_is_named(scheme: str) -> None:
    given = f"{scheme}://user:p%40ss@localhost:5432/db?sslmode=disable"
    wanted = "postgresql+psycopg2://user:p%40ss@localhost:5432/db?sslmode=disable"
    assert sqlalchemy_url(given) == wanted
