"""Nodes between search and answer."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor import LLMRerank, SimilarityPostprocessor
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import Field

from ragcore.errors import InvalidInput, ModelUnavailable, NotConfigured
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.nodes import passage_from_node, scored_node
from ragcore.llamaindex.postprocessors import (
    JoinNeighbours,
    PostprocessorReranker,
    Rerank,
    postprocessor_at,
)
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
    passage = passage_from_node(joined[0])
    assert passage.places == (Place(4), Place(5))
    assert [(part.chunk_id, part.places) for part in passage.parts] == [
        ("c3", (Place(4),)),
        ("c4", (Place(5),)),
    ]


def test_another_heading_keeps_neighbours_apart() -> None:
    nodes = [chunk(0, 0.9), chunk(1, 0.8, heading="Summer")]
    assert JoinNeighbours().postprocess_nodes(nodes) == nodes


def test_nodes_of_other_origin_pass_unchanged() -> None:
    nodes = [
        NodeWithScore(node=TextNode(id_="a", text="x", metadata={"k": 1}), score=7.0),
        NodeWithScore(node=TextNode(id_="b", text="y"), score=0.5),
    ]
    assert JoinNeighbours().postprocess_nodes(nodes) == nodes


# --- rerankers -----------------------------------------------------------------------------


@dataclass
class Reversing:
    """A ragcore reranker that finds the last one best and drops the first, or fails."""

    is_language_model: bool = False
    error: Exception | None = None

    async def rerank(self, question: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        if self.error is not None:
            raise self.error
        kept = list(reversed(passages))[:-1]
        return [one.scored(1 - rank / 10, None) for rank, one in enumerate(kept)]


class Marking(BaseNodePostprocessor):
    """A LlamaIndex reranker of somebody else's: scores are logits."""

    marks: dict[str, float] = Field(default={"c0": -2.0, "c1": 7.5})
    fails: bool = False

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if self.fails:
            raise RuntimeError("no key")
        for node in nodes:
            node.score = self.marks.get(node.node_id, 0.0)
        return sorted(nodes, key=lambda node: -(node.score or 0))


NODES = [chunk(0, 0.9), chunk(2, 0.8), chunk(5, 0.7)]


@pytest.mark.parametrize("is_sync", [True, False])
async def test_a_reranker_of_ragcore_is_a_postprocessor(is_sync: bool) -> None:
    rerank = Rerank(Bridged.shared(Reversing()), top_n=1)
    if is_sync:
        found = await asyncio.to_thread(rerank.postprocess_nodes, NODES, query_str="When?")
    else:
        found = await rerank.apostprocess_nodes(NODES, query_str="When?")
    assert [(node.node_id, node.score) for node in found] == [("c5", 1.0)]
    assert found[0].node is NODES[2].node
    assert [node.node_id for node in await rerank.apostprocess_nodes(NODES)] == ["c0"]


@pytest.mark.parametrize("error", [ModelUnavailable("away"), InvalidInput("too long")])
async def test_nodes_stay_as_they_are_when_it_fails(error: Exception) -> None:
    rerank = Rerank(Bridged.shared(Reversing(error=error)))
    assert await rerank.apostprocess_nodes(NODES, query_str="When?") == NODES
    found = await asyncio.to_thread(rerank.postprocess_nodes, NODES, query_str="When?")
    assert found == NODES


async def test_any_postprocessor_is_a_reranker() -> None:
    passages = [passage_from_node(chunk(n, 0.5)) for n in (0, 1, 2)]
    reranker = PostprocessorReranker(Marking(), timeout_seconds=20)
    found = await reranker.rerank("When?", passages)
    assert [passage.chunk_id for passage in found] == ["c1", "c2", "c0"]
    assert 1 > found[0].score > found[1].score == 0.5 > found[2].score > 0
    assert found[0].places == passages[1].places
    assert not reranker.is_language_model
    cut_off = SimilarityPostprocessor(similarity_cutoff=0.9)
    dropping = PostprocessorReranker(cut_off, timeout_seconds=20)
    assert list(await dropping.rerank("When?", passages)) == []


async def test_one_that_asks_a_language_model_is_known() -> None:
    reranker = PostprocessorReranker(LLMRerank(llm=MockLLM()), timeout_seconds=20)
    assert reranker.is_language_model


async def test_a_postprocessor_that_fails_is_as_good_as_away(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reranker = PostprocessorReranker(Marking(fails=True), timeout_seconds=20)
    with pytest.raises(ModelUnavailable, match="RuntimeError"):
        await reranker.rerank("When?", [passage_from_node(NODES[0])])
    assert "no key" in caplog.text


def test_a_postprocessor_is_made_from_its_import_path() -> None:
    path = "llama_index.core.postprocessor:SimilarityPostprocessor"
    made = postprocessor_at(path, {"similarity_cutoff": 0.25})
    assert isinstance(made, SimilarityPostprocessor) and made.similarity_cutoff == 0.25


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("no_such_module:Name", {}),
        ("llama_index.core.postprocessor:NoSuchName", {}),
        ("builtins:dict", {}),
        ("llama_index.core.postprocessor:SimilarityPostprocessor", {"similarity_cutoff": "x"}),
    ],
)
def test_a_path_that_makes_none_is_refused(path: str, options: dict[str, object]) -> None:
    with pytest.raises(NotConfigured, match="RAGCORE_RERANK__POSTPROCESSOR"):
        postprocessor_at(path, options)
