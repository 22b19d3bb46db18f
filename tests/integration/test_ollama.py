"""The library with its embeddings behind Ollama: a fake server, everything else real."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from fakes.ollama import FakeOllama
from ragcore import Rag
from ragcore.settings import ConversionSettings, EmbeddingSettings, OllamaSettings, Settings

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
