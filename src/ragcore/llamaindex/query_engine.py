"""Question → cited answer, as a LlamaIndex query engine."""

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.response.schema import RESPONSE_TYPE, Response
from llama_index.core.callbacks import CallbackManager
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.synthesis import (
    SynthesizeEndEvent,
    SynthesizeStartEvent,
)
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle, QueryType, TextNode

from ragcore.errors import ModelUnavailable, Rejected
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.nodes import passage_from_node
from ragcore.llamaindex.retriever import search_results
from ragcore.model import (
    Answer,
    AnswerEvent,
    AnswerPassages,
    AnswerText,
    Message,
    SearchResult,
)
from ragcore.ports import Answerer, Condenser, OnText

log = logging.getLogger(__name__)
_dispatcher = get_dispatcher(__name__)

_ANSWER = "answer"
"""Key of `Response.metadata` under which the whole ragcore answer travels."""

_WORDS = re.compile(r"\s*\S+\s*")

_tell: ContextVar[Callable[[AnswerEvent], None] | None] = ContextVar("_tell", default=None)
"""Hears how the question of this context comes along; None: nobody listens."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """The turns before a question, and who makes a question of them that stands alone."""

    history: Sequence[Message]
    condenser: Bridged[Condenser | None]
    collection: str | None = None
    """The only one that is searched."""

    async def standing_alone(self, question: QueryBundle) -> tuple[QueryBundle, str | None]:
        """Return what to search for, and a warning when it is the question as it was put."""
        if not self.history:
            return question, None
        return await self.condenser.call(lambda it: self._condensed(it, question))

    def standing_alone_sync(self, question: QueryBundle) -> tuple[QueryBundle, str | None]:
        """Do what `standing_alone` does, without a loop."""
        if not self.history:
            return question, None
        return self.condenser.call_sync(lambda it: self._condensed(it, question))

    async def _condensed(
        self, condenser: Condenser | None, question: QueryBundle
    ) -> tuple[QueryBundle, str | None]:
        if condenser is None:  # the answerer says whether it reads the history
            return question, None
        try:
            condensed = await condenser.condense(
                question.query_str, self.history, collection=self.collection
            )
        except (ModelUnavailable, Rejected) as error:
            log.warning("searching for a follow-up as it was put: %s", error)
            return question, f"the question was searched for by itself: {error}"
        return QueryBundle(condensed), None


class RagQueryEngine(RetrieverQueryEngine):
    """A retriever, any node postprocessors, and an answerer that cites.

    `response.metadata["answer"]` is the ragcore answer, `response.source_nodes` are the passages.
    `ask` returns the answer itself. Any LlamaIndex retriever or response synthesizer may take
    the place of ragcore's; an answer made by a foreign synthesizer has no citations.
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        response_synthesizer: BaseSynthesizer,
        node_postprocessors: Sequence[BaseNodePostprocessor] = (),
        callback_manager: CallbackManager | None = None,
        *,
        conversation: Conversation | None = None,
    ) -> None:
        super().__init__(
            retriever, response_synthesizer, list(node_postprocessors), callback_manager
        )
        self._conversation = conversation or Conversation((), Bridged.shared(None))

    async def ask(self, question: str) -> Answer:
        """Answer a question, with the time of each stage and the warnings of the search."""
        return answer_of(await self.aquery(question))

    async def ask_stream(self, question: str) -> AsyncGenerator[AnswerEvent, None]:
        """Answer a question as `ask` does, and tell of it on the way.

        First the passages, then the text piece by piece, last the whole answer. Raises what `ask`
        raises. A caller that stops listening (`aclose`) stops the work.
        """
        events: asyncio.Queue[AnswerEvent | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def tell(event: AnswerEvent) -> None:
            # Off the home loop the answerer runs on the bridge's, in another thread.
            loop.call_soon_threadsafe(events.put_nowait, event)

        with _telling(tell):
            # A task of its own keeps the context, which a generator shares with who iterates it.
            answering = asyncio.create_task(self.ask(question))
        answering.add_done_callback(lambda _: events.put_nowait(None))
        has_text = False
        try:
            while (event := await events.get()) is not None:
                has_text = has_text or isinstance(event, AnswerText)
                yield event
            answer = await answering
            if not has_text:  # it was not written word by word: the sentences were there already
                for piece in _WORDS.findall(answer.text):
                    yield AnswerText(piece)
            yield answer
        finally:
            answering.cancel()

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._question(query_bundle) as complete:
            asked, warning = self._conversation.standing_alone_sync(query_bundle)
            nodes = self.retrieve(asked)
            return complete(self._response_synthesizer.synthesize(asked, nodes), warning)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        with self._question(query_bundle) as complete:
            asked, warning = await self._conversation.standing_alone(query_bundle)
            nodes = await self.aretrieve(asked)
            if (tell := _tell.get()) is not None:
                tell(AnswerPassages(tuple(map(passage_from_node, nodes))))
            return complete(await self._response_synthesizer.asynthesize(asked, nodes), warning)

    @contextmanager
    def _question(
        self, query_bundle: QueryBundle
    ) -> Iterator[Callable[[RESPONSE_TYPE, str | None], RESPONSE_TYPE]]:
        """Trace one question, and give its answer the timings and warnings of its searches."""
        payload: dict[str, Any] = {EventPayload.QUERY_STR: query_bundle.query_str}
        with (
            search_results() as results,
            self.callback_manager.event(CBEventType.QUERY, payload=payload) as event,
        ):

            def complete(response: RESPONSE_TYPE, warning: str | None) -> RESPONSE_TYPE:
                answer = _with_searches(answer_of(response), results)
                if warning is not None:
                    answer = replace(answer, warnings=(warning, *answer.warnings))
                response.metadata = {**(response.metadata or {}), _ANSWER: answer}
                event.on_end(payload={EventPayload.RESPONSE: response})
                return response

            yield complete


@contextmanager
def _telling(tell: Callable[[AnswerEvent], None]) -> Iterator[None]:
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


class AnswererSynthesizer(BaseSynthesizer):
    """Any ragcore answerer as LlamaIndex's response synthesizer.

    It is asked even when there are no nodes: the answerer says why there is no answer, in the
    question's language. (LlamaIndex's base classes wrap the methods overridden here in spans.)
    """

    def __init__(
        self,
        answerer: Bridged[Answerer],
        *,
        history: Sequence[Message] = (),
        callback_manager: CallbackManager | None = None,
    ) -> None:
        # The base class insists on a language model. This one is never called: the answerer
        # has its own, or needs none.
        super().__init__(llm=MockLLM(), callback_manager=callback_manager)
        self._answerer = answerer
        self._history = history

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer from these nodes alone; `additional_source_nodes` are only listed as sources."""
        with self._synthesis(query) as synthesis:
            answer = self._answerer.call_sync(self._answering(synthesis.query, nodes))
            return synthesis.end(answer, [*nodes, *(additional_source_nodes or ())])

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Do what `synthesize` does, on the running loop."""
        with self._synthesis(query) as synthesis:
            answer = await self._answerer.call(self._answering(synthesis.query, nodes))
            return synthesis.end(answer, [*nodes, *(additional_source_nodes or ())])

    def get_response(self, query_str: str, text_chunks: Sequence[str], **_: Any) -> str:
        nodes = _nodes_of_texts(text_chunks)
        return self._answerer.call_sync(self._answering(QueryBundle(query_str), nodes)).text

    async def aget_response(self, query_str: str, text_chunks: Sequence[str], **_: Any) -> str:
        nodes = _nodes_of_texts(text_chunks)
        answer = await self._answerer.call(self._answering(QueryBundle(query_str), nodes))
        return answer.text

    def _answering(
        self, query: QueryBundle, nodes: list[NodeWithScore]
    ) -> Callable[[Answerer], Awaitable[Answer]]:
        tell = _tell.get()  # of this context: the bridge has another
        on_text = None if tell is None else lambda text: tell(AnswerText(text))
        return lambda answerer: _answer(answerer, query, nodes, self._history, on_text)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: dict[str, Any]) -> None:
        """There is nothing to update: the answerer's prompts are its own."""

    @contextmanager
    def _synthesis(self, query: QueryType) -> "Iterator[_Synthesis]":
        """Tell LlamaIndex's two ways of tracing that a synthesis begins, and how it ends."""
        _dispatcher.event(SynthesizeStartEvent(query=query))
        bundle = QueryBundle(query) if isinstance(query, str) else query
        synthesis = _Synthesis(bundle)
        payload: dict[str, Any] = {EventPayload.QUERY_STR: bundle.query_str}
        with self.callback_manager.event(CBEventType.SYNTHESIZE, payload=payload) as event:
            yield synthesis
            event.on_end(payload={EventPayload.RESPONSE: synthesis.response})
        _dispatcher.event(SynthesizeEndEvent(query=query, response=synthesis.response))


class _Synthesis:
    """One synthesis under way: its question, and in the end its response."""

    def __init__(self, query: QueryBundle) -> None:
        self.query = query
        self.response = Response(None)

    def end(self, answer: Answer, nodes: list[NodeWithScore]) -> Response:
        self.response = Response(answer.text, source_nodes=nodes, metadata={_ANSWER: answer})
        return self.response


async def _answer(
    answerer: Answerer,
    query: QueryBundle,
    nodes: list[NodeWithScore],
    history: Sequence[Message],
    on_text: OnText | None,
) -> Answer:
    started = time.perf_counter()
    passages = [passage_from_node(node) for node in nodes]
    vector = None if query.embedding is None else np.asarray(query.embedding, np.float32)
    answer = await answerer.answer(
        query.query_str, passages, query_vector=vector, history=history, on_text=on_text
    )
    milliseconds = (time.perf_counter() - started) * 1000
    return replace(answer, timings_ms={**answer.timings_ms, "generate": milliseconds})


def _nodes_of_texts(texts: Sequence[str]) -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(id_=str(number), text=text), score=1.0)
        for number, text in enumerate(texts)
    ]


def answer_of(response: RESPONSE_TYPE) -> Answer:
    """Return the answer that a response carries; a foreign synthesizer's text without citations."""
    answer = (response.metadata or {}).get(_ANSWER)
    if isinstance(answer, Answer):
        return answer
    passages = tuple(passage_from_node(node) for node in response.source_nodes)
    return Answer(text=str(response), citations=(), passages=passages, generator="llama_index")


def _with_searches(answer: Answer, results: Sequence[SearchResult]) -> Answer:
    timings: Counter[str] = Counter()
    for result in results:
        timings.update(result.timings_ms)
    warnings = [warning for result in results for warning in result.warnings]
    return replace(
        answer,
        timings_ms={**timings, **answer.timings_ms},
        warnings=tuple(dict.fromkeys([*warnings, *answer.warnings])),
    )
