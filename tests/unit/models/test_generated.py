import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

import pytest

from fakes.ollama import FakeModel, FakeOllama
from ragcore.adapters.models.generated import GeneratedAnswerer, ollama_answerer
from ragcore.model import Answer, Passage, Vector

FERRY = Passage("c1", "ferry", "default", 0, "The ferry Aurora leaves at 07:40.", score=0.9)
BIKES = Passage("c2", "bikes", "default", 0, "A bicycle costs 4 crowns.", score=0.8)


class Quoting:
    """The fallback: repeats the first passage."""

    name = "extractive"

    async def answer(
        self, question: str, passages: Sequence[Passage], *, query_vector: Vector | None = None
    ) -> Answer:
        text = passages[0].text if passages else "There are no documents."
        reason = None if passages else "no_documents"
        return Answer(text, (), tuple(passages), no_answer_reason=reason)


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    chatty = FakeModel("llama3.2:latest", architecture="llama", capabilities=["completion"])
    with FakeOllama(chatty) as fake:
        yield fake


@asynccontextmanager
async def open_answerer(url: str, *, model: str = "llama3.2") -> AsyncIterator[GeneratedAnswerer]:
    answerer = ollama_answerer(
        url=url,
        model=model,
        fallback=Quoting(),
        context_tokens=4096,
        answer_tokens=256,
        timeout_seconds=0.5,
    )
    yield answerer
    await answerer.aclose()


@pytest.fixture
async def answerer(ollama: FakeOllama) -> AsyncIterator[GeneratedAnswerer]:
    async with open_answerer(ollama.url) as answerer:
        yield answerer


async def test_an_answer_is_cited_and_its_citations_checked(
    ollama: FakeOllama, answerer: GeneratedAnswerer
) -> None:
    ollama.chats.append("It leaves at 07:40 [1]. A bicycle costs 9 crowns [2]. So they say [7].")
    answer = await answerer.answer("When does the ferry leave?", [FERRY, BIKES])
    assert answer.generator == "ollama:llama3.2"
    assert "[7]" not in answer.text
    assert [(c.marker, c.document_id, c.supported) for c in answer.citations] == [
        (1, "ferry", True),
        (2, "bikes", False),  # 9 is not 4
    ]
    assert answer.usage.prompt_tokens == 100 and answer.usage.completion_tokens == 20
    assert "[7]" in answer.warnings[0]


async def test_the_model_is_told_to_keep_to_the_passages(
    ollama: FakeOllama, answerer: GeneratedAnswerer
) -> None:
    ollama.chats.append("07:40 [1].")
    await answerer.answer("When does the ferry leave?", [FERRY])
    [(_, body)] = [call for call in ollama.requests if call[0] == "/api/chat"]
    assert [m["role"] for m in body["messages"]] == ["system", "user"]
    assert FERRY.text in body["messages"][1]["content"]
    assert body["options"]["temperature"] == 0.0
    assert body["options"]["num_ctx"] == 4096
    assert body["options"]["num_predict"] == 256


async def test_an_answer_without_a_source_is_no_answer(
    ollama: FakeOllama, answerer: GeneratedAnswerer
) -> None:
    ollama.chats.append("The passages do not say.")
    answer = await answerer.answer("Who built the ferry?", [FERRY])
    assert answer.no_answer_reason == "not_in_passages"


async def test_a_model_that_fails_is_replaced_by_the_passages(
    ollama: FakeOllama, answerer: GeneratedAnswerer
) -> None:
    ollama.fail(500, "llama runner process has terminated")
    answer = await answerer.answer("When does the ferry leave?", [FERRY])
    assert (answer.text, answer.generator) == (FERRY.text, "extractive")
    assert "llama runner" in answer.warnings[0]


async def test_a_model_that_hangs_is_replaced_by_the_passages(
    ollama: FakeOllama, answerer: GeneratedAnswerer
) -> None:
    ollama.hang(2.0)
    answer = await answerer.answer("When does the ferry leave?", [FERRY])
    assert answer.generator == "extractive"
    assert "did not answer" in answer.warnings[0]


async def test_a_missing_model_is_named(ollama: FakeOllama) -> None:
    async with open_answerer(ollama.url, model="gone") as answerer:
        answer = await answerer.answer("When?", [FERRY])
    assert answer.generator == "extractive"
    assert "gone" in answer.warnings[0]


async def test_a_server_that_is_away_is_replaced_by_the_passages() -> None:
    with socket.socket() as closed:  # bound and not listening: nobody answers there
        closed.bind(("127.0.0.1", 0))
        async with open_answerer(f"http://127.0.0.1:{closed.getsockname()[1]}") as answerer:
            answer = await answerer.answer("When does the ferry leave?", [FERRY])
    assert answer.generator == "extractive" and answer.warnings


async def test_nothing_is_asked_about_no_passages(
    ollama: FakeOllama, answerer: GeneratedAnswerer
) -> None:
    answer = await answerer.answer("When does the ferry leave?", [])
    assert answer.no_answer_reason == "no_documents"
    assert ollama.requests == []
