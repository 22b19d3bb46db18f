"""Node postprocessors: what may stand between search and answer."""

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from ragcore.flows.search import joined_neighbours
from ragcore.llamaindex.nodes import passage_from_node, scored_node
from ragcore.model import Passage


class JoinNeighbours(BaseNodePostprocessor):
    """Joins nodes that follow one another in a document under the same heading.

    An answer then quotes across the border of two chunks. The joined node has the id of its first
    chunk and the best score. Put it after a reranker, which judges single chunks better.
    """

    @classmethod
    def class_name(cls) -> str:
        return "JoinNeighbours"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        whole = {node.node_id: (node, passage_from_node(node)) for node in nodes}
        joined = joined_neighbours([passage for _, passage in whole.values()])
        return [_kept_or_joined(passage, *whole[passage.chunk_id]) for passage in joined]


def _kept_or_joined(joined: Passage, node: NodeWithScore, single: Passage) -> NodeWithScore:
    """Return a node that met no neighbour as it came, of whatever class it is."""
    return node if joined == single else scored_node(joined)
