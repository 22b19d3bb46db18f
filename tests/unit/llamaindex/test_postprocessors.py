"""Nodes between search and answer."""

from llama_index.core.schema import NodeWithScore, TextNode

from ragcore.llamaindex.nodes import passage_from_node, scored_node
from ragcore.llamaindex.postprocessors import JoinNeighbours
from ragcore.model import Passage, Place


def chunk(ordinal: int, score: float, *, heading: str = "Winter") -> NodeWithScore:
    return scored_node(
        Passage(
            chunk_id=f"c{ordinal}",
            document_id="guide",
            collection="default",
            ordinal=ordinal,
            text=f"Text {ordinal}.",
            score=score,
            headings=(heading,),
            places=(Place(ordinal + 1),),
        )
    )


def test_neighbours_under_one_heading_become_one_node() -> None:
    joined = JoinNeighbours().postprocess_nodes([chunk(4, 0.3), chunk(0, 0.6), chunk(3, 0.9)])
    assert [(node.node_id, node.get_content(), node.score) for node in joined] == [
        ("c3", "Text 3.\n\nText 4.", 0.9),
        ("c0", "Text 0.", 0.6),
    ]
    assert passage_from_node(joined[0]).places == (Place(4), Place(5))


def test_another_heading_keeps_neighbours_apart() -> None:
    nodes = [chunk(0, 0.9), chunk(1, 0.8, heading="Summer")]
    assert JoinNeighbours().postprocess_nodes(nodes) == nodes


def test_nodes_of_other_origin_pass_unchanged() -> None:
    nodes = [
        NodeWithScore(node=TextNode(id_="a", text="x", metadata={"k": 1}), score=7.0),
        NodeWithScore(node=TextNode(id_="b", text="y"), score=0.5),
    ]
    assert JoinNeighbours().postprocess_nodes(nodes) == nodes
