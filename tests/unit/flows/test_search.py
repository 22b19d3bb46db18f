from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcore.errors import CollectionMismatch, CollectionNotFound, InvalidInput, ModelUnavailable
from ragcore.flows.search import Search, joined_neighbours
from ragcore.model import Chunk, Condition, Document, Passage, Place, SearchMode, Vector
from ragcore.steps.citing import cite
from ragcore.testing.memory.chunks import MemoryChunks, MemoryCollections
from ragcore.testing.memory.embedder import MemoryEmbedder

GUIDE = {
    "lighthouse": "The lighthouse on the northern cape was built in 1874.",
    "ferry": "The ferry leaves the harbour every morning at seven.",
    "museum": "The museum shows nets, boats and old maps of the coast.",
}
ПРАВИЛА = {
    "паром": "Паром отходит из гавани каждое утро в семь часов.",
    "музей": "Музей закрыт по понедельникам и в мае.",
}


@pytest.fixture
def embedder() -> MemoryEmbedder:
    return MemoryEmbedder()


@pytest.fixture
async def chunks(embedder: MemoryEmbedder) -> MemoryChunks:
    store = MemoryChunks("guide", "rules", "empty")
    await add(store, embedder, "guide", GUIDE, language="en")
    await add(store, embedder, "rules", ПРАВИЛА, language="ru")
    embedder.calls.clear()
    return store


@pytest.fixture
def search(chunks: MemoryChunks, embedder: MemoryEmbedder) -> Search:
    return Search(chunks=chunks, embedder=embedder)


async def add(
    store: MemoryChunks,
    embedder: MemoryEmbedder,
    collection: str,
    texts: dict[str, str],
    *,
    language: str,
) -> None:
    for name, text in texts.items():
        chunk = Chunk(name, 0, text, text, tokens=10, language=language)
        vectors = await embedder.embed_documents([text])
        document = Document(collection, name, language=language, metadata={"kind": name})
        store.replace(document, [chunk], vectors)


def ids(passages: object) -> list[str]:
    return [passage.chunk_id for passage in passages]  # type: ignore[attr-defined]


async def test_the_best_passage_comes_first_with_the_highest_score(search: Search) -> None:
    found = await search("When was the lighthouse built?", collection="guide", top_k=2)
    assert ids(found)[0] == "lighthouse"
    assert len(found) == 2
    assert 0 <= found[1].score < found[0].score <= 1


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
async def test_every_mode_finds_it(search: Search, mode: SearchMode) -> None:
    found = await search("ferry in the morning", collection="guide", mode=mode)
    assert found[0].chunk_id == "ferry"
    assert set(found.timings_ms) == {"embed", "retrieve", "fuse"}
    assert set(found.weights) == {"vector", "keyword"}


async def test_vectors_of_another_model_are_refused_and_words_are_not(
    chunks: MemoryChunks, embedder: MemoryEmbedder
) -> None:
    collections = MemoryCollections(chunks)
    other = replace(embedder.spec, model="memory:other")
    await collections.open("guide", embedding=other, chunker="whole")
    await collections.open("rules", embedding=embedder.spec, chunker="whole")
    search = Search(chunks=chunks, embedder=embedder)
    with pytest.raises(CollectionMismatch, match="'memory:other' is stored"):
        await search("ferry", collection=["rules", "guide"])
    assert ids(await search("ferry", collection="guide", mode="keyword")) == ["ferry"]
    assert len(await search("паром", collection="rules")) > 0


async def test_keyword_search_needs_no_embedding_model(
    chunks: MemoryChunks,
) -> None:
    away = MemoryEmbedder(failures=99)
    found = await Search(chunks=chunks, embedder=away)("ferry", collection="guide", mode="keyword")
    assert ids(found) == ["ferry"]
    with pytest.raises(ModelUnavailable):
        await Search(chunks=chunks, embedder=away)("ferry", collection="guide", mode="vector")


async def test_words_are_searched_for_while_the_embedding_model_is_away(
    chunks: MemoryChunks,
) -> None:
    search = Search(chunks=chunks, embedder=MemoryEmbedder(failures=99))
    found = await search("ferry", collection=["guide", "rules"], explain=True)
    assert ids(found) == ["ferry"]
    assert "by its words alone" in found.warnings[0]
    assert found[0].explanation is not None and found[0].explanation.cosine is None


async def test_several_collections_are_searched_as_one(search: Search) -> None:
    both = await search("Когда отходит паром?", collection=["guide", "rules", "guide"], top_k=9)
    assert both[0].chunk_id == "паром"
    assert sorted(ids(both)) == sorted([*GUIDE, *ПРАВИЛА])
    assert [p.score for p in both] == sorted((p.score for p in both), reverse=True)


async def test_a_filter_holds_in_every_leg(search: Search) -> None:
    only = Condition("kind", "eq", "museum")
    found = await search("lighthouse ferry museum", collection="guide", filters=only)
    assert ids(found) == ["museum"]


async def test_an_empty_collection_has_no_passages(search: Search) -> None:
    found = await search("anything", collection="empty")
    assert len(found) == 0
    assert found.warnings == ()


async def test_a_missing_collection_is_an_error(search: Search) -> None:
    with pytest.raises(CollectionNotFound):
        await search("anything", collection="nowhere")


@pytest.mark.parametrize("question", ["", " \n", "\0"])
async def test_a_blank_question_is_refused(search: Search, question: str) -> None:
    with pytest.raises(InvalidInput, match="blank"):
        await search(question, collection="guide")


async def test_naming_no_collection_is_refused(search: Search) -> None:
    with pytest.raises(InvalidInput, match="collection"):
        await search("anything", collection=[])


async def test_passages_are_explained_on_request_only(search: Search) -> None:
    plain = await search("ferry", collection="guide")
    assert all(passage.explanation is None for passage in plain)
    explained = await search("ferry", collection="guide", explain=True)
    explanation = explained[0].explanation
    assert explanation is not None
    assert (explanation.fused_rank, explanation.keyword_rank) == (1, 1)
    assert explanation.matched == ("ferry",)


async def test_a_model_that_lacks_the_language_of_the_question_is_named(
    chunks: MemoryChunks,
) -> None:
    english = MemoryEmbedder(languages=frozenset({"en"}))
    search = Search(chunks=chunks, embedder=english)
    asked_in_russian = await search("Когда отходит паром в гавань?", collection="rules")
    asked_in_english = await search("When does the ferry leave?", collection="guide")
    assert "'memory:words'" in asked_in_russian.warnings[0]
    assert asked_in_english.warnings == ()


class FixedEmbedder(MemoryEmbedder):
    """Answers every question with the same vector, as a measured model."""

    def __init__(self) -> None:
        super().__init__(dimension=2)
        self.spec = replace(self.spec, model="bundled:multilingual-e5-small")

    async def embed_query(self, text: str) -> Vector:
        return direction(1.0)


def direction(cosine: float) -> Vector:
    return np.array([cosine, np.sqrt(1 - cosine**2)], np.float32)


async def test_a_hit_in_another_language_is_not_crowded_out() -> None:
    store = MemoryChunks("mixed")
    for number in range(60):
        cosine = 0.81 - number / 10_000
        add_at(store, f"шум {number}", "Посторонний текст.", cosine, language="ru")
    add_at(store, "answer", "It leaves at seven.", 0.80, language="en")
    search = Search(chunks=store, embedder=FixedEmbedder(), candidates=10)
    found = await search("Во сколько отходит?", collection="mixed", top_k=3)
    assert found[0].chunk_id == "answer"
    by_vector = await search("Во сколько отходит?", collection="mixed", top_k=3, mode="vector")
    assert "answer" not in ids(by_vector)


def add_at(store: MemoryChunks, name: str, text: str, cosine: float, *, language: str) -> None:
    chunk = Chunk(name, 0, text, text, tokens=3, language=language)
    store.replace(
        Document("mixed", name, language=language), [chunk], direction(cosine).reshape(1, 2)
    )


# --- neighbours ----------------------------------------------------------------------------


def passage(document: str, ordinal: int, *, heading: str = "A", score: float = 0.5) -> Passage:
    return Passage(
        chunk_id=f"{document}{ordinal}",
        document_id=document,
        collection="default",
        ordinal=ordinal,
        text=f"text {ordinal}",
        score=score,
        headings=(heading,),
        places=(Place(ordinal),),
    )


def test_neighbours_under_one_heading_are_joined_in_reading_order() -> None:
    found = [passage("d", 3, score=0.9), passage("x", 7, score=0.8), passage("d", 2, score=0.7)]
    joined, other = joined_neighbours(found)
    assert joined.text == "text 2\n\ntext 3"
    assert (joined.chunk_id, joined.score) == ("d2", 0.9)
    assert joined.places == (Place(2), Place(3))
    assert other == found[1]


def test_a_heading_or_a_gap_keeps_passages_apart() -> None:
    found = [passage("d", 1), passage("d", 2, heading="B"), passage("d", 4, heading="B")]
    assert len(joined_neighbours(found)) == 3


@settings(deadline=None)
@given(
    st.lists(
        st.builds(passage, st.sampled_from("de"), st.integers(0, 9)),
        unique_by=lambda one: one.chunk_id,
    )
)
def test_joining_keeps_every_text_once(found: list[Passage]) -> None:
    texts = [text for joined in joined_neighbours(found) for text in joined.text.split("\n\n")]
    assert sorted(texts) == sorted(one.text for one in found)


async def test_search_joins_neighbours_when_told_to(embedder: MemoryEmbedder) -> None:
    store = MemoryChunks("default")
    texts = ["The ferry leaves at seven.", "The ferry returns at nine."]
    chunks = [Chunk(f"c{n}", n, text, text, tokens=5) for n, text in enumerate(texts)]
    store.replace(Document("default", "d"), chunks, await embedder.embed_documents(texts))
    apart = await Search(chunks=store, embedder=embedder)("ferry")
    joined = await Search(chunks=store, embedder=embedder, merge_neighbours=True)("ferry")
    assert (len(apart), len(joined)) == (2, 1)
    assert joined[0].text == "\n\n".join(texts)


def test_parts_tell_which_chunk_is_where() -> None:
    (joined,) = joined_neighbours([passage("d", 2), passage("d", 3)])
    for part, ordinal in zip(joined.parts, (2, 3), strict=True):
        assert part.chunk_id == f"d{ordinal}"
        assert joined.text[part.start : part.end] == f"text {ordinal}"
        assert part.places == (Place(ordinal),)
    (again,) = joined_neighbours([joined, passage("d", 1)])
    assert [part.chunk_id for part in again.parts] == ["d1", "d2", "d3"]
    assert [again.text[part.start : part.end] for part in again.parts] == again.text.split("\n\n")


def test_a_citation_of_a_joined_passage_points_into_one_chunk() -> None:
    (joined,) = joined_neighbours([passage("d", 2), passage("d", 3)])
    start = joined.text.index("text 3")
    citation = cite(joined, marker=1, start=start, end=start + 6)
    assert (citation.chunk_id, citation.start, citation.end) == ("d3", 0, 6)
    assert (citation.quote, citation.page) == ("text 3", 3)


async def test_neighbours_are_joined_among_what_the_filter_lets_through(
    chunks: MemoryChunks, embedder: MemoryEmbedder
) -> None:
    texts = ["The ferry leaves at seven.", "The ferry takes an hour.", "The ferry is red."]
    parts = [Chunk(f"f{n}", n, text, text, tokens=9, language="en") for n, text in enumerate(texts)]
    vectors = await embedder.embed_documents(texts)
    chunks.replace(Document("guide", "f", language="en", metadata={"kind": "f"}), parts, vectors)
    search = Search(chunks=chunks, embedder=embedder, merge_neighbours=True)
    only = Condition(field="kind", operator="eq", value="f")
    (found,) = await search("the ferry", collection="guide", filters=only)
    assert found.text == "\n\n".join(texts)
    others = Condition(field="kind", operator="ne", value="f")
    rest = await search("the ferry", collection="guide", filters=others)
    assert "f" not in {one.document_id for one in rest}


# --- other wordings and a reranker -----------------------------------------------------------


@dataclass
class Wordings:
    """A rewriter that has them ready, or fails."""

    texts: Sequence[str] = ()
    error: Exception | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    async def rewrite(self, question: str, *, collection: str | None = None) -> Sequence[str]:
        self.asked.append((question, collection))
        if self.error is not None:
            raise self.error
        return self.texts


@dataclass
class Reversing:
    """A reranker that finds the last one best, or fails."""

    is_language_model: bool = True
    error: Exception | None = None
    read: list[int] = field(default_factory=list)

    async def rerank(self, question: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        self.read.append(len(passages))
        if self.error is not None:
            raise self.error
        count = len(passages)
        return [
            one.scored(1 - rank / count, one.explanation)
            for rank, one in enumerate(reversed(passages))
        ]


@pytest.mark.parametrize("mode", ["hybrid", "vector", "keyword"])
async def test_what_other_words_find_is_found_too_and_once(
    search: Search, mode: SearchMode
) -> None:
    asked = Wordings(["lighthouse built in 1874", "LIGHTHOUSE", " ", "the ferry\0 in the morning"])
    both = replace(search, rewriter=asked)
    found = await both("Lighthouse", collection="guide", mode=mode, explain=True)
    assert asked.asked == [("Lighthouse", "guide")]
    assert {"lighthouse", "ferry"} <= set(ids(found))
    assert len(ids(found)) == len(set(ids(found)))
    assert set(found.timings_ms) == {"rewrite", "embed", "retrieve", "fuse"}
    alone = await search("Lighthouse", collection="guide", mode=mode)
    assert found[0].score >= alone[0].score


async def test_filters_and_collections_hold_for_every_wording(search: Search) -> None:
    asked = Wordings(["museum with boats", "паром"])
    only = Condition(field="kind", operator="eq", value="ferry")
    found = await replace(search, rewriter=asked)("ferry", collection="guide", filters=only)
    assert ids(found) == ["ferry"]
    both = await replace(search, rewriter=asked)("ferry", collection=["guide", "empty"])
    assert {one.collection for one in both} == {"guide"}
    assert asked.asked[-1] == ("ferry", None)


@pytest.mark.parametrize("error", [ModelUnavailable("away"), InvalidInput("too long")])
async def test_a_rewriter_that_fails_costs_its_wordings_only(
    search: Search, error: Exception
) -> None:
    found = await replace(search, rewriter=Wordings(error=error))("ferry", collection="guide")
    assert found[0].chunk_id == "ferry"
    assert found.warnings == (f"the question was searched for in its own words only: {error}",)


async def test_a_reranker_reads_more_than_is_asked_for_and_explains_itself(search: Search) -> None:
    reranker = Reversing()
    plain = await search("ferry", collection="guide", top_k=3)
    found = await replace(search, reranker=reranker)(
        "ferry", collection="guide", top_k=1, explain=True
    )
    assert reranker.read == [3]
    assert ids(found) == [ids(plain)[-1]]
    told = found[0].explanation
    assert told is not None
    assert (told.fused_rank, told.reranked_rank) == (3, 1)
    assert told.reranked_score == found[0].score == 1.0
    assert set(found.timings_ms) == {"embed", "retrieve", "fuse", "rerank"}


async def test_a_reranker_that_fails_leaves_the_order_of_the_search(search: Search) -> None:
    plain = await search("ferry", collection="guide", top_k=2)
    broken = Reversing(error=ModelUnavailable("away"))
    found = await replace(search, reranker=broken)("ferry", collection="guide", top_k=2)
    assert found.passages == plain.passages
    assert found.warnings == ("the passages were not reranked: away",)


async def test_no_language_model_is_asked_where_that_is_not_wanted(search: Search) -> None:
    wordings, model, encoder = Wordings(["boats"]), Reversing(), Reversing(is_language_model=False)
    for reranker in (model, encoder):
        asking = replace(search, rewriter=wordings, reranker=reranker)
        await asking("ferry", collection="guide", language_models=False)
    assert (wordings.asked, model.read, encoder.read) == ([], [], [3])
