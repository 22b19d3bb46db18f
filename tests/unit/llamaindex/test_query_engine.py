"""The retriever and the query engine as LlamaIndex sees them, over a search in memory."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.mock import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters
from pydantic import Field

from ragcore.errors import ModelUnavailable
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.query_engine import (
    AnswererSynthesizer,
    Conversation,
    RagQueryEngine,
    answer_of,
)
from ragcore.llamaindex.retriever import RagRetriever, search_results
from ragcore.model import (
    AllOf,
    Answer,
    AnswerPassages,
    AnswerText,
    Citation,
    Condition,
    Filter,
    Message,
    Passage,
    SearchMode,
    SearchResult,
    Vector,
)
from ragcore.ports import OnText

PASSAGES = (
    Passage("c1", "guide", "default", 0, "The ferry leaves at nine.", 0.9),
    Passage("c2", "guide", "default", 1, "Dogs travel free.", 0.4),
)


@dataclass
class RecordedSearch:
    """A search that finds what it is given, and remembers how it was asked."""

    passages: tuple[Passage, ...] = PASSAGES
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def __call__(
        self,
        question: str,
        *,
        collection: str | Sequence[str],
        top_k: int,
        mode: SearchMode,
        filters: Filter | None,
        explain: bool,
        language_models: bool,
    ) -> SearchResult:
        await asyncio.sleep(0)
        self.asked.append(
            {"question": question, "collection": collection, "top_k": top_k, "mode": mode,
             "filters": filters, "explain": explain}
        )  # fmt: skip
        return SearchResult(
            self.passages[:top_k], {"embed": 1.0, "retrieve": 2.0}, warnings=("stale",)
        )


class FirstPassageAnswerer:
    """Quotes the first passage whole; declines when there is none."""

    name = "first"

    def __init__(self) -> None:
        self.vectors: list[Vector | None] = []

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        query_vector: Vector | None = None,
        history: Sequence[Message] = (),
        on_text: OnText | None = None,
    ) -> Answer:
        await asyncio.sleep(0)
        self.vectors.append(query_vector)
        if not passages:
            return Answer("Nothing found.", (), (), no_answer_reason="no_relevant_passages")
        best = passages[0]
        citation = Citation(
            1, best.chunk_id, best.document_id, best.collection, best.text, 0, len(best.text),
            best.score, True,
        )  # fmt: skip
        return Answer(f"{best.text} [1]", (citation,), tuple(passages), generator=self.name)


def retriever_over(search: RecordedSearch, **options: Any) -> RagRetriever:
    return RagRetriever(Bridged.shared(search), collection="default", **options)


def engine_over(search: RecordedSearch, **options: Any) -> RagQueryEngine:
    synthesizer = AnswererSynthesizer(Bridged.shared(FirstPassageAnswerer()))
    return RagQueryEngine(retriever_over(search), synthesizer, **options)


# --- the retriever -------------------------------------------------------------------------


async def test_a_retriever_asks_with_its_own_options() -> None:
    search = RecordedSearch()
    filters = MetadataFilters(filters=[MetadataFilter(key="year", value=2024)])
    retriever = retriever_over(search, top_k=1, mode="keyword", filters=filters, explain=True)
    nodes = await retriever.aretrieve("when?")
    assert [(node.node_id, node.score) for node in nodes] == [("c1", 0.9)]
    assert search.asked == [
        {"question": "when?", "collection": "default", "top_k": 1, "mode": "keyword",
         "filters": AllOf((Condition("year", "eq", 2024),)), "explain": True}
    ]  # fmt: skip


async def test_sync_and_async_retrieval_find_the_same_inside_a_running_loop() -> None:
    retriever = retriever_over(RecordedSearch())
    assert retriever.retrieve("when?") == await retriever.aretrieve("when?")


def test_sync_retrieval_works_without_a_loop() -> None:
    assert len(retriever_over(RecordedSearch()).retrieve("when?")) == 2


async def test_timings_and_warnings_are_collected_for_whoever_asks() -> None:
    retriever = retriever_over(RecordedSearch())
    with search_results() as results:
        await retriever.aretrieve("one")
        retriever.retrieve("two")
    await retriever.aretrieve("three")
    assert [result.warnings for result in results] == [("stale",), ("stale",)]


# --- the query engine ----------------------------------------------------------------------


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Callable[[RagQueryEngine, str], Response]:
    if request.param == "sync":
        return lambda engine, question: engine.query(question)  # type: ignore[return-value]
    return lambda engine, question: asyncio.run(engine.aquery(question))  # type: ignore[arg-type, return-value]


Ask = Callable[[RagQueryEngine, str], Response]


def test_a_response_carries_the_answer_and_its_sources(ask: Ask) -> None:
    response = ask(engine_over(RecordedSearch()), "When does it leave?")
    answer = answer_of(response)
    assert str(response) == answer.text == "The ferry leaves at nine. [1]"
    assert answer.citations[0].quote == "The ferry leaves at nine."
    assert answer.passages == PASSAGES
    assert [node.node_id for node in response.source_nodes] == ["c1", "c2"]
    assert response.metadata is not None
    assert response.metadata["answer"] is answer


def test_an_answer_tells_the_time_of_each_stage_and_the_warnings(ask: Ask) -> None:
    answer = answer_of(ask(engine_over(RecordedSearch()), "When?"))
    assert answer.timings_ms["embed"] == 1.0
    assert answer.timings_ms["retrieve"] == 2.0
    assert answer.timings_ms["generate"] >= 0
    assert answer.warnings == ("stale",)


def test_the_answerer_says_why_there_is_no_answer(ask: Ask) -> None:
    response = ask(engine_over(RecordedSearch(passages=())), "When?")
    assert answer_of(response).no_answer_reason == "no_relevant_passages"
    assert str(response) == "Nothing found."


def test_node_postprocessors_stand_between_search_and_answer(ask: Ask) -> None:
    cutoff = SimilarityPostprocessor(similarity_cutoff=0.5)
    engine = engine_over(RecordedSearch(), node_postprocessors=[cutoff])
    assert answer_of(ask(engine, "When?")).passages == PASSAGES[:1]


async def test_ask_returns_the_answer_itself() -> None:
    answer = await engine_over(RecordedSearch()).ask("When?")
    assert answer.generator == "first"


async def test_a_question_that_is_embedded_already_is_not_embedded_again() -> None:
    from llama_index.core.schema import QueryBundle

    answerer = FirstPassageAnswerer()
    engine = RagQueryEngine(
        retriever_over(RecordedSearch()), AnswererSynthesizer(Bridged.shared(answerer))
    )
    await engine.aquery(QueryBundle("When?", embedding=[0.5, 0.5]))
    (vector,) = answerer.vectors
    assert vector is not None
    assert vector.tolist() == [0.5, 0.5]


async def test_a_foreign_retriever_may_feed_the_engine() -> None:
    retrievers = [retriever_over(RecordedSearch()), retriever_over(RecordedSearch())]
    fusion = QueryFusionRetriever(
        retrievers,  # type: ignore[arg-type]
        llm=MockLLM(),
        num_queries=1,
        similarity_top_k=2,
        mode="reciprocal_rerank",  # type: ignore[arg-type]
    )
    synthesizer = AnswererSynthesizer(Bridged.shared(FirstPassageAnswerer()))
    answer = await RagQueryEngine(fusion, synthesizer).ask("When?")
    assert [replace(passage, score=0.0) for passage in answer.passages] == [
        replace(passage, score=0.0) for passage in PASSAGES
    ]
    assert answer.timings_ms["embed"] == 2.0


async def test_a_foreign_synthesizer_gives_an_answer_without_citations() -> None:
    synthesizer = get_response_synthesizer(
        llm=MockLLM(max_tokens=5), response_mode=ResponseMode.COMPACT
    )
    engine = RagQueryEngine(retriever_over(RecordedSearch()), synthesizer)
    answer = await engine.ask("When?")
    assert answer.text
    assert answer.citations == ()
    assert answer.passages == PASSAGES
    assert answer.warnings == ("stale",)


def test_the_synthesizer_answers_from_bare_texts() -> None:
    synthesizer = AnswererSynthesizer(Bridged.shared(FirstPassageAnswerer()))
    assert synthesizer.get_response("When?", ["At nine."]) == "At nine. [1]"
    assert asyncio.run(synthesizer.aget_response("When?", ["At ten."])) == "At ten. [1]"


# --- tracing -------------------------------------------------------------------------------


class Recorder(BaseEventHandler):
    events: list[str] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.events.append(event.class_name())


def test_events_of_each_stage_reach_llamaindexs_instrumentation(ask: Ask) -> None:
    recorder = Recorder()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(recorder)
    try:
        ask(engine_over(RecordedSearch()), "When?")
    finally:
        dispatcher.event_handlers.remove(recorder)
    assert recorder.events == [
        "QueryStartEvent",
        "RetrievalStartEvent",
        "RetrievalEndEvent",
        "SynthesizeStartEvent",
        "SynthesizeEndEvent",
        "QueryEndEvent",
    ]


def test_events_of_each_stage_reach_callbacks(ask: Ask) -> None:
    handler = LlamaDebugHandler(print_trace_on_end=False)
    callbacks = CallbackManager([handler])
    search = Bridged.shared(RecordedSearch())
    engine = RagQueryEngine(
        RagRetriever(search, collection="default", callback_manager=callbacks),
        AnswererSynthesizer(Bridged.shared(FirstPassageAnswerer()), callback_manager=callbacks),
        callback_manager=callbacks,
    )
    ask(engine, "When?")
    for kind in (CBEventType.QUERY, CBEventType.RETRIEVE, CBEventType.SYNTHESIZE):
        assert len(handler.get_event_pairs(kind)) == 1, kind


# --- answers told on their way ---------------------------------------------------------------


async def test_an_answer_is_told_passages_first_then_words_then_whole() -> None:
    engine = engine_over(RecordedSearch())
    events = [event async for event in engine.ask_stream("when?")]
    assert events[0] == AnswerPassages(PASSAGES)
    pieces = [event for event in events if isinstance(event, AnswerText)]
    assert events == [events[0], *pieces, events[-1]]
    assert "".join(piece.text for piece in pieces) == "The ferry leaves at nine. [1]"
    assert isinstance(events[-1], Answer)
    assert replace(events[-1], timings_ms={}) == replace(await engine.ask("when?"), timings_ms={})


async def test_a_failure_on_the_way_is_raised_after_what_was_told() -> None:
    class Failing(FirstPassageAnswerer):
        async def answer(
            self,
            question: str,
            passages: Sequence[Passage],
            *,
            query_vector: Vector | None = None,
            history: Sequence[Message] = (),
            on_text: OnText | None = None,
        ) -> Answer:
            raise ModelUnavailable("away")

    engine = RagQueryEngine(
        retriever_over(RecordedSearch()), AnswererSynthesizer(Bridged.shared(Failing()))
    )
    stream = engine.ask_stream("when?")
    assert await anext(stream) == AnswerPassages(PASSAGES)
    with pytest.raises(ModelUnavailable):
        await anext(stream)


async def test_whoever_stops_listening_stops_the_work() -> None:
    stopped = asyncio.Event()

    class Endless(FirstPassageAnswerer):
        async def answer(
            self,
            question: str,
            passages: Sequence[Passage],
            *,
            query_vector: Vector | None = None,
            history: Sequence[Message] = (),
            on_text: OnText | None = None,
        ) -> Answer:
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()
            raise AssertionError("unreachable")

    engine = RagQueryEngine(
        retriever_over(RecordedSearch()), AnswererSynthesizer(Bridged.shared(Endless()))
    )
    stream = engine.ask_stream("when?")
    await anext(stream)
    await stream.aclose()
    await stopped.wait()


# --- follow-ups ------------------------------------------------------------------------------

HISTORY = (Message("user", "When does the ferry leave?"), Message("assistant", "At nine [1]."))


class Reading(FirstPassageAnswerer):
    """Remembers what it was asked, and tells its answer in two pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Sequence[Message]]] = []

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        query_vector: Vector | None = None,
        history: Sequence[Message] = (),
        on_text: OnText | None = None,
    ) -> Answer:
        self.asked.append((question, history))
        if on_text is not None:
            on_text("At ")
            on_text("nine.")
        return Answer("At nine.", (), tuple(passages))


class NamingTheFerry:
    async def condense(
        self, question: str, history: Sequence[Message], *, collection: str | None = None
    ) -> str:
        if not history[0].content.startswith("When"):
            raise ModelUnavailable("the model is away")
        return f"{question} (of {collection}, after {len(history)})"


def conversing(
    answerer: Reading, search: RecordedSearch, history: Sequence[Message] = HISTORY
) -> RagQueryEngine:
    return RagQueryEngine(
        retriever_over(search),
        AnswererSynthesizer(Bridged.shared(answerer), history=history),
        conversation=Conversation(history, Bridged.shared(NamingTheFerry()), collection="default"),
    )


def test_a_follow_up_is_searched_for_and_answered_as_it_is_meant(ask: Ask) -> None:
    answerer, search = Reading(), RecordedSearch()
    ask(conversing(answerer, search), "And back?")
    meant = "And back? (of default, after 2)"
    assert [asked["question"] for asked in search.asked] == [meant]
    assert answerer.asked == [(meant, HISTORY)]


def test_a_follow_up_that_can_not_be_understood_is_taken_by_itself(ask: Ask) -> None:
    answerer, search = Reading(), RecordedSearch()
    answer = answer_of(ask(conversing(answerer, search, HISTORY[1:]), "And back?"))
    assert [asked["question"] for asked in search.asked] == ["And back?"]
    assert answer.warnings[-1] == "stale"
    assert answer.warnings[0].endswith("the model is away")


def test_without_a_history_nothing_is_condensed(ask: Ask) -> None:
    answerer, search = Reading(), RecordedSearch()
    ask(conversing(answerer, search, ()), "And back?")
    assert [asked["question"] for asked in search.asked] == ["And back?"]


async def test_pieces_are_told_as_the_answerer_tells_them() -> None:
    events = [event async for event in conversing(Reading(), RecordedSearch()).ask_stream("When?")]
    assert events[:3] == [AnswerPassages(PASSAGES), AnswerText("At "), AnswerText("nine.")]
    assert isinstance(events[3], Answer) and len(events) == 4
