"""The library with its embeddings behind Ollama: a fake server, everything else real."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from fakes.ollama import FakeOllama
from ragcore import Rag
from ragcore.model import Job
from ragcore.settings import ConversionSettings, EmbeddingSettings, OllamaSettings, Settings

POISON = "unspeakable"

TEXT = """# Timetable

The ferry Aurora leaves Norvik at 07:40.

# Fares

A bicycle costs 4 crowns.
"""


@pytest.fixture
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


@pytest.fixture
def other() -> Iterator[FakeOllama]:
    with FakeOllama() as server:
        yield server


@pytest.fixture
def settings(database_url: str, tmp_path: Path, ollama: FakeOllama) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=SecretStr(database_url),
        conversion=ConversionSettings(processes=1),
        embedding=EmbeddingSettings(provider="ollama"),
        ollama=OllamaSettings(url=ollama.url),
    )


async def test_documents_and_questions_go_through_ollama(
    settings: Settings, ollama: FakeOllama
) -> None:
    async with Rag.open(settings) as rag:
        job = await rag.ingest_text(TEXT, document_id="timetable")
        ollama.fail(503, "server busy, please try again")
        found = await rag.search("When does the ferry leave?", mode="vector")
    assert (job.status, job.error) == ("succeeded", None)
    assert "07:40" in found[0].text
    assert ollama.embedded[-1] == "search_query: When does the ferry leave?"
    assert all(t.startswith(("search_document: ", "search_query: ")) for t in ollama.embedded)


POISONED = "# Notes\n\n" + "\n\n".join(
    f"# Part {number}\n\nThe lamp of pier {number} is {'green' if number != 4 else POISON}."
    for number in range(8)
)


async def test_a_text_that_the_model_can_not_embed_costs_no_other(
    settings: Settings, ollama: FakeOllama
) -> None:
    ollama.poison = POISON
    async with Rag.open(settings) as rag:
        job = await rag.ingest_text(POISONED, document_id="lamps")
        found = await rag.search("Which colour has the lamp of pier 7?", mode="vector", top_k=1)
        by_words = await rag.search("unspeakable", mode="keyword", top_k=1)
    assert (job.status, job.error) == ("succeeded", None)
    assert "pier 7" in found[0].text
    assert POISON in by_words[0].text
    assert any("refused a text" in warning for warning in job.warnings)


async def test_an_address_that_dies_costs_no_document_and_no_question(
    settings: Settings, ollama: FakeOllama, other: FakeOllama
) -> None:
    both = OllamaSettings(urls=(ollama.url, other.url), pause_seconds=60)
    async with Rag.open(settings.model_copy(update={"ollama": both})) as rag:
        other.faults["reset"] = 1.0
        jobs = [
            await rag.ingest_text(f"The ferry number {n} leaves at {n}:40.", document_id=str(n))
            for n in range(6)
        ]
        found = await rag.search("When does ferry number 3 leave?", mode="vector")
    assert {job.status for job in jobs} == {"succeeded"}
    assert found


async def test_a_document_whose_model_is_missing_waits_for_it(
    settings: Settings, ollama: FakeOllama
) -> None:
    async with Rag.open(settings) as rag:
        models, ollama.models = ollama.models, []

        def pull(job: Job) -> None:
            if job.attempts > 1:  # it was put back, and is tried again
                ollama.models = models

        job = await rag.ingest_text(TEXT, document_id="timetable", on_progress=pull)
    assert (job.status, job.attempts) == ("succeeded", 2)
