"""Search over a real PostgreSQL with the real model, in two languages at once."""

from collections.abc import AsyncIterator

import pytest

from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.postgres.chunks import PostgresChunks, copy_chunks
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import Pool, open_pool
from ragcore.flows.search import Search
from ragcore.model import Chunk, Condition

RUSSIAN = {
    "парк": "Городской парк открыт с шести утра до полуночи, вход свободный.",
    "рынок": "На рынке продают рыбу, овощи и мёд, по субботам бывает ярмарка.",
    "библиотека": "Библиотека выдаёт книги на дом сроком на три недели.",
    "ёлка": "Ёлку на площади зажигают в последнюю неделю декабря.",
    **{f"склад {n}": f"Склад номер {n} принимает грузы по накладной." for n in range(20)},
}
ENGLISH = {
    "lighthouse": "The lighthouse on the northern cape was built in 1874 and is painted white.",
    "clinic": "The clinic is open on weekdays; call before you come.",
}


@pytest.fixture
async def search(database_url: str) -> AsyncIterator[Search]:
    model = BundledEmbedder()
    async with open_pool(database_url, size=2) as pool:
        collections = PostgresCollections(pool)
        await collections.open("default", embedding=model.spec, chunker="whole")
        await add(pool, model, RUSSIAN, language="ru")
        await add(pool, model, ENGLISH, language="en")
        yield Search(chunks=PostgresChunks(pool), embedder=model, candidates=10)
    await model.aclose()


async def add(pool: Pool, model: BundledEmbedder, texts: dict[str, str], *, language: str) -> None:
    vectors = await model.embed_documents(list(texts.values()))
    async with pool.connection() as connection:
        for number, (name, text) in enumerate(texts.items()):
            cursor = await connection.execute(
                "INSERT INTO ragcore.documents (collection, document_id, language)"
                " VALUES ('default', %s, %s) RETURNING document_no",
                (name, language),
            )
            row = await cursor.fetchone()
            assert row is not None
            await copy_chunks(
                connection,
                "default",
                document_no=row[0],
                document_id=name,
                chunks=[Chunk(name, 0, text, text, tokens=20, language=language)],
                vectors=vectors[number : number + 1],
            )


async def test_a_russian_question_finds_the_english_passage_among_russian_ones(
    search: Search,
) -> None:
    found = await search("В каком году построили маяк на северном мысе?", top_k=3, explain=True)
    assert found[0].chunk_id == "lighthouse"
    assert found.weights["vector"] > found.weights["keyword"]


async def test_a_question_in_the_language_of_the_passage_is_heard_by_both_legs(
    search: Search,
) -> None:
    found = await search("Когда зажигают ёлку на площади?", top_k=3, explain=True)
    best = found[0]
    assert best.chunk_id == "ёлка"
    assert best.explanation is not None
    assert (best.explanation.vector_rank, best.explanation.keyword_rank) == (1, 1)
    assert "елк" in best.explanation.matched
    assert found.weights["keyword"] > 0.3


async def test_ё_and_е_are_one_letter(search: Search) -> None:
    found = await search("елка", mode="keyword")
    assert found[0].chunk_id == "ёлка"


async def test_a_filter_holds_for_every_language(search: Search) -> None:
    only = Condition("document_id", "in", ["clinic", "парк"])
    found = await search("В каком году построили маяк на северном мысе?", filters=only)
    assert {passage.chunk_id for passage in found} == {"clinic", "парк"}


@pytest.mark.parametrize("question", ["a & | ! <-> ( ' : *", '%s {x} \\ "', "?", "слово " * 300])
async def test_any_question_can_be_asked(search: Search, question: str) -> None:
    found = await search(question, top_k=4)
    assert len(found) == 4
