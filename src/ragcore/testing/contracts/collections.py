"""What every `ports.Collections` promises."""

import asyncio
from dataclasses import replace

import pytest

from ragcore.errors import CollectionMismatch, CollectionNotFound, InvalidInput
from ragcore.model import EmbeddingSpec
from ragcore.ports import Collections

SPEC = EmbeddingSpec(
    model="test:two",
    dimension=2,
    max_tokens=100,
    query_prefix="query: ",
    document_prefix="passage: ",
    digest="a1",
    languages=frozenset({"en", "ru"}),
)
CHUNKER = "hybrid-1:384"


class CollectionsContract:
    """Subclass, supply a `collections` fixture, inherit the tests."""

    async def test_a_collection_remembers_what_it_was_made_with(
        self, collections: Collections
    ) -> None:
        made = await collections.open(
            "my-notes_1", embedding=SPEC, chunker=CHUNKER, language="ru", strict=True
        )
        assert (made.embedding, made.chunker) == (SPEC, CHUNKER)
        assert (made.language, made.strict, made.generation) == ("ru", True, 1)
        assert made == await collections.get("my-notes_1")

    async def test_opening_again_changes_nothing(self, collections: Collections) -> None:
        made = await collections.open("notes", embedding=SPEC, chunker=CHUNKER, language="ru")
        assert made == await collections.open("notes", embedding=SPEC, chunker=CHUNKER)

    async def test_many_may_open_the_same_one_at_once(self, collections: Collections) -> None:
        opened = await asyncio.gather(
            *(collections.open("notes", embedding=SPEC, chunker=CHUNKER) for _ in range(8))
        )
        assert len(set(opened)) == 1
        assert len(await collections.list()) == 1

    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"model": "test:other"}, "'test:two'"),
            ({"dimension": 3}, "dimension 2"),
            ({"query_prefix": ""}, "'query: '"),
            ({"document_prefix": "x"}, "'passage: '"),
            ({"digest": "b2"}, "'a1'"),
        ],
    )
    async def test_another_model_is_refused_with_the_way_out(
        self, collections: Collections, changed: dict[str, object], named: str
    ) -> None:
        await collections.open("notes", embedding=SPEC, chunker=CHUNKER)
        with pytest.raises(CollectionMismatch, match=rf"{named} is stored.*another collection"):
            await collections.open(
                "notes",
                embedding=replace(SPEC, **changed),  # type: ignore[arg-type]  # one field a time
                chunker=CHUNKER,
            )

    async def test_another_chunker_is_refused(self, collections: Collections) -> None:
        await collections.open("notes", embedding=SPEC, chunker=CHUNKER)
        with pytest.raises(CollectionMismatch, match="'hybrid-1:384' is stored"):
            await collections.open("notes", embedding=SPEC, chunker="hybrid-2:384")

    async def test_an_unknown_digest_and_a_new_limit_are_no_mismatch(
        self, collections: Collections
    ) -> None:
        await collections.open("notes", embedding=SPEC, chunker=CHUNKER)
        unknown = replace(SPEC, digest=None, max_tokens=50, languages=None)
        found = await collections.open("notes", embedding=unknown, chunker=CHUNKER)
        assert found.embedding == SPEC

    async def test_what_does_not_exist_is_not_made_unasked(self, collections: Collections) -> None:
        with pytest.raises(CollectionNotFound, match="'notes'"):
            await collections.open("notes", embedding=SPEC, chunker=CHUNKER, create=False)
        with pytest.raises(CollectionNotFound, match="'notes'"):
            await collections.get("notes")
        assert await collections.list() == []

    @pytest.mark.parametrize("name", ["", "Notes", "a b", 'a"; --', "заметки", "a" * 49, "a\n"])
    async def test_a_bad_name_is_refused(self, collections: Collections, name: str) -> None:
        with pytest.raises(InvalidInput, match="1 to 48"):
            await collections.open(name, embedding=SPEC, chunker=CHUNKER)

    async def test_names_close_to_one_another_do_not_collide(
        self, collections: Collections
    ) -> None:
        names = ["a", "a_pkey", "a_chunk_no", "a_chunk_no_seq", "a_metadata", "-", "a" * 48]
        for name in names:
            await collections.open(name, embedding=SPEC, chunker=CHUNKER)
        listed = await collections.list()
        assert {collection.name for collection, _, _ in listed} == set(names)
        assert {(documents, chunks) for _, documents, chunks in listed} == {(0, 0)}

    async def test_a_deleted_collection_is_gone_and_may_be_made_anew(
        self, collections: Collections
    ) -> None:
        await collections.open("notes", embedding=SPEC, chunker=CHUNKER)
        receipt, versions = await collections.delete("notes")
        assert (receipt.collection, receipt.chunks, receipt.versions) == ("notes", 0, 0)
        assert list(versions) == []
        with pytest.raises(CollectionNotFound):
            await collections.delete("notes")
        again = replace(SPEC, dimension=3)
        made = await collections.open("notes", embedding=again, chunker=CHUNKER)
        assert made.embedding.dimension == 3
