"""Node postprocessors: what may stand between search and answer."""

import asyncio
import importlib
import logging
from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import PrivateAttr

from ragcore.errors import ModelUnavailable, NotConfigured, Rejected
from ragcore.flows.search import joined_neighbours
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.nodes import passage_from_node, scored_node
from ragcore.model import Passage
from ragcore.ports import Reranker

log = logging.getLogger(__name__)


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


# --- rerankers -----------------------------------------------------------------------------


class Rerank(BaseNodePostprocessor):
    """Any ragcore reranker as a node postprocessor, for engines and pipelines of one's own.

    Nodes stay in their order, and the log says why, when the reranker can't be asked.
    """

    top_n: int | None = None
    """Most nodes returned."""
    _reranker: Bridged[Reranker] = PrivateAttr()

    def __init__(self, reranker: Bridged[Reranker], *, top_n: int | None = None) -> None:
        super().__init__()
        self.top_n = top_n
        self._reranker = reranker

    @classmethod
    def class_name(cls) -> str:
        return "RagcoreRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None or not nodes:
            return nodes[: self.top_n]
        question, passages = query_bundle.query_str, [passage_from_node(node) for node in nodes]
        try:
            judged = self._reranker.call_sync(lambda it: it.rerank(question, passages))
        except (ModelUnavailable, Rejected) as error:
            return self._as_they_were(nodes, error)
        return self._in_order(nodes, judged)

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None or not nodes:
            return nodes[: self.top_n]
        question, passages = query_bundle.query_str, [passage_from_node(node) for node in nodes]
        try:
            judged = await self._reranker.call(lambda it: it.rerank(question, passages))
        except (ModelUnavailable, Rejected) as error:
            return self._as_they_were(nodes, error)
        return self._in_order(nodes, judged)

    def _as_they_were(
        self, nodes: list[NodeWithScore], error: ModelUnavailable | Rejected
    ) -> list[NodeWithScore]:
        log.warning("leaving nodes in the order of the search: %s", error)
        return nodes[: self.top_n]

    def _in_order(
        self, nodes: list[NodeWithScore], judged: Sequence[Passage]
    ) -> list[NodeWithScore]:
        known = {node.node_id: node for node in nodes}
        return [
            NodeWithScore(node=known[passage.chunk_id].node, score=passage.score)
            for passage in judged[: self.top_n]
        ]


class PostprocessorReranker:
    """`ports.Reranker` by any LlamaIndex node postprocessor, also one that drops or joins nodes."""

    def __init__(self, postprocessor: BaseNodePostprocessor, *, timeout_seconds: float) -> None:
        self._postprocessor = postprocessor
        self._timeout_seconds = timeout_seconds

    @property
    def is_language_model(self) -> bool:
        """As far as can be told: it has one."""
        return getattr(self._postprocessor, "llm", None) is not None

    async def rerank(self, question: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """Return what it makes of the passages. Raises ModelUnavailable for whatever it raises.

        One that computes in this process goes on in its thread after the time is up.
        """
        nodes = [scored_node(passage) for passage in passages]
        name = type(self._postprocessor).__name__
        try:
            async with asyncio.timeout(self._timeout_seconds):
                found = await self._postprocessor.apostprocess_nodes(nodes, QueryBundle(question))
        except TimeoutError as error:
            raise ModelUnavailable(
                f"{name} did not answer within {self._timeout_seconds:g} s"
            ) from error
        except Exception as error:
            # The edge to anybody's code: one that fails must not cost the answer.
            log.exception("the node postprocessor %s failed", name)
            raise ModelUnavailable(f"{name} failed: {type(error).__name__}") from error
        scores = _shown([node.score or 0.0 for node in found])
        return [
            passage.scored(score, passage.explanation)
            for passage, score in zip(map(passage_from_node, found), scores, strict=True)
        ]


def _shown(scores: Sequence[float]) -> Sequence[float]:
    """Return scores within 0…1, in the same order: logits by a logistic, if any is outside."""
    if all(0 <= score <= 1 for score in scores):
        return scores
    return [1 / (1 + exp(-max(-60.0, min(60.0, score)))) for score in scores]


def postprocessor_at(path: str, options: Mapping[str, Any]) -> BaseNodePostprocessor:
    """Make the postprocessor that an import path `package.module:Name` names.

    Raises NotConfigured, saying what is wrong with it.
    """
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise NotConfigured(
            f"RAGCORE_RERANK__POSTPROCESSOR {path!r} can't be made with the options "
            f"{sorted(options)}: {error}"
        ) from error
    if not isinstance(made, BaseNodePostprocessor):
        raise NotConfigured(
            f"RAGCORE_RERANK__POSTPROCESSOR {path!r} makes no LlamaIndex node postprocessor but "
            f"{type(made).__name__!r}"
        )
    return made
