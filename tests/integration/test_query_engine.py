"""What the front door hands to LlamaIndex, composed with LlamaIndex's own parts."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from llama_index.core import VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms.mock import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever, RouterRetriever
from llama_index.core.schema import Document
from llama_index.core.selectors import EmbeddingSingleSelector
from llama_index.core.tools import RetrieverTool
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)
from pydantic import SecretStr

from conftest import TestServer
from ragcore import Rag
from ragcore.errors import DocumentNotFound
from ragcore.llamaindex import RagQueryEngine, answer_of, search_results
from ragcore.model import Job
from ragcore.settings import ConversionSettings, Settings

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENTS = {
    "timetable": "# Timetable\n\n## Winter\n\nThe ferry Aurora leaves Norvik at 07:40.\n",
    "fares": "# Fares\n\nA bicycle costs 4 crowns and dogs travel free of charge.\n",
    "parom": "# Расписание\n\nПаром «Аврора» отправляется из Норвика в 07:40 по будням.\n",
}
YEARS = {"timetable": 2024, "fares": 2023, "parom": 2022}

QUESTION = "When does the ferry Aurora leave Norvik?"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(
    postgres_server: TestServer, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Rag]:
    with postgres_server.database(template=migrated_template) as url:
        settings = Settings(
            data_dir=tmp_path_factory.mktemp("data"),
            database_url=SecretStr(url),
            conversion=ConversionSettings(processes=1),
        )
        async with Rag.open(settings, collection="ferry") as rag:
            yield rag


async def ingest(rag: Rag, document_id: str, metadata: dict[str, int] | None = None) -> Job:
    text = DOCUMENTS[document_id]
    return await rag.ingest_text(
        text, document_id=document_id, metadata=metadata, filename="text.md"
    )


@pytest_asyncio.fixture(loop_scope="module")
async def rag(opened: Rag) -> AsyncIterator[Rag]:
    """A collection of the three documents, and nothing else."""
    for document_id, year in YEARS.items():
        await ingest(opened, document_id, {"year": year})
    yield opened
    await opened.vector_store().aclear()


# --- question → answer ---------------------------------------------------------------------


async def test_asking_runs_through_the_query_engine(rag: Rag) -> None:
    engine = rag.query_engine()
    assert isinstance(engine, RetrieverQueryEngine)
    response = await engine.aquery(QUESTION)
    answer, asked = answer_of(response), await rag.ask(QUESTION)
    assert "07:40" in str(response)
    assert (answer.text, answer.citations) == (asked.text, asked.citations)
    assert answer.citations[0].quote in response.source_nodes[0].node.get_content()
    assert {"embed", "retrieve", "fuse", "generate"} <= answer.timings_ms.keys()


async def test_a_notebook_may_ask_without_await(rag: Rag) -> None:
    """A cell runs inside a running loop and calls the sync method on that loop's thread."""
    response = rag.query_engine().query(QUESTION)
    assert (
        answer_of(response).citations
        == answer_of(await rag.query_engine().aquery(QUESTION)).citations
    )
    assert rag.retriever().retrieve(QUESTION) == await rag.retriever().aretrieve(QUESTION)


async def test_a_question_of_a_thread_is_answered(rag: Rag) -> None:
    response = await asyncio.to_thread(rag.query_engine().query, "Сколько стоит велосипед?")
    assert answer_of(response).passages[0].document_id == "fares"


async def test_what_is_not_in_the_documents_is_declined_in_the_response(rag: Rag) -> None:
    response = await rag.query_engine().aquery("Who won the chess championship of 1972?")
    answer = answer_of(response)
    assert answer.no_answer_reason is not None
    assert answer.citations == ()


# --- with LlamaIndex's own parts -----------------------------------------------------------


async def test_a_similarity_cutoff_keeps_the_best(rag: Rag) -> None:
    nodes = await rag.retriever().aretrieve(QUESTION)
    scores = [node.get_score(raise_error=True) for node in nodes]
    assert len(nodes) == 3
    assert scores == sorted(scores, reverse=True)
    cutoff = SimilarityPostprocessor(similarity_cutoff=scores[0])
    assert [node.node_id for node in cutoff.postprocess_nodes(nodes)] == [nodes[0].node_id]
    engine = rag.query_engine(node_postprocessors=[cutoff])
    assert isinstance(engine, RagQueryEngine)
    assert [passage.chunk_id for passage in (await engine.ask(QUESTION)).passages] == [
        nodes[0].node_id
    ]


async def test_llamaindexs_filters_narrow_a_retriever(rag: Rag) -> None:
    late = MetadataFilter(key="year", value=2023, operator=FilterOperator.GTE)
    retriever = rag.retriever(filters=MetadataFilters(filters=[late]))
    found = {node.node.ref_doc_id for node in await retriever.aretrieve(QUESTION)}
    assert found == {"timetable", "fares"}


async def test_a_router_chooses_between_retrievers_by_embedding(rag: Rag) -> None:
    def tool(document_id: str, description: str) -> RetrieverTool:
        retriever = rag.retriever(filters={"document_id": document_id})
        return RetrieverTool.from_defaults(retriever=retriever, description=description)

    selector = EmbeddingSingleSelector.from_defaults(embed_model=rag.embed_model())
    router = RouterRetriever(
        selector,
        [tool("timetable", "departure times of ships"), tool("fares", "prices of tickets")],
        llm=MockLLM(),
    )
    with search_results() as results:
        nodes = await router.aretrieve("What is the price of a bicycle ticket?")
    assert [node.node.ref_doc_id for node in nodes] == ["fares"]
    assert [set(result.timings_ms) for result in results] == [{"embed", "retrieve", "fuse"}]


async def test_a_fusion_joins_retrievers(rag: Rag) -> None:
    fusion = QueryFusionRetriever(
        [rag.retriever(mode="vector"), rag.retriever(mode="keyword")],
        llm=MockLLM(),
        num_queries=1,
        similarity_top_k=3,
        mode="reciprocal_rerank",  # type: ignore[arg-type]
    )
    nodes = await fusion.aretrieve(QUESTION)
    assert nodes[0].node.ref_doc_id == "timetable"


@pytest.mark.parametrize("mode", ["default", "text_search", "hybrid", "mmr"])
async def test_an_index_over_the_vector_store_finds_ingested_chunks(rag: Rag, mode: str) -> None:
    index = VectorStoreIndex.from_vector_store(rag.vector_store(), embed_model=rag.embed_model())
    retriever = index.as_retriever(
        vector_store_query_mode=mode,
        similarity_top_k=2,
        filters=MetadataFilters(
            filters=[MetadataFilter(key="year", value=2022, operator=FilterOperator.GT)]
        ),
    )
    nodes = await retriever.aretrieve(QUESTION)
    assert nodes[0].node.ref_doc_id == "timetable"
    assert nodes[0].metadata["year"] == 2024
    assert "Winter" in nodes[0].metadata["headings"]
    assert {node.node_id for node in retriever.retrieve(QUESTION)} == {
        node.node_id for node in nodes
    }


async def test_a_pipeline_writes_nodes_that_search_finds(rag: Rag) -> None:
    pipeline = IngestionPipeline(
        transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), rag.embed_model()],
        vector_store=rag.vector_store(),
    )
    puffins = Document(text="Puffins nest on the northern cliff.", id_="puffins")
    seals = Document(text="Тюлени спят на южном берегу.", id_="seals", metadata={"year": 2024})
    await pipeline.arun(documents=[puffins])
    pipeline.run(documents=[seals])
    (bird, *_) = await rag.search("Where do puffins nest?")
    (seal, *_) = await rag.search("Где спит тюлень?", filters={"year": 2024}, mode="keyword")
    assert (bird.document_id, seal.document_id) == ("puffins", "seals")
    answer = await rag.ask("Where do puffins nest?")
    assert "northern cliff" in answer.text
    assert answer.citations[0].document_id == "puffins"


async def test_an_index_deletes_its_own_documents(rag: Rag) -> None:
    store = rag.vector_store()
    index = VectorStoreIndex.from_vector_store(store, embed_model=rag.embed_model())
    await index.ainsert(Document(text="Puffins nest on the northern cliff.", id_="puffins"))
    assert {node.ref_doc_id for node in await store.aget_nodes()} == {"puffins", *DOCUMENTS}
    await index.adelete_ref_doc("puffins")
    assert {node.ref_doc_id for node in await store.aget_nodes()} == set(DOCUMENTS)


# --- with the catalogue --------------------------------------------------------------------


async def test_deleting_an_ingested_document_leaves_nothing_to_skip_later(rag: Rag) -> None:
    await rag.vector_store().adelete("fares")
    with pytest.raises(DocumentNotFound):
        await rag.document("fares")
    job = await ingest(rag, "fares")
    assert job.outcome == "created"
    assert (await rag.search("What does a bicycle cost?"))[0].document_id == "fares"


async def test_a_document_that_lost_chunks_is_rebuilt_by_the_next_ingest(rag: Rag) -> None:
    store = rag.vector_store()
    (chunk,) = await rag.chunks("fares")
    await store.adelete_nodes([chunk.chunk_id])
    assert await rag.chunks("fares") == []
    await ingest(rag, "fares")
    assert [found.chunk_id for found in await rag.chunks("fares")] == [chunk.chunk_id]


async def test_a_node_in_place_of_a_chunk_goes_when_its_document_is_ingested_again(
    rag: Rag,
) -> None:
    store = rag.vector_store()
    (chunk,) = await rag.chunks("fares")
    (node,) = await store.aget_nodes([chunk.chunk_id])
    node.set_content("Bicycles cost nothing any more.")
    node.embedding = await rag.embed_model().aget_text_embedding(node.get_content())
    await store.async_add([node])
    assert (await rag.search("bicycles", mode="keyword"))[0].text == node.get_content()
    await ingest(rag, "fares")
    (found,) = await rag.search("bicycle", mode="keyword")
    assert (found.chunk_id, found.text) == (chunk.chunk_id, chunk.text)


async def test_nodes_of_an_ingested_document_go_with_it(rag: Rag) -> None:
    store = rag.vector_store()
    (node,) = await store.aget_nodes([(await rag.chunks("fares"))[0].chunk_id])
    summary = node.model_copy(update={"id_": "summary"})
    summary.set_content("In short: everything is cheap.")
    summary.embedding = await rag.embed_model().aget_text_embedding(summary.get_content())
    await store.async_add([summary])
    await rag.delete(["fares"])
    assert {found.ref_doc_id for found in await store.aget_nodes()} == {"timetable", "parom"}
