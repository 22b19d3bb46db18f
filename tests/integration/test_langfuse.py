"""Traces through the real SDK and instrumentation into a Langfuse that decodes what arrives."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest

from fakes.langfuse import PUBLIC_KEY, SECRET_KEY, FakeLangfuse, Span, authorization
from fakes.ollama import Chat, FakeModel, FakeOllama
from ragcore.adapters.langfuse.connection import Connection
from ragcore.adapters.langfuse.prices import Price
from ragcore.adapters.langfuse.prompts import fetch_prompts
from ragcore.adapters.langfuse.tracing import LangfuseTracer, Options, open_tracer
from ragcore.adapters.models.chat import estimated_tokens
from ragcore.adapters.models.generated import GeneratedAnswerer, GeneratedCondenser
from ragcore.adapters.models.llama_chats import LlamaIndexChats
from ragcore.adapters.prompts import FilePrompts, ManagedPrompts
from ragcore.errors import Busy, NotConfigured, Rejected, TraceNotFound, Unavailable
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.query_engine import AnswererSynthesizer, Conversation, RagQueryEngine
from ragcore.llamaindex.retriever import RagRetriever
from ragcore.model import Answer, Asker, Feedback, Job, JobFailure, Message, Passage, SearchResult

FERRY = Passage("1", "ferry", "default", 0, "The ferry leaves at 07:40; call +7 495 123-45-67.",
                score=0.9)  # fmt: skip
# OpenInference's instrumentation asks pydantic's models for `.json()`.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")

QUESTION = "When does Ivanova's ferry leave?"
FOLLOW_UP = (Message("user", "Tell me of ferries."),)


@pytest.fixture(scope="module")
def server() -> Iterator[FakeLangfuse]:
    with FakeLangfuse() as fake:
        yield fake


@pytest.fixture
def langfuse(server: FakeLangfuse) -> FakeLangfuse:
    server.forget()
    return server


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(FakeModel("llama3.2:latest", architecture="llama",
                              capabilities=["completion"])) as fake:  # fmt: skip
        yield fake


@asynccontextmanager
async def tracing(langfuse: FakeLangfuse, **options: object) -> AsyncIterator[LangfuseTracer]:
    connection = Connection(langfuse.url, PUBLIC_KEY, SECRET_KEY)
    async with open_tracer(replace(Options(connection), **options)) as tracer:  # type: ignore[arg-type]
        yield tracer


class Echo:
    """An answerer that repeats the best passage."""

    name = "echo"

    async def answer(self, question: str, passages: list[Passage], **_: object) -> Answer:
        return Answer(passages[0].text, citations=(), passages=tuple(passages))


def engine_of(answerer: object, **options: object) -> RagQueryEngine:
    async def search(question: str, **_: object) -> SearchResult:
        return SearchResult((FERRY,), timings_ms={})

    retriever = RagRetriever(Bridged.shared(search), collection="default")
    synthesizer = AnswererSynthesizer(Bridged.shared(answerer))  # type: ignore[arg-type]
    return RagQueryEngine(retriever, synthesizer, **options)  # type: ignore[arg-type]


async def ask(
    tracer: LangfuseTracer, engine: RagQueryEngine | None = None, question: str = QUESTION
) -> Answer:
    trace = tracer.question(
        question,
        collections=["default"],
        asker=Asker(user="Анна", session="chat-7", key="n8n"),
        options={"mode": "hybrid"},
    )
    with trace:
        with trace.inside():
            answer = await (engine or engine_of(Echo())).ask(question)
        return trace.answered(answer)


async def ask_a_model(
    tracer: LangfuseTracer, ollama: FakeOllama, prompts: ManagedPrompts | FilePrompts
) -> Answer:
    """Ask a follow-up, which a scripted language model condenses and then answers."""
    from llama_index.llms.ollama import Ollama
    from ollama import AsyncClient

    client = AsyncClient(host=ollama.url)
    llm = Ollama(model="llama3.2", base_url=ollama.url, async_client=client, context_window=4096)
    models = LlamaIndexChats(llm).writing(answer_tokens=100, timeout_seconds=60)
    written = {"prompts": prompts, "count_tokens": estimated_tokens, "max_prompt_tokens": 2000}
    condenser = GeneratedCondenser(models, **written)  # type: ignore[arg-type]
    answerer = GeneratedAnswerer(models, fallback=Echo(), **written)  # type: ignore[arg-type]
    ollama.chats.extend([Chat(QUESTION), Chat("The ferry leaves at 07:40 [1].")])
    conversation = Conversation(FOLLOW_UP, Bridged.shared(condenser), collection="default")
    try:
        return await ask(tracer, engine_of(answerer, conversation=conversation), "And when?")
    finally:
        await client.close()  # type: ignore[no-untyped-call]


def named(spans: list[Span], name: str) -> Span:
    (span,) = (span for span in spans if span.name == name)
    return span


# --- questions -------------------------------------------------------------------------------


async def test_a_question_is_one_trace_with_its_search_its_passages_and_its_answer(
    langfuse: FakeLangfuse,
) -> None:
    async with tracing(langfuse) as tracer:
        answer = await ask(tracer)
    assert {span.trace_id for span in langfuse.spans} == {answer.trace_id}
    root = named(langfuse.spans, "question")
    assert root.parent_id == ""
    assert root["langfuse.observation.input"] == QUESTION
    assert root["langfuse.observation.output"] == answer.text == FERRY.text
    assert root.metadata("collections") == ["default"] and root.metadata("mode") == "hybrid"
    retrieval = named(langfuse.spans, "RagRetriever.aretrieve")
    assert retrieval["retrieval.documents.0.document.score"] == 0.9
    assert retrieval.metadata("passages")[0] == {
        "chunk_id": "1", "document_id": "ferry", "collection": "default", "page": None, "score": 0.9
    }  # fmt: skip
    assert json.loads(retrieval["langfuse.observation.output"])[0]["text"] == FERRY.text
    by_id = {span.span_id: span for span in langfuse.spans}
    assert by_id[retrieval.parent_id].parent_id in by_id
    for span in langfuse.spans:
        assert span["user.id"] == "Анна" and span["session.id"] == "chat-7"
        assert span["langfuse.trace.metadata.key"] == '"n8n"'
    assert all(headers["authorization"] == authorization() for headers in langfuse.headers)


async def test_a_model_is_a_generation_with_tokens_cost_prompt_and_first_token(
    langfuse: FakeLangfuse, ollama: FakeOllama
) -> None:
    langfuse.prompts = {
        "answer.en": ("Be brief. {boundary}", 7),
        "condense.en": ("Make one. {boundary}", 3),
        "reports/answer.en": ("Of reports. {boundary}", 1),
        "someone-elses": ("x", 1),
    }
    async with tracing(langfuse, prices={"llama3.2": Price(1.0, 2.0)}) as tracer:

        def fetch(wanted):  # type: ignore[no-untyped-def]
            return fetch_prompts(tracer.options.connection, wanted, label="production")

        prompts = ManagedPrompts(FilePrompts.read(), fetch, used=tracer.note_prompt)
        await asyncio.to_thread(prompts.refresh)
        answer = await ask_a_model(tracer, ollama, prompts)
    assert answer.generator.endswith("llama3.2") and not answer.warnings
    condensing, answering = (s for s in langfuse.spans if s.name == "Ollama.astream_chat")
    assert condensing["langfuse.observation.prompt.name"] == "condense.en"
    assert answering["langfuse.observation.prompt.name"] == "answer.en"
    assert answering["langfuse.observation.prompt.version"] == 7
    assert answering["llm.model_name"] == "llama3.2"
    assert answering["llm.input_messages.0.message.content"].startswith("Be brief.")
    assert FERRY.text in answering["llm.input_messages.1.message.content"]
    assert answering["llm.output_messages.0.message.content"] == "The ferry leaves at 07:40 [1]."
    assert json.loads(answering["langfuse.observation.usage_details"]) == {
        "input": 100, "output": 20
    }  # fmt: skip
    assert json.loads(answering["langfuse.observation.cost_details"]) == {
        "input": pytest.approx(1e-4), "output": pytest.approx(4e-5), "total": pytest.approx(1.4e-4)
    }  # fmt: skip
    assert answering["langfuse.observation.completion_start_time"]
    others = [span for span in langfuse.spans if span not in (condensing, answering)]
    assert not any("langfuse.observation.prompt.name" in span.attributes for span in others)


async def test_content_none_sends_no_word_of_question_passages_prompts_or_answer(
    langfuse: FakeLangfuse, ollama: FakeOllama
) -> None:
    async with tracing(langfuse, content="none") as tracer:
        answer = await ask_a_model(tracer, ollama, FilePrompts.read())
        tracer.score(Feedback(answer.trace_id or "", 1, "Ivanova was pleased"))
    sent = b"\n".join(langfuse.bodies)
    for word in ("ferr", "Ivanova", "07:40", "And when", "passages below", "pleased"):
        assert word.encode() not in sent.replace(b'"ferry"', b""), word  # but for the document's id
    answering = [s for s in langfuse.spans if s.name == "Ollama.astream_chat"][-1]
    assert answering["llm.token_count.completion"] == 20
    assert named(langfuse.spans, "question").metadata("citations") == 1
    assert langfuse.scores[0]["value"] == 1


async def test_masked_sends_the_words_without_numbers_by_which_people_are_known(
    langfuse: FakeLangfuse,
) -> None:
    async with tracing(langfuse, content="masked", masks=("Ivanova",)) as tracer:
        await ask(tracer)
    sent = b"\n".join(langfuse.bodies)
    assert b"123-45-67" not in sent and b"Ivanova" not in sent
    assert named(langfuse.spans, "question")["langfuse.observation.output"] == (
        "The ferry leaves at 07:40; call ***."
    )


async def test_vectors_and_secrets_stay_here(langfuse: FakeLangfuse) -> None:
    from llama_index.core.embeddings import MockEmbedding

    class Failing(Echo):
        async def answer(self, *_: object, **__: object) -> Answer:
            await MockEmbedding(embed_dim=384).aget_text_embedding(QUESTION)
            raise Unavailable("postgresql://ragcore:hunter22@db/x said: s3cret-of-s3")

    async with tracing(langfuse, secrets=frozenset({"s3cret-of-s3"})) as tracer:
        with pytest.raises(Unavailable):
            await ask(tracer, engine_of(Failing()))
    sent = b"\n".join(langfuse.bodies)
    assert b"hunter22" not in sent and b"s3cret-of-s3" not in sent
    assert SECRET_KEY.encode() not in sent
    embedding = named(langfuse.spans, "MockEmbedding.aget_text_embedding")
    assert embedding["openinference.span.kind"] == "EMBEDDING"
    assert not any("vector" in key for span in langfuse.spans for key in span.attributes)
    assert not any(isinstance(value, list) and len(value) > 16
                   for span in langfuse.spans for value in span.attributes.values())  # fmt: skip
    root = named(langfuse.spans, "question")
    assert root["langfuse.observation.level"] == "ERROR"
    assert "Unavailable" in root["langfuse.observation.status_message"]


async def test_a_question_that_can_not_be_encoded_costs_nobody_elses_trace(
    langfuse: FakeLangfuse,
) -> None:
    async with tracing(langfuse) as tracer:
        odd = await ask(tracer, question="half \ud83d a\0pair")
        answer = await ask(tracer)
    assert {span.trace_id for span in langfuse.spans} == {odd.trace_id, answer.trace_id}


async def test_what_is_not_sampled_has_no_trace_id(langfuse: FakeLangfuse) -> None:
    async with tracing(langfuse, sample=0.0) as tracer:
        answer = await ask(tracer)
    assert answer.trace_id is None and langfuse.spans == []


# --- jobs ------------------------------------------------------------------------------------


async def test_an_attempt_at_a_job_is_a_trace_with_its_stages(langfuse: FakeLangfuse) -> None:
    job = Job(uuid4(), "reports", "growth", "running", attempts=2)
    failure = JobFailure("no_text_found", "the scan 'secret plan.pdf' holds no text", False)
    async with tracing(langfuse) as tracer:
        with tracer.job(job) as trace:
            trace.reached("fetching")
            trace.reached("converting")
            trace.reached("converting")
            trace.ended(replace(job, status="failed", error=failure, timings_ms={"fetch": 3.5}))
    root = named(langfuse.spans, "document")
    assert root.metadata("status") == "failed" and root.metadata("error_code") == "no_text_found"
    assert root.metadata("attempt") == 2 and root.metadata("timings_ms") == {"fetch": 3.5}
    assert root.metadata("job_id") == str(job.job_id)
    assert root["langfuse.observation.level"] == "ERROR"
    assert root["langfuse.trace.metadata.document_id"] == '"growth"'
    assert b"secret plan" not in b"".join(langfuse.bodies)
    stages = [span for span in langfuse.spans if span.parent_id == root.span_id]
    assert sorted(span.name for span in stages) == ["converting", "fetching"]


# --- feedback --------------------------------------------------------------------------------


async def test_feedback_is_a_score_that_a_later_one_of_the_same_giver_replaces(
    langfuse: FakeLangfuse,
) -> None:
    async with tracing(langfuse, environment="staging") as tracer:
        trace_id = (await ask(tracer)).trace_id or ""
        tracer.score(Feedback(trace_id, 0.0, "Wrong page", given_by="anna"))
        tracer.score(Feedback(trace_id, 1.0, given_by="anna"))
        tracer.score(Feedback(trace_id, 0.5, given_by="boris"))
    first, second, other = langfuse.scores
    assert (first["traceId"], first["name"], first["value"]) == (trace_id, "feedback", 0.0)
    assert (first["comment"], first["dataType"]) == ("Wrong page", "NUMERIC")
    assert first["environment"] == "staging" and first["metadata"] == {"key": "anna"}
    # Langfuse replaces a score by one of the same id and time.
    assert (first["id"], first["timestamp"]) == (second["id"], second["timestamp"])
    assert other["id"] != first["id"]


async def test_only_what_was_answered_here_can_be_scored(langfuse: FakeLangfuse) -> None:
    async with tracing(langfuse) as tracer:
        for made_up in (uuid4().hex, "0" * 32):
            with pytest.raises(TraceNotFound):
                tracer.score(Feedback(made_up, 1.0))
    assert langfuse.scores == []


# --- a Langfuse that is not well -------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 413, 500])
async def test_a_server_that_refuses_changes_no_answer_and_is_mentioned_once(
    langfuse: FakeLangfuse, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    langfuse.status = status
    async with tracing(langfuse) as tracer:
        answer = await ask(tracer)
        tracer.score(Feedback(answer.trace_id or "", 1.0))
    assert answer.text == FERRY.text and answer.trace_id
    complaints = [r for r in caplog.records if "could not be sent to Langfuse" in r.message]
    assert len(complaints) == 1
    loud = [r for r in caplog.records if r.levelno >= logging.WARNING and r not in complaints]
    assert all(r.name.startswith("ragcore.adapters.langfuse") for r in loud)


async def test_a_server_that_hangs_delays_neither_answers_nor_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FakeLangfuse(hangs=True) as langfuse:
        async with tracing(langfuse) as tracer:
            answer = await ask(tracer)
            tracer.score(Feedback(answer.trace_id or "", 1.0))
            await asyncio.to_thread(langfuse.wait_for_request)
        # Here we are while it still hangs: nothing was answered.
        assert langfuse.hangs and not langfuse.spans
    assert answer.text == FERRY.text
    assert any("did not take the last traces" in record.message for record in caplog.records)


async def test_feedback_waits_in_a_queue_that_has_an_end() -> None:
    with FakeLangfuse(hangs=True) as langfuse:
        async with tracing(langfuse) as tracer:
            trace_id = (await ask(tracer)).trace_id or ""
            with pytest.raises(Busy):
                while True:
                    tracer.score(Feedback(trace_id, 1.0))


async def test_prompts_of_a_server_that_refuses_or_fails_are_errors_of_ours(
    langfuse: FakeLangfuse,
) -> None:
    connection = Connection(langfuse.url, PUBLIC_KEY, SECRET_KEY)
    for status, error in ((401, Rejected), (500, Unavailable)):
        langfuse.status = status
        with pytest.raises(error):
            fetch_prompts(connection, lambda name: True, label="production")
    with pytest.raises(Unavailable):
        Connection("http://127.0.0.1:1", PUBLIC_KEY, SECRET_KEY).project_name()


# --- one tracer a process --------------------------------------------------------------------


async def test_those_who_open_at_once_share_a_tracer_until_the_last_leaves(
    langfuse: FakeLangfuse,
) -> None:
    async with tracing(langfuse) as first:
        async with tracing(langfuse) as second:
            assert first is second
        answer = await ask(first)
        with pytest.raises(NotConfigured, match="already"):
            async with tracing(langfuse, sample=0.5):
                pass
    assert any("RagRetriever" in span.name for span in langfuse.spans) and answer.trace_id


async def test_nothing_is_traced_after_the_block(langfuse: FakeLangfuse) -> None:
    async with tracing(langfuse) as tracer:
        tracer.warm_up()
    await engine_of(Echo()).ask(QUESTION)
    async with tracing(langfuse):
        pass
    assert langfuse.spans == []


async def test_a_secret_key_without_a_public_one_is_refused() -> None:
    with pytest.raises(NotConfigured, match="PUBLIC_KEY"):
        Connection("http://127.0.0.1:1", "", SECRET_KEY)
