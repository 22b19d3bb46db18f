"""Passages, nodes and rows carry the same things, in each direction."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.utils import (
    legacy_metadata_dict_to_node,
    node_to_metadata_dict,
)

from ragcore.adapters.postgres.nodes import NodeRow
from ragcore.errors import InvalidInput
from ragcore.llamaindex.nodes import (
    node_from_chunk,
    node_from_passage,
    node_from_row,
    passage_from_node,
    row_from_node,
    scored_node,
)
from ragcore.model import Chunk, Explanation, Passage, Place

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
RESERVED = [
    *("page", "title", "document_id", "collection", "ordinal", "bbox", "document_metadata"),
    *("text", "doc_id", "ref_doc_id", "relationships", "node_info"),
]
names = st.sampled_from([*RESERVED, "year"]) | words
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.floats(-1e9, 1e9), words
)
json_objects = st.dictionaries(names, st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=5)
numbers = st.floats(0, 2000).map(lambda number: round(number, 2))
places = st.builds(
    Place, st.integers(1, 999), st.none() | st.tuples(numbers, numbers, numbers, numbers)
)
passages = st.builds(
    Passage,
    chunk_id=words,
    document_id=words,
    collection=words,
    ordinal=st.integers(0, 10_000),
    text=words,
    score=st.floats(0, 1),
    title=st.none() | words,
    uri=st.none() | words,
    headings=st.lists(words, max_size=3).map(tuple),
    places=st.lists(places, max_size=3).map(tuple),
    elements=st.lists(words, max_size=3).map(tuple),
    language=st.sampled_from([None, "ru", "en"]),
    metadata=json_objects,
    explanation=st.none()
    | st.builds(Explanation, vector_rank=st.integers(1, 9), matched=st.just(("ferry",))),
)


@given(passages)
def test_a_passage_survives_being_a_node(passage: Passage) -> None:
    assert passage_from_node(scored_node(passage)) == passage


@given(passages)
def test_only_title_headings_and_page_are_shown_to_models(passage: Passage) -> None:
    node = node_from_passage(passage)
    assert node.get_metadata_str(MetadataMode.EMBED) == ""
    shown = {line.split(":")[0] for line in node.get_metadata_str(MetadataMode.LLM).split("\n")}
    assert node.get_content(MetadataMode.NONE) == passage.text
    if "\n" not in f"{passage.title}{passage.headings}":
        assert shown <= {"title", "headings", "page", ""}


def test_a_passages_node_names_its_document_as_source_and_says_where_it_stands() -> None:
    passage = Passage(
        chunk_id="c1",
        document_id="report",
        collection="default",
        ordinal=3,
        text="Growth was 4 %.",
        headings=("Results",),
        places=(Place(7, (1.0, 2.0, 3.0, 4.0)), Place(8, None)),
        metadata={"year": 2024},
    )
    node = node_from_passage(passage)
    assert node.ref_doc_id == "report"
    assert node.metadata["year"] == 2024
    assert (node.metadata["page"], node.metadata["bbox"]) == (7, [1.0, 2.0, 3.0, 4.0])
    assert node.metadata["headings"] == ["Results"]


def test_a_fields_own_value_wins_over_metadata_of_the_same_name() -> None:
    passage = Passage("c", "d", "default", 0, "x", places=(Place(2),), metadata={"page": "cover"})
    node = node_from_passage(passage)
    assert node.metadata["page"] == 2
    assert passage_from_node(NodeWithScore(node=node)).metadata == {"page": "cover"}


def test_a_foreign_node_becomes_a_passage_of_its_source() -> None:
    node = TextNode(
        id_="n",
        text="text",
        metadata={"page_label": "12", "file_name": "a.pdf"},
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="a")},
    )
    passage = passage_from_node(NodeWithScore(node=node, score=7.5))
    assert (passage.document_id, passage.page, passage.score) == ("a", 12, 1.0)
    assert passage.metadata == {"page_label": "12", "file_name": "a.pdf"}


def test_a_chunks_node_keeps_its_span() -> None:
    chunk = Chunk("c", 0, "text", "Head\ntext", 4, headings=("Head",), start=10, end=14)
    node = node_from_chunk(chunk, document_id="d", collection="default", metadata={"year": 1})
    assert (node.start_char_idx, node.end_char_idx, node.ref_doc_id) == (10, 14, "d")
    assert node.metadata["headings"] == ["Head"]
    assert node.metadata["year"] == 1


# --- rows ----------------------------------------------------------------------------------


def stored(node: BaseNode) -> NodeRow:
    """Return the node's row as it comes back from PostgreSQL."""
    row = row_from_node(node)
    return NodeRow(row.node_id, row.document_id, row.text, json.loads(json.dumps(row.metadata)))


def same(node: BaseNode) -> dict[str, Any]:
    return node.model_dump(mode="json", exclude={"embedding"})


@given(text=words, metadata=json_objects, source=st.none() | words, copied=st.booleans())
def test_a_node_survives_being_a_row(
    text: str, metadata: dict[str, Any], source: str | None, copied: bool
) -> None:
    node = TextNode(text=text, metadata=metadata, embedding=[1.0], start_char_idx=3)
    node.excluded_llm_metadata_keys = ["year"]
    if source is not None:
        related = RelatedNodeInfo(node_id=source, metadata=metadata if copied else {"other": 1})
        node.relationships[NodeRelationship.SOURCE] = related
        node.relationships[NodeRelationship.CHILD] = [RelatedNodeInfo(node_id="k")]
    restored = node_from_row(stored(node))
    assert type(restored) is TextNode
    assert same(restored) == same(node)


@pytest.mark.parametrize(
    "node",
    [
        Node(text_resource=MediaResource(text="hello"), embedding=[1.0], metadata={"a": 1}),
        IndexNode(text="hello", index_id="table", embedding=[1.0]),
        ImageNode(text="hello", image_url="https://example.org/a.png", embedding=[1.0]),
    ],
)
def test_each_class_of_node_comes_back_as_itself(node: BaseNode) -> None:
    restored = node_from_row(stored(node))
    assert type(restored) is type(node)
    assert same(restored) == same(node)


def test_a_document_comes_back_with_its_text() -> None:
    document = Document(text="hello", id_="d", embedding=[1.0], metadata={"a": 1})
    restored = node_from_row(stored(document))
    assert (restored.node_id, restored.get_content()) == ("d", "hello")
    assert restored.metadata == {"a": 1}


def test_text_and_metadata_are_stored_once() -> None:
    metadata = {"author": "Ivanova"}
    node = TextNode(text="Уникальный текст", metadata=metadata, embedding=[1.0])
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="d", metadata=metadata)
    row = json.dumps(row_from_node(node).metadata, ensure_ascii=False)
    assert row.count("Уникальный") == 1
    assert row.count("Ivanova") == 1


def test_the_stock_reader_finds_text_metadata_and_source_in_a_row() -> None:
    node = TextNode(text="hello", metadata={"year": 2024}, embedding=[1.0], start_char_idx=5)
    node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id="d")
    stock = dict(stored(node).metadata)
    assert stock["text"] == "hello"
    metadata, info, relationships = legacy_metadata_dict_to_node(stock)
    assert metadata == {"year": 2024}
    assert info["start"] == 5
    assert relationships[NodeRelationship.SOURCE].node_id == "d"


def test_a_row_written_by_the_stock_store_is_read_with_its_text() -> None:
    node = TextNode(text="hello", metadata={"year": 2024})
    metadata = node_to_metadata_dict(node)
    restored = node_from_row(NodeRow(node.node_id, None, "hello", metadata))
    assert same(restored) == same(node)


def test_a_row_written_by_stock_vecs_is_a_plain_node() -> None:
    row = NodeRow("r1", "d", "hello", {"text": "hello", "node_info": "{broken", "year": 1})
    node = node_from_row(row)
    assert (node.node_id, node.get_content(), node.ref_doc_id) == ("r1", "hello", "d")


@pytest.mark.parametrize("content", ["{broken", "[]", 7, None])
def test_a_row_with_a_strange_node_content_is_a_plain_node(content: object) -> None:
    node = node_from_row(NodeRow("r1", None, "hello", {"_node_content": content}))
    assert (node.node_id, node.get_content()) == ("r1", "hello")


def test_what_postgresql_cannot_store_is_dropped() -> None:
    node = TextNode(text="a\0b\ud800c", metadata={"k\0": ["v\0"]}, embedding=[1.0])
    row = row_from_node(node)
    assert row.text == "abc"
    assert row.metadata["k"] == ["v"]


def test_a_node_without_embedding_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no embedding"):
        row_from_node(TextNode(text="hello"))


def test_a_number_that_json_does_not_know_becomes_null() -> None:
    node = TextNode(text="hello", metadata={"x": float("nan")}, embedding=[1.0])
    assert row_from_node(node).metadata["x"] is None
