"""Other wordings, a reranker and joined neighbours over HTTP, and models of the library's user."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle
from pydantic import SecretStr

from apis import Api, code_of, leaving, running_api
from conftest import TestServer
from fakes.cross_encoder import write_counting_encoder
from fakes.ollama import Chat, FakeModel, FakeOllama
from ragcore import Rag
from ragcore.embedded import EmbeddedServers
from ragcore.errors import NotConfigured
from ragcore.settings import (
    ChunkingSettings,
    GenerationSettings,
    OllamaSettings,
    RerankSettings,
    SearchSettings,
    Settings,
)

FERRY = "On Sundays the last ferry of the day to the island of Elverin leaves the harbour at 21:40."
FARES = "A bicycle costs 4 crowns, and every dog travels free of charge all the year round."
WINTER = "From November to March no ferry leaves at all, since the sound is covered with ice then."
TIMETABLE = f"# Ferry\n\n{FERRY}\n\n{FARES}\n\n{WINTER}\n"
QUESTION = "When does the last ferry leave on Sundays?"


@pytest.fixture(scope="module")
def scripted() -> Iterator[FakeOllama]:
    names = ("llama3.2:latest", "marks:latest", "city-model:latest")
    models = [FakeModel(n, context_length=8192, capabilities=["completion"]) for n in names]
    with FakeOllama(*models) as fake:
        yield fake


@pytest.fixture
def ollama(scripted: FakeOllama) -> FakeOllama:
    scripted.forget()
    return scripted


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    scripted: FakeOllama,
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        chunking=ChunkingSettings(max_tokens=32),
        generation=GenerationSettings(provider="ollama", collection_models={"city": "city-model"}),
        ollama=OllamaSettings(url=scripted.url),
        search=SearchSettings(rewrites=2, merge_neighbours=True),
        rerank=RerankSettings(by="language_model", model="marks"),
    ) as api:
        api.ingest(TIMETABLE, document_id="ferry", filename="ferry.md", metadata={"year": 2025})
        api.ingest("The museum shows nets.", document_id="museum", metadata={"year": 2024})
        api.ingest("The key of the safe lies under the palm.", document_id="map",
                   collection="hidden")  # fmt: skip
        api.ingest("The tower of the city is 50 m high.", document_id="tower", collection="city")
        yield api


def asked_models(ollama: FakeOllama) -> list[str]:
    return [body["model"] for path, body in ollama.requests if path == "/api/chat"]


def post(api: Api, path: str, question: str = QUESTION, **body: Any) -> dict[str, Any]:
    answer = api.http.post(path, json={"question": question} | body)
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def test_a_search_asks_for_wordings_then_for_marks_and_explains_both(
    api: Api, ollama: FakeOllama
) -> None:
    ollama.chats.extend(["nets\nold nets in a museum", "1: 0\n2: 0\n3: 0\n4: 10"])
    found = post(api, "/search", explain=True, top_k=1)
    assert asked_models(ollama) == ["llama3.2", "marks"]
    (best,) = found["passages"]
    told = best["explanation"]
    assert (told["fused_rank"], told["reranked_rank"]) == (4, 1)
    assert told["reranked_score"] == best["score"]
    assert {"rewrite", "rerank"} <= set(found["timings_ms"])
    assert found["warnings"] == []


def test_a_citation_of_joined_chunks_points_into_one_of_them(api: Api, ollama: FakeOllama) -> None:
    ollama.chats.extend(
        ["departure", "1: 9\n2: 8\n3: 7", "No ferry leaves from November to March [1]."]
    )
    answer = post(api, "/query", "Does the ferry leave in winter?", filters={"year": 2025})
    (passage,) = answer["passages"]
    assert passage["text"] == f"{FERRY}\n\n{FARES}\n\n{WINTER}"
    (citation,) = answer["citations"]
    assert citation["quote"] == WINTER
    chunks = api.http.get("/documents/ferry/chunks").json()["chunks"]
    of = {chunk["chunk_id"]: chunk["text"] for chunk in chunks}
    assert of[citation["chunk_id"]][citation["start"] : citation["end"]] == WINTER
    assert passage["chunk_ids"] == [chunk["chunk_id"] for chunk in chunks]
    assert passage["chunk_id"] == passage["chunk_ids"][0] != citation["chunk_id"]


def test_filters_and_rights_hold_for_every_wording(api: Api, ollama: FakeOllama) -> None:
    key = api.key("query", collections=["default"])
    body = {"question": QUESTION, "filters": {"year": 2024}}
    ollama.chats.extend(["the key of the safe\nferry on Sundays", "1: 5"])
    found = httpx.post(f"{api.url}/search", json=body, headers=key, timeout=60).json()["passages"]
    assert [passage["document_id"] for passage in found] == ["museum"]
    ollama.requests.clear()
    body |= {"collection": "hidden"}
    refused = httpx.post(f"{api.url}/search", json=body, headers=key, timeout=60)
    assert code_of(refused) == "forbidden"
    assert ollama.requests == []


def test_no_language_model_is_asked_where_none_may_be(api: Api, ollama: FakeOllama) -> None:
    post(api, "/search", generate=False)
    assert post(api, "/query", generate=False)["generator"] == "extractive"
    assert asked_models(ollama) == []


def test_models_that_fail_cost_what_they_add_and_no_more(api: Api, ollama: FakeOllama) -> None:
    ollama.fail(500, "llama runner process has terminated", times=9)
    answer = post(api, "/query")
    assert "21:40" in answer["answer"] and answer["generator"] == "extractive"
    told = "\n".join(answer["warnings"])
    assert "in its own words only" in told and "were not reranked" in told


@pytest.mark.parametrize("said", [[], ["departure"]], ids=["rewriting", "reranking"])
def test_a_search_whose_caller_leaves_stops_the_model(
    api: Api, ollama: FakeOllama, said: list[str]
) -> None:
    ollama.chats.extend([*said, Chat("1:", ends="never")])
    with leaving(api, "/search", {"question": QUESTION}):
        ollama.is_waiting.wait()
    ollama.hung_up.wait()
    assert len(asked_models(ollama)) == len(said) + 1


def test_a_collection_has_a_model_of_its_own(api: Api, ollama: FakeOllama) -> None:
    ollama.chats.extend(["height", "1: 10", "It is 50 m high [1]."])
    answer = post(api, "/query", "How high is the tower?", collection="city")
    assert answer["generator"] == "ollama:city-model"
    assert asked_models(ollama) == ["city-model", "marks", "city-model"]
    ready = api.http.get("/health/ready").json()
    assert ready["dependencies"]["language_model"] == "ok"


# --- of the library's user -------------------------------------------------------------------


class Parrot(CustomLLM):
    """A LlamaIndex language model of somebody else's."""

    says: str = "The ferry leaves at 21:40 [1]."
    error: Exception | None = None

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="parrot")

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        return CompletionResponse(text=self.says)

    def stream_complete(
        self, prompt: str, formatted: bool = False, **_: Any
    ) -> CompletionResponseGen:
        if self.error is not None:
            raise self.error
        yield from (
            CompletionResponse(text=self.says[: end + 1], delta=letter)
            for end, letter in enumerate(self.says)
        )


class Backwards(BaseNodePostprocessor):
    """A LlamaIndex postprocessor of somebody else's."""

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return nodes[::-1]


@asynccontextmanager
async def opened(
    database_url: str, directory: Path, *, options: dict[str, Any] | None = None, **given: Any
) -> AsyncIterator[Rag]:
    settings = Settings(data_dir=directory, database_url=SecretStr(database_url), **(options or {}))
    async with Rag.open(settings, **given) as rag:
        await rag.ingest_text(FERRY, document_id="ferry")
        await rag.ingest_text("The museum shows nets.", document_id="museum")
        yield rag


async def test_any_llama_index_model_words_answers(database_url: str, tmp_path: Path) -> None:
    async with opened(database_url, tmp_path, llm=Parrot()) as rag:
        answer = await rag.ask(QUESTION)
        assert (answer.text, answer.generator) == (
            "The ferry leaves at 21:40 [1].",
            "custom_llm:parrot",
        )
        assert [citation.supported for citation in answer.citations] == [True]


@pytest.mark.parametrize("error", [RuntimeError("no key"), ConnectionAbortedError("gone")])
async def test_one_that_fails_in_its_own_way_costs_its_words_only(
    database_url: str, tmp_path: Path, error: Exception
) -> None:
    async with opened(database_url, tmp_path, llm=Parrot(error=error)) as rag:
        answer = await rag.ask(QUESTION)
    assert answer.generator == "extractive" and "21:40" in answer.text
    assert "custom_llm:parrot" in answer.warnings[0]


async def test_any_postprocessor_reranks_by_object_or_by_path(
    database_url: str, tmp_path: Path
) -> None:
    by_path = RerankSettings(by="postprocessor", postprocessor=f"{__name__}:Backwards")
    for options, given in (
        ({}, {"reranker": Backwards()}),
        ({"rerank": by_path}, {}),
    ):
        async with opened(database_url, tmp_path, options=options, **given) as rag:
            found = await rag.search(QUESTION, explain=True)
            assert [passage.document_id for passage in found] == ["museum", "ferry"]
            nodes = rag.retriever().retrieve(QUESTION)
            assert [node.metadata["document_id"] for node in nodes] == ["museum", "ferry"]
            assert rag.rerank(top_n=1).postprocess_nodes(nodes, query_str="?") == nodes[1:]


async def test_a_cross_encoder_reranks_where_no_language_model_may_be_asked(
    database_url: str, tmp_path: Path
) -> None:
    write_counting_encoder(tmp_path)
    encoder = RerankSettings(by="cross_encoder", directory=tmp_path)
    async with opened(database_url, tmp_path, options={"rerank": encoder}) as rag:
        found = await rag.search("What does the museum show, the ferry?", generate=False)
        assert [passage.document_id for passage in found] == ["ferry", "museum"]
        assert found[0].score > 0.5 > found[1].score
        answer = await rag.ask("What does the museum show, the ferry?", explain=True)
        assert answer.passages[0].explanation is not None
        assert answer.passages[0].explanation.reranked_rank == 1


async def test_what_takes_a_language_model_is_refused_without_one(
    database_url: str, tmp_path: Path
) -> None:
    for options in (
        {"search": SearchSettings(rewrites=1)},
        {"rerank": RerankSettings(by="language_model")},
        {"rerank": RerankSettings(by="cross_encoder")},
        {"rerank": RerankSettings(by="postprocessor")},
    ):
        with pytest.raises(NotConfigured, match="RAGCORE_"):
            async with opened(database_url, tmp_path, options=options):
                pass
    async with opened(database_url, tmp_path) as rag:
        with pytest.raises(NotConfigured, match="RAGCORE_RERANK__BY"):
            rag.rerank()
