"""What every `ports.ChunkStore` promises."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
import pytest

from ragcore.errors import CollectionMismatch, CollectionNotFound, InvalidFilter, InvalidInput
from ragcore.model import AllOf, AnyOf, Chunk, Condition, Document, Filter, Place, Vector, Vectors
from ragcore.ports import ChunkStore
from ragcore.steps.filtering import parse

COLLECTION = "contract"
DIMENSION = 4

NORTH: Vector = np.array([1, 0, 0, 0], np.float32)
EAST: Vector = np.array([0, 1, 0, 0], np.float32)


class WritableChunks(Protocol):
    """The store under test, and a way to fill it."""

    @property
    def store(self) -> ChunkStore: ...

    async def replace(self, document: Document, chunks: Sequence[Chunk], vectors: Vectors) -> None:
        """Make `chunks` the document's only ones; the document is made when it is not there."""
        ...


def document(document_id: str = "d", **known: Any) -> Document:
    return Document(
        COLLECTION, document_id, created_at=datetime(2026, 1, 31, 12, tzinfo=UTC), **known
    )


def chunk(ordinal: int, text: str, *, of: str = "d", **known: Any) -> Chunk:
    known = {"language": "en", "embedding_text": text, "tokens": 3, **known}
    return Chunk(f"{of}-{ordinal}", ordinal, text, **known)


def at(*degrees: float) -> Vectors:
    """Unit vectors in one plane: the cosine to NORTH is the cosine of the angle."""
    angles = np.radians(degrees)
    zeros = np.zeros(len(degrees))
    vectors: Vectors = np.stack([np.cos(angles), np.sin(angles), zeros, zeros], axis=1).astype(
        np.float32
    )
    return vectors


class ChunkStoreContract:
    """Subclass, supply a `chunks` fixture with an empty COLLECTION, inherit the tests."""

    # --- the legs --------------------------------------------------------------------------

    async def test_the_vector_leg_ranks_by_cosine(self, chunks: WritableChunks) -> None:
        texts = [chunk(n, f"text {n}") for n in range(4)]
        await chunks.replace(document(), texts, at(90, 10, 60, 170))
        found = await chunks.store.candidates(COLLECTION, vector=NORTH, text=None, vector_limit=3)
        ranked = sorted(found.candidates, key=lambda c: c.vector_rank or 0)
        assert [c.passage.chunk_id for c in ranked] == ["d-1", "d-2", "d-0"]
        assert [c.vector_rank for c in ranked] == [1, 2, 3]
        assert [c.cosine for c in ranked] == [
            pytest.approx(math.cos(math.radians(angle)), abs=1e-6) for angle in (10, 60, 90)
        ]
        assert all(c.keyword_rank is None and c.bm25 == 0 for c in ranked)
        assert found.terms == ()
        assert found.shortfall == 0

    async def test_the_keyword_leg_ranks_rare_words_first(self, chunks: WritableChunks) -> None:
        texts = ["fox fox dog", "fox zebra dog", "dog dog dog", "cat cow hen"]
        await chunks.replace(
            document(), [chunk(n, text) for n, text in enumerate(texts)], at(0, 0, 0, 0)
        )
        found = await chunks.store.candidates(COLLECTION, vector=None, text="zebra fox")
        ranked = sorted(found.candidates, key=lambda c: c.keyword_rank or 0)
        assert [c.passage.chunk_id for c in ranked] == ["d-1", "d-0"]
        assert set(ranked[0].matched) == {"fox", "zebra"}
        assert ranked[0].bm25 > ranked[1].bm25 > 0
        assert all(c.cosine is None and c.vector_rank is None for c in ranked)
        assert {t.lexeme: t.documents for t in found.terms} == {"fox": 2, "zebra": 1}
        assert found.terms[0].idf > found.terms[1].idf

    async def test_bm25_is_the_formula(self, chunks: WritableChunks) -> None:
        texts = ["fox fox dog hen", "dog hen"]
        await chunks.replace(document(), [chunk(n, t) for n, t in enumerate(texts)], at(0, 0))
        found = await chunks.store.candidates(COLLECTION, vector=None, text="fox")
        idf = math.log(1 + (2 - 1 + 0.5) / (1 + 0.5))
        expected = idf * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3))
        assert found.candidates[0].bm25 == pytest.approx(expected)

    async def test_what_either_leg_proposes_is_scored_by_both(self, chunks: WritableChunks) -> None:
        texts = [chunk(0, "quiet words"), chunk(1, "zebra"), chunk(2, "zebra and quiet")]
        await chunks.replace(document(), texts, at(0, 90, 45))
        found = await chunks.store.candidates(
            COLLECTION, vector=NORTH, text="zebra", vector_limit=1, keyword_limit=1
        )
        by_id = {c.passage.chunk_id: c for c in found.candidates}
        assert by_id.keys() == {"d-0", "d-1"}
        assert (by_id["d-0"].vector_rank, by_id["d-0"].keyword_rank) == (1, None)
        assert (by_id["d-1"].vector_rank, by_id["d-1"].keyword_rank) == (None, 1)
        assert by_id["d-0"].bm25 == 0
        assert by_id["d-1"].bm25 > 0
        assert by_id["d-1"].cosine == pytest.approx(0, abs=1e-6)

    async def test_vector_candidates_carry_the_words_they_match(
        self, chunks: WritableChunks
    ) -> None:
        texts = [chunk(0, "zebra fox"), chunk(1, "zebra zebra zebra zebra")]
        await chunks.replace(document(), texts, at(0, 90))
        found = await chunks.store.candidates(
            COLLECTION, vector=NORTH, text="zebra fox cow", vector_limit=1, keyword_limit=2
        )
        first = next(c for c in found.candidates if c.vector_rank == 1)
        assert set(first.matched) == {"zebra", "fox"}
        assert {t.lexeme for t in found.terms if t.documents == 0} == {"cow"}

    async def test_words_of_headings_find_the_chunk(self, chunks: WritableChunks) -> None:
        under = chunk(0, "the text", headings=("Zebras",), embedding_text="Zebras\nthe text")
        await chunks.replace(document(), [under], at(0))
        found = await chunks.store.candidates(COLLECTION, vector=None, text="ZEBRAS")
        assert [c.passage.chunk_id for c in found.candidates] == ["d-0"]
        assert found.candidates[0].passage.text == "the text"

    async def test_russian_spellings_are_one_word(self, chunks: WritableChunks) -> None:
        texts = [chunk(0, "зелёная ёлка", language="ru"), chunk(1, "white snow")]
        await chunks.replace(document(), texts, at(0, 90))
        for question in ("ёлка", "ЕЛКА", "е\u0308лка", "ёл\u00adка", "ё\u0301лка"):
            found = await chunks.store.candidates(COLLECTION, vector=None, text=question)
            assert [c.passage.chunk_id for c in found.candidates] == ["d-0"], question

    @pytest.mark.parametrize(
        "question",
        [
            "",
            " ",
            "a & | ! <-> ( ' : *",
            "'); DROP TABLE x; --",
            "%s %(x)s {collection}",
            "\\",
            "\0",
            "fox\0zebra",
            "\ud800 zebra",
            "\u202e zebra",
            "🦓 " * 500,
            "zebra " * 20_000,
            "ab" * 50_000,
            "<b>zebra</b> http://zebra.example/a?b=c",
        ],
        ids=lambda question: ascii(question)[:20],
    )
    async def test_any_question_is_answered(self, chunks: WritableChunks, question: str) -> None:
        await chunks.replace(document(), [chunk(0, "zebra")], at(0))
        found = await chunks.store.candidates(COLLECTION, vector=NORTH, text=question)
        assert [c.passage.chunk_id for c in found.candidates] == ["d-0"]

    async def test_an_empty_collection_has_no_candidates(self, chunks: WritableChunks) -> None:
        found = await chunks.store.candidates(COLLECTION, vector=NORTH, text="zebra")
        assert found.candidates == ()
        assert (found.total_chunks, found.shortfall, found.languages) == (0, 0, {})

    async def test_languages_and_chunks_are_counted(self, chunks: WritableChunks) -> None:
        texts = [chunk(0, "one"), chunk(1, "раз", language="ru"), chunk(2, "?", language=None)]
        await chunks.replace(document(), texts, at(0, 0, 0))
        await chunks.replace(document("e"), [chunk(0, "two", of="e")], at(0))
        found = await chunks.store.candidates(COLLECTION, vector=NORTH, text=None)
        assert found.total_chunks == 4
        assert found.languages == {"en": 2, "ru": 1}

    # --- writing ---------------------------------------------------------------------------

    async def test_replacing_leaves_nothing_of_the_old_chunks(self, chunks: WritableChunks) -> None:
        await chunks.replace(document(), [chunk(0, "zebra"), chunk(1, "fox")], at(0, 90))
        for _ in range(2):
            await chunks.replace(document(), [chunk(0, "cow")], at(45))
        found = await chunks.store.candidates(COLLECTION, vector=NORTH, text="zebra fox cow")
        assert [c.passage.text for c in found.candidates] == ["cow"]
        assert {t.lexeme: t.documents for t in found.terms} == {"zebra": 0, "fox": 0, "cow": 1}
        assert found.total_chunks == 1
        assert found.languages == {"en": 1}

    async def test_replacing_by_nothing_empties_the_document(self, chunks: WritableChunks) -> None:
        await chunks.replace(document(), [chunk(0, "zebra")], at(0))
        await chunks.replace(document(), [], np.zeros((0, DIMENSION), np.float32))
        found = await chunks.store.candidates(COLLECTION, vector=NORTH, text="zebra")
        assert found.candidates == ()
        assert found.total_chunks == 0

    # --- filters ---------------------------------------------------------------------------

    async def test_a_filter_holds_for_both_legs(self, chunks: WritableChunks) -> None:
        for year in (2023, 2024, 2025):
            name = f"y{year}"
            await chunks.replace(
                document(name, metadata={"year": year}), [chunk(0, "zebra", of=name)], at(year)
            )
        wanted = parse({"year": {"$gte": 2024}})
        for vector, text in ((NORTH, "zebra"), (NORTH, None), (None, "zebra")):
            found = await chunks.store.candidates(
                COLLECTION, vector=vector, text=text, filters=wanted
            )
            assert {c.passage.document_id for c in found.candidates} == {"y2024", "y2025"}
            assert found.shortfall == 0

    async def test_frequencies_are_those_of_the_whole_collection(
        self, chunks: WritableChunks
    ) -> None:
        await chunks.replace(document("a", title="A"), [chunk(0, "zebra", of="a")], at(0))
        await chunks.replace(document("b", title="B"), [chunk(0, "zebra", of="b")], at(0))
        found = await chunks.store.candidates(
            COLLECTION, vector=None, text="zebra", filters=parse({"title": "A"})
        )
        assert [c.passage.document_id for c in found.candidates] == ["a"]
        assert found.terms[0].documents == 2

    async def test_filters_return_as_many_as_match(self, chunks: WritableChunks) -> None:
        """The rows that match lie far from the question: none may be lost on the way to them."""
        generator = np.random.default_rng(7)
        for number in range(60):
            wanted = number % 12 == 0
            base = at(170 if wanted else generator.uniform(0, 60))[0]
            noise = generator.normal(0, 0.05, (5, DIMENSION)).astype(np.float32)
            vectors = base + noise
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            name = f"n{number}"
            await chunks.replace(
                document(name, metadata={"wanted": wanted}),
                [chunk(n, f"zebra {name}", of=name) for n in range(5)],
                vectors,
            )
        found = await chunks.store.candidates(
            COLLECTION,
            vector=NORTH,
            text="zebra",
            filters=parse({"wanted": True}),
            vector_limit=20,
            keyword_limit=20,
        )
        assert sum(c.vector_rank is not None for c in found.candidates) == 20
        assert sum(c.keyword_rank is not None for c in found.candidates) == 20
        assert all(c.passage.metadata["wanted"] for c in found.candidates)
        assert found.shortfall == 0

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            ({}, "abc"),
            ({"title": "A"}, "a"),
            ({"title": {"$ne": "A"}}, "bc"),
            ({"title": {"$exists": False}}, "c"),
            ({"document_id": {"$in": ["a", "c", "zz"]}}, "ac"),
            ({"language": "ru"}, "b"),
            ({"mime_type": {"$nin": ["text/html"]}}, "bc"),
            ({"created_at": {"$gt": "2026-01-31"}}, "abc"),
            ({"created_at": {"$lte": "2026-01-31T12:00:00+00:00"}}, "abc"),
            ({"created_at": {"$lt": "2026-01-31T15:00:00+03:00"}}, ""),
            ({"year": 2024}, "a"),
            ({"year": 2024.0}, "a"),
            ({"year": "2024"}, "b"),
            ({"year": {"$ne": 2024}}, "bc"),
            ({"year": {"$gt": 2000}}, "a"),
            ({"year": {"$gt": "2000"}}, "b"),
            ({"year": {"$exists": True}}, "ab"),
            ({"draft": True}, "a"),
            ({"draft": 1}, "b"),
            ({"draft": None}, "c"),
            ({"draft": {"$nin": [True, None]}}, "b"),
            ({"author": "Ann"}, "ac"),
            ({"author": "Bob"}, "b"),
            ({"$or": [{"title": "A"}, {"title": "B"}]}, "ab"),
            ({"$or": []}, ""),
            ({"$and": []}, "abc"),
            ({"$not": {"year": {"$exists": True}}}, "c"),
            ({"year": {"$not": {"$gt": 2000}}}, "bc"),
            ({"title": "A", "year": 1}, ""),
            ({"year": {"$in": list(range(1990, 2100))}}, "a"),
        ],
    )
    async def test_filters_mean_what_the_contract_says(
        self, chunks: WritableChunks, filters: dict[str, Any], expected: str
    ) -> None:
        await self._fill_three(chunks)
        assert await self._found(chunks, parse(filters)) == expected

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            (Condition("tags", "contains", "x"), "ab"),
            (Condition("tags", "any", ["y", "q"]), "a"),
            (Condition("tags", "all", ["x", "y"]), "a"),
            (Condition("tags", "all", []), "abc"),
            (Condition("tags", "any", []), ""),
            (Condition("tags", "eq", "x"), ""),
            (Condition("author", "text_match", "nn"), "ac"),
            (Condition("author", "text_match", "NN"), ""),
            (Condition("author", "text_match_insensitive", "NN"), "ac"),
            (Condition("title", "text_match_insensitive", "a"), "a"),
            (Condition("tags", "is_empty"), "c"),
            (Condition("year", "is_empty"), "c"),
            (Condition("draft", "is_empty"), "c"),
            (AllOf((Condition("year", "exists", True), Condition("tags", "contains", "y"))), "a"),
            (AnyOf((Condition("year", "eq", 2024), Condition("draft", "eq", None))), "ac"),
        ],
    )
    async def test_operators_of_llamaindex_mean_what_their_names_say(
        self, chunks: WritableChunks, filters: Filter, expected: str
    ) -> None:
        await self._fill_three(chunks)
        assert await self._found(chunks, filters) == expected

    async def test_a_filter_that_can_not_be_evaluated_is_refused(
        self, chunks: WritableChunks
    ) -> None:
        await chunks.replace(document(), [chunk(0, "zebra")], at(0))
        with pytest.raises(InvalidFilter, match="'created_at'"):
            await chunks.store.candidates(
                COLLECTION,
                vector=NORTH,
                text=None,
                filters=Condition("created_at", "gt", "yesterday"),
            )

    async def _fill_three(self, chunks: WritableChunks) -> None:
        described = [
            document(
                "a",
                title="A",
                language="en",
                mime_type="text/html",
                metadata={"year": 2024, "draft": True, "tags": ["x", "y"], "title": "not this"},
                extracted={"author": "Ann"},
            ),
            document(
                "b",
                title="B",
                language="ru",
                metadata={"year": "2024", "draft": 1, "tags": ["x"], "author": "Bob"},
                extracted={"author": "Ann"},
            ),
            document("c", metadata={"draft": None, "tags": []}, extracted={"author": "Ann"}),
        ]
        for entry in described:
            id_ = entry.document_id
            await chunks.replace(entry, [chunk(0, "zebra", of=id_)], at(0))

    async def _found(self, chunks: WritableChunks, filters: Filter) -> str:
        by_vector = await chunks.store.candidates(
            COLLECTION, vector=NORTH, text=None, filters=filters
        )
        by_words = await chunks.store.candidates(
            COLLECTION, vector=None, text="zebra", filters=filters
        )
        found = sorted(c.passage.document_id for c in by_vector.candidates)
        assert sorted(c.passage.document_id for c in by_words.candidates) == found
        return "".join(found)

    # --- reading ---------------------------------------------------------------------------

    async def test_a_passage_carries_all_that_is_known(self, chunks: WritableChunks) -> None:
        written = chunk(
            0,
            "the text",
            headings=("Part", "Section"),
            places=(Place(3, (1.0, 2.5, 3.0, 4.0)), Place(4)),
            elements=("#/texts/1", "#/texts/2"),
            embedding_text="Part\nSection\nthe text",
            start=5,
            end=13,
        )
        described = document(title="Title", uri="s3://b/k", metadata={"year": 2024})
        await chunks.replace(described, [written], at(0))
        (found,) = await chunks.store.passages(COLLECTION, ["d-0"])
        assert (found.chunk_id, found.document_id, found.collection) == ("d-0", "d", COLLECTION)
        assert (found.text, found.ordinal, found.language) == ("the text", 0, "en")
        assert (found.title, found.uri, found.metadata) == ("Title", "s3://b/k", {"year": 2024})
        assert found.headings == ("Part", "Section")
        assert found.elements == ("#/texts/1", "#/texts/2")
        assert (found.places, found.page, found.box) == (written.places, 3, (1.0, 2.5, 3.0, 4.0))
        assert found.score == 0
        (candidate,) = (
            await chunks.store.candidates(COLLECTION, vector=NORTH, text=None)
        ).candidates
        assert candidate.passage == found

    async def test_passages_come_in_the_order_asked(self, chunks: WritableChunks) -> None:
        await chunks.replace(document(), [chunk(n, str(n)) for n in range(4)], at(0, 1, 2, 3))
        found = await chunks.store.passages(COLLECTION, ["d-2", "nobody", "d-0", "d-3"])
        assert [p.chunk_id for p in found] == ["d-2", "d-0", "d-3"]
        assert await chunks.store.passages(COLLECTION, []) == []

    async def test_a_document_is_read_in_order(self, chunks: WritableChunks) -> None:
        await chunks.replace(document(), [chunk(n, str(n)) for n in range(5)], at(0, 1, 2, 3, 4))
        await chunks.replace(document("e"), [chunk(0, "e", of="e")], at(0))
        read = chunks.store.document_chunks
        assert [p.ordinal for p in await read(COLLECTION, "d")] == [0, 1, 2, 3, 4]
        assert [p.ordinal for p in await read(COLLECTION, "d", first=1, limit=2)] == [1, 2]
        assert await read(COLLECTION, "nobody") == []

    async def test_neighbours_stay_inside_the_document(self, chunks: WritableChunks) -> None:
        await chunks.replace(document(), [chunk(n, str(n)) for n in range(5)], at(0, 1, 2, 3, 4))
        await chunks.replace(document("e"), [chunk(n, "e", of="e") for n in range(2)], at(0, 0))
        found = await chunks.store.neighbours(COLLECTION, ["d-0", "d-3", "e-1", "nobody"])
        assert {id_: [p.chunk_id for p in around] for id_, around in found.items()} == {
            "d-0": ["d-0", "d-1"],
            "d-3": ["d-2", "d-3", "d-4"],
            "e-1": ["e-0", "e-1"],
        }
        wider = await chunks.store.neighbours(COLLECTION, ["d-2"], radius=2)
        assert [p.ordinal for p in wider["d-2"]] == [0, 1, 2, 3, 4]

    # --- refusals --------------------------------------------------------------------------

    async def test_an_unknown_collection_is_named(self, chunks: WritableChunks) -> None:
        with pytest.raises(CollectionNotFound, match="'nobody'"):
            await chunks.store.candidates("nobody", vector=NORTH, text="zebra")
        with pytest.raises(CollectionNotFound, match="'nobody'"):
            await chunks.store.passages("nobody", ["d-0"])
        with pytest.raises(InvalidInput, match="1 to 48"):
            await chunks.store.candidates('x"; --', vector=NORTH, text="zebra")

    async def test_a_vector_of_another_dimension_is_refused(self, chunks: WritableChunks) -> None:
        await chunks.replace(document(), [chunk(0, "zebra")], at(0))
        with pytest.raises(CollectionMismatch, match="5"):
            await chunks.store.candidates(COLLECTION, vector=np.ones(5, np.float32), text="zebra")
