"""A question through the running API, answered by a real, small language model."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from apis import Api, running_api
from conftest import TestServer
from fakes.ollama import FakeModel, FakeOllama
from ragcore.embedded import EmbeddedServers
from ragcore.settings import GenerationSettings, OllamaSettings

pytestmark = pytest.mark.skipif(
    "RAGCORE_TEST_MODEL" not in os.environ, reason="needs a model; `make test-model` runs it"
)


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    from fakes.smollm import SmolLM

    model = FakeModel(
        "smollm2:135m", architecture="llama", context_length=2048, capabilities=["completion"]
    )
    with FakeOllama(model, language_model=SmolLM()) as fake:
        yield fake


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    ollama: FakeOllama,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    prompts: Path = tmp_path_factory.mktemp("prompts")
    # A model of this size follows one instruction, not five.
    (prompts / "answer.en.md").write_text("Answer the question from the text. {boundary}")
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        generation=GenerationSettings(
            provider="ollama",
            model="smollm2:135m",
            prompts_dir=prompts,
            context_tokens=2048,
            answer_tokens=128,
        ),
        ollama=OllamaSettings(url=ollama.url),
    ) as api:
        api.ingest("The ferry Aurora leaves at 07:40 from pier nine.", document_id="ferry")
        yield api


def test_a_question_is_answered_in_the_words_of_a_real_model(api: Api, ollama: FakeOllama) -> None:
    asked = {"question": "When does the ferry Aurora leave?"}
    answer = api.http.post("/query", json=asked).json()
    assert answer["generator"] == "ollama:smollm2:135m", answer
    assert "07:40" in answer["answer"]
    assert len(ollama.asked) == 1


def test_its_words_are_streamed_as_it_writes_them(api: Api) -> None:
    asked = {"question": "When does the ferry Aurora leave?", "stream": True}
    answer = api.http.post("/query", json=asked).text
    assert answer.count("event: token") > 3
    assert "event: done" in answer
