"""`/v1` of a running API, by OpenAI's own client."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import openai
import pytest

from apis import ADMIN, Api, running_api
from conftest import TestServer
from fakes.ollama import Chat, FakeModel, FakeOllama
from ragcore.embedded import EmbeddedServers
from ragcore.settings import GenerationSettings, OllamaSettings

FERRY = "On Sundays the last ferry leaves at 21:40. The lighthouse was built in 1874."
QUESTION = "When does the last ferry leave on Sundays?"
MESSAGES: list[Any] = [
    {"role": "system", "content": "You are a pirate."},
    {"role": "user", "content": "When was the lighthouse built?"},
    {"role": "assistant", "content": "In 1874."},
    {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
]


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        api.ingest(FERRY, document_id="ferry", title="Winter\n timetable")
        api.ingest("Паром на Вегу уходит в полдень.", document_id="parom", title="Расписание")
        api.ingest("The treasure lies under the palm.", collection="hidden", document_id="map")
        yield api


@pytest.fixture(scope="module")
def client(api: Api) -> Iterator[openai.OpenAI]:
    with client_of(api, ADMIN) as client:
        yield client


@contextmanager
def client_of(api: Api, key: str, **options: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{api.url}/v1", api_key=key, max_retries=0, **options) as client:
        yield client


def limited_key(api: Api, *scopes: str, **options: Any) -> str:
    return api.key(*scopes, **options)["Authorization"].removeprefix("Bearer ")


# --- models --------------------------------------------------------------------------------


def test_each_collection_is_a_model(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [model.id for model in models] == ["ragcore/default", "ragcore/hidden"]
    assert client.models.retrieve("ragcore/hidden") == models[1]
    assert models[0].created > 1_700_000_000


def test_a_key_sees_the_models_of_its_collections(api: Api) -> None:
    key = limited_key(api, "query", collections=["default"])
    with client_of(api, key) as client:
        assert [model.id for model in client.models.list()] == ["ragcore/default"]
        with pytest.raises(openai.PermissionDeniedError, match="hidden"):
            client.models.retrieve("ragcore/hidden")
        for model in ("ragcore/hidden", "ragcore/nothing-there"):
            with pytest.raises(openai.PermissionDeniedError):
                client.chat.completions.create(model=model, messages=MESSAGES)
            with pytest.raises(openai.PermissionDeniedError):
                client.embeddings.create(model=model, input="treasure")


# --- chat ----------------------------------------------------------------------------------


def test_the_last_message_of_the_user_is_answered_with_its_sources(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="ragcore/default", messages=MESSAGES)
    (choice,) = completion.choices
    assert choice.finish_reason == "stop"
    answer, _, sources = (choice.message.content or "").partition("\n\nSources:\n")
    assert "21:40" in answer
    assert "[1]" in answer
    assert sources.splitlines()[0] == "- [1] Winter timetable"
    assert completion.model == "ragcore/default"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 0  # no language model was asked


def test_words_around_a_russian_answer_are_russian(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="ragcore/default",
        messages=[{"role": "user", "content": "Когда уходит паром на Вегу?"}],
    )
    content = completion.choices[0].message.content or ""
    assert "Источники:\n- [1] Расписание" in content


def test_what_clients_send_besides_is_left_alone(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="ragcore/default",
        messages=MESSAGES,
        temperature=0.2,
        max_tokens=5,
        n=1,
        stop=["ferry"],
        user="anna",
        tools=[{"type": "function", "function": {"name": "look", "parameters": {}}}],
        tool_choice="auto",
        response_format={"type": "text"},
        extra_body={"never_heard_of": {"a": 1}},
    )
    assert "21:40" in (completion.choices[0].message.content or "")
    assert completion.choices[0].message.tool_calls is None


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 2}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "?"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "content": "?"}]}, None),
        ({"messages": [{"role": "user", "content": " "}]}, None),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, None),
        ({"extra_body": {"stream": "yes"}}, "stream"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    client: openai.OpenAI, options: dict[str, Any], param: str | None
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(
            **{"model": "ragcore/default", "messages": MESSAGES} | options
        )
    assert (refused.value.code, refused.value.param) == ("invalid_input", param)
    assert refused.value.type == "invalid_request_error"


def test_a_stream_is_the_answer_in_pieces(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="ragcore/default", messages=MESSAGES)
    with client.chat.completions.create(
        model="ragcore/default", messages=MESSAGES, stream=True
    ) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.usage is None for chunk in chunks)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "stop"]
    assert len({chunk.id for chunk in chunks}) == 1
    assert len(chunks) > 5


def test_a_stream_tells_its_usage_when_asked_to(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="ragcore/default",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        *_, end, usage = list(stream)
    assert end.choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage is not None


def lines_of(api: Api, **headers: str) -> list[str]:
    answer = api.http.post(
        "/v1/chat/completions",
        json={"model": "ragcore/default", "messages": MESSAGES, "stream": True},
        headers=headers,
    )
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]


def test_a_stream_of_plain_clients_has_chunks_only(api: Api) -> None:
    *chunks, done = lines_of(api)
    assert done == "[DONE]"
    for chunk in map(json.loads, chunks):
        assert chunk["object"] == "chat.completion.chunk"
        assert len(chunk["choices"]) == 1
        assert "usage" not in chunk


def test_open_webui_is_told_sources_and_states_as_events(api: Api) -> None:
    *lines, done = lines_of(api, **{"X-OpenWebUI-User-Id": "anna"})
    assert done == "[DONE]"
    sent = [json.loads(line) for line in lines]
    events = [line["event"] for line in sent if "event" in line]
    assert [event["type"] for event in events[:2]] == ["status", "source"]
    assert sent[0] == {"event": events[0]}
    assert events[0]["data"]["done"] is True
    source = events[1]["data"]
    assert source["source"]["name"] == "1. Winter timetable"
    assert len(source["document"]) == len(source["metadata"]) == len(source["distances"]) == 1
    assert "21:40" in source["document"][0]
    pieces = [line["choices"][0]["delta"].get("content", "") for line in sent if "choices" in line]
    assert "Sources" not in "".join(pieces)


# --- with a language model -----------------------------------------------------------------


@pytest.fixture(scope="module")
def scripted() -> Iterator[FakeOllama]:
    with FakeOllama(FakeModel("llama3.2:latest", architecture="llama")) as fake:
        yield fake


@pytest.fixture(scope="module")
def worded(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    scripted: FakeOllama,
) -> Iterator[openai.OpenAI]:
    """A client of an API whose answers are worded by the scripted model."""
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        generation=GenerationSettings(provider="ollama", context_tokens=2048, answer_tokens=512),
        ollama=OllamaSettings(url=scripted.url),
    ) as api:
        api.ingest(FERRY, document_id="ferry", title="Winter timetable")
        with client_of(api, ADMIN) as client:
            yield client


def test_a_follow_up_is_understood_by_the_turns_before_it(
    worded: openai.OpenAI, scripted: FakeOllama
) -> None:
    scripted.requests.clear()
    meant = "When was the lighthouse built?"
    scripted.chats.extend([meant, "The lighthouse was built in 1874 [1]."])
    completion = worded.chat.completions.create(
        model="ragcore/default",
        messages=[
            {"role": "system", "content": "You are a pirate."},
            {"role": "user", "content": QUESTION},
            {"role": "assistant", "content": "At 21:40 [1].\n\nSources:\n- [1] Winter timetable"},
            {"role": "user", "content": "And the lighthouse?"},
        ],
    )
    assert (completion.choices[0].message.content or "").startswith("The lighthouse was built in")
    assert completion.usage is not None
    usage = completion.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    _, answering = scripted.asked
    assert answering[-1]["content"].endswith(meant)
    assert [message["content"] for message in answering[1:-1]] == [QUESTION, "At 21:40."]


def test_an_answer_that_breaks_off_is_followed_by_another(
    worded: openai.OpenAI, scripted: FakeOllama
) -> None:
    scripted.chats.append(Chat("The last ferry leaves at noon, they say", ends="cut"))
    with worded.chat.completions.create(
        model="ragcore/default",
        messages=[{"role": "user", "content": QUESTION}],
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    begun, _, rest = text.partition("\n\n")
    assert begun.startswith("The last ferry")
    assert rest.startswith("On Sundays the last ferry leaves at 21:40.")
    assert rest.endswith("Sources:\n- [1] Winter timetable")
    assert chunks[-2].choices[0].finish_reason == "stop"


# --- embeddings ----------------------------------------------------------------------------


def test_texts_are_embedded_by_the_model_of_the_collection(api: Api, client: openai.OpenAI) -> None:
    texts = ["the last ferry", "the lighthouse"]
    made = client.embeddings.create(
        model="ragcore/default", input=texts, encoding_format="float", dimensions=384
    )
    assert [each.index for each in made.data] == [0, 1]
    known = api.runner.run(api.rag.runtime.model.embed_documents(texts))
    assert np.allclose([each.embedding for each in made.data], known, atol=1e-5)
    assert made.usage.prompt_tokens > 4
    # The client asks for base64 when it is told nothing, and decodes it.
    (alone,) = client.embeddings.create(model="ragcore/default", input=texts[0]).data
    assert np.allclose(alone.embedding, known[0], atol=1e-5)


def test_base64_holds_little_endian_floats(api: Api) -> None:
    body = {"model": "ragcore/default", "input": "ferry", "encoding_format": "base64"}
    answer = api.http.post("/v1/embeddings", json=body).json()
    vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), dtype="<f4")
    assert vector.shape == (384,)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_questions_are_embedded_as_such(api: Api, client: openai.OpenAI) -> None:
    (made,) = client.embeddings.create(
        model="ragcore/default", input=QUESTION, extra_body={"input_type": "query"}
    ).data
    known = api.runner.run(api.rag.runtime.model.embed_query(QUESTION))
    assert np.allclose(made.embedding, known, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"input": []},
        {"input": ""},
        {"input": ["ferry", ""]},
        {"input": [1, 2, 3]},
        {"input": ["ferry"] * 2049},
        {"input": ["ferry " * 10_000] * 10},
        {"input": "ferry", "dimensions": 12},
        {"input": "ferry", "encoding_format": "hex"},
    ],
)
def test_input_out_of_bounds_is_refused(client: openai.OpenAI, options: dict[str, Any]) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.embeddings.create(model="ragcore/default", **options)
    assert refused.value.code == "invalid_input"


# --- errors --------------------------------------------------------------------------------


def test_errors_are_those_of_the_client(api: Api, client: openai.OpenAI) -> None:
    for model in ("gpt-4o", "ragcore/nothing-there", "ragcore/NO"):
        with pytest.raises(openai.NotFoundError) as unknown:
            client.chat.completions.create(model=model, messages=MESSAGES)
        assert unknown.value.code == "collection_not_found"
    with client_of(api, "rk_wrong") as stranger, pytest.raises(openai.AuthenticationError) as wrong:
        stranger.models.list()
    assert (wrong.value.code, wrong.value.type) == ("unauthenticated", "authentication_error")
    with (
        client_of(api, limited_key(api, "ingest")) as writer,
        pytest.raises(openai.PermissionDeniedError) as forbidden,
    ):
        writer.chat.completions.create(model="ragcore/default", messages=MESSAGES)
    assert (forbidden.value.code, forbidden.value.type) == ("forbidden", "permission_error")


def test_a_limit_is_the_clients_own_error(api: Api) -> None:
    with client_of(api, limited_key(api, "query", requests_per_minute=1)) as client:
        client.models.list()
        with pytest.raises(openai.RateLimitError) as limited:
            client.models.list()
    assert (limited.value.code, limited.value.type) == ("rate_limited", "rate_limit_error")
    assert int(limited.value.response.headers["Retry-After"]) > 0


def test_what_the_framework_refuses_has_the_shape_too(api: Api) -> None:
    large = b'{"model": "' + b"x" * (5 * 2**20) + b'"}'
    answers = {
        "not_found": api.http.get("/v1/nothing"),
        "method_not_allowed": api.http.get("/v1/embeddings"),
        "body_too_large": api.http.post("/v1/embeddings", content=large),
        "invalid_input": api.http.post("/v1/embeddings", content=b"{"),
    }
    for code, answer in answers.items():
        assert answer.headers["content-type"] == "application/json"
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == code
