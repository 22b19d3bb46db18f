"""Traces of a running stack: the API's questions and the worker's jobs, and feedback on answers."""

import json
from collections.abc import Iterator

import httpx
import pytest

from apis import Api, code_of, running_api
from conftest import TestServer
from fakes.langfuse import PUBLIC_KEY, SECRET_KEY, FakeLangfuse, Span
from ragcore.embedded import EmbeddedServers
from ragcore.settings import LangfuseSettings, Settings

QUESTION = "When does the last ferry to Elverin leave on Sundays?"
WEB_UI = {"X-OpenWebUI-User-Id": "5f1d8c02", "X-OpenWebUI-Chat-Id": "chat%2D9"}

pytestmark = pytest.mark.filterwarnings("ignore::pydantic.PydanticDeprecatedSince20")


@pytest.fixture(scope="module")
def langfuse() -> Iterator[FakeLangfuse]:
    with FakeLangfuse() as fake:
        yield fake


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    langfuse: FakeLangfuse,
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        langfuse=LangfuseSettings(
            url=langfuse.url,
            public_key=PUBLIC_KEY,
            secret_key=SECRET_KEY,  # type: ignore[arg-type]  # pydantic makes it a secret
        ),
    ) as api:
        api.ingest(
            "On Sundays the last ferry to Elverin leaves at 21:40. Dogs travel free of charge.",
            document_id="ferry",
        )
        yield api


@pytest.fixture(scope="module")
def key(api: Api) -> dict[str, str]:
    return dict(api.key("query"))


def ask(api: Api, key: dict[str, str], **body: object) -> dict[str, object]:
    answer = api.http.post("/query", json={"question": QUESTION} | body, headers=only(key))
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def only(key: dict[str, str]) -> dict[str, str]:
    """Show this key and not the administrator's."""
    return key | {"X-API-Key": key["Authorization"].removeprefix("Bearer ")}


def root_of(langfuse: FakeLangfuse, trace_id: object) -> Span:
    assert isinstance(trace_id, str)
    return next(span for span in langfuse.trace(trace_id, root="question") if not span.parent_id)


def asked(langfuse: FakeLangfuse, question: str) -> Span:
    """Return the root of the trace of a question, when it has come."""

    def found() -> list[Span]:
        asked = "langfuse.observation.input"
        return [span for span in langfuse.spans if span.attributes.get(asked) == question]

    langfuse.wait_for(lambda: bool(found()))
    return found()[0]


def test_an_answer_names_its_trace_which_tells_of_key_user_and_session(
    api: Api, key: dict[str, str], langfuse: FakeLangfuse
) -> None:
    mine = root_of(langfuse, ask(api, key)["trace_id"])
    assert mine["user.id"] == "test" and "session.id" not in mine.attributes
    named = root_of(langfuse, ask(api, key, user="Анна", session="chat-7")["trace_id"])
    assert (named["user.id"], named["session.id"]) == ("Анна", "chat-7")
    assert named["langfuse.trace.metadata.key"] == '"test"'
    forwarded = root_of(langfuse, ask(api, key | WEB_UI)["trace_id"])
    assert (forwarded["user.id"], forwarded["session.id"]) == ("5f1d8c02", "chat-9")
    sent = b"\n".join(langfuse.bodies)
    assert key["Authorization"].removeprefix("Bearer ").encode() not in sent
    for secret in api.settings.secrets():
        assert secret.encode() not in sent


def test_a_streamed_answer_names_its_trace_when_it_is_done(
    api: Api, key: dict[str, str], langfuse: FakeLangfuse
) -> None:
    stream = api.http.post(
        "/query", json={"question": QUESTION, "stream": True}, headers=only(key)
    ).text
    done = json.loads(stream.rpartition("event: done")[2].partition("data: ")[2].splitlines()[0])
    spans = langfuse.trace(done["trace_id"], root="question")
    (root,) = (span for span in spans if not span.parent_id)
    assert root["langfuse.observation.output"] == done["answer"]
    (retrieval,) = (span for span in spans if span.name == "RagRetriever.aretrieve")
    assert retrieval.metadata("passages")[0]["document_id"] == "ferry"
    assert retrieval["retrieval.documents.0.document.score"] == done["passages"][0]["score"]


def test_openai_clients_get_the_trace_with_the_answer_or_its_last_piece(
    api: Api, key: dict[str, str], langfuse: FakeLangfuse
) -> None:
    asked = {
        "model": "ragcore/default",
        "messages": [{"role": "user", "content": QUESTION}],
        "user": "u-1",
    }
    whole = api.http.post("/v1/chat/completions", json=asked, headers=only(key)).json()
    assert root_of(langfuse, whole["trace_id"])["user.id"] == "u-1"
    stream = api.http.post(
        "/v1/chat/completions", json=asked | {"stream": True}, headers=only(key)
    ).text
    pieces = [json.loads(line[6:]) for line in stream.splitlines()
              if line.startswith("data: {")]  # fmt: skip
    (traced,) = (piece for piece in pieces if "trace_id" in piece)
    assert traced["choices"][0]["finish_reason"] == "stop"
    assert root_of(langfuse, traced["trace_id"])["user.id"] == "u-1"


def test_a_question_that_fails_is_traced_as_an_error(
    api: Api, key: dict[str, str], langfuse: FakeLangfuse
) -> None:
    answer = api.http.post(
        "/query", json={"question": "What of nothing?", "collection": "none"}, headers=only(key)
    )
    assert code_of(answer) == "collection_not_found"

    root = asked(langfuse, "What of nothing?")
    assert root["langfuse.observation.level"] == "ERROR"
    assert "CollectionNotFound" in root["langfuse.observation.status_message"]


def test_an_ingested_document_is_a_trace_of_its_stages_with_no_word_of_it(
    api: Api, langfuse: FakeLangfuse
) -> None:
    job = api.ingest("The archivist Mirabel keeps the keys.", document_id="keys")

    def roots() -> list[Span]:
        return [s for s in langfuse.spans if s.name == "document"
                and s.metadata("job_id") == str(job.job_id)]  # fmt: skip

    langfuse.wait_for(lambda: bool(roots()))
    (root,) = roots()
    assert root["langfuse.trace.metadata.document_id"] == '"keys"'
    assert root["langfuse.trace.metadata.collection"] == '"default"'
    assert (root.metadata("status"), root.metadata("outcome")) == ("succeeded", "created")
    assert root.metadata("chunks") == 1 and root.metadata("timings_ms")["convert"] > 0
    stages = [span.name for span in langfuse.spans if span.parent_id == root.span_id]
    for stage in ("fetching", "converting", "chunking", "embedding", "storing"):
        assert stages.count(stage) == 1, stages
    assert b"Mirabel" not in b"".join(langfuse.bodies)


# --- feedback --------------------------------------------------------------------------------


def test_feedback_becomes_a_score_on_the_trace_of_the_answer(
    api: Api, key: dict[str, str], langfuse: FakeLangfuse
) -> None:
    trace_id = ask(api, key)["trace_id"]
    given = {"trace_id": trace_id, "score": 0, "comment": "Wrong page"}
    other = dict(api.key("query"))
    for shown, body in ((key, given), (key, given | {"score": 1}), (other, given)):
        answer = api.http.post("/feedback", json=body, headers=only(shown))
        assert answer.status_code == 202, answer.text

    def scores() -> list[dict[str, object]]:
        return [score for score in langfuse.scores if score["traceId"] == trace_id]

    langfuse.wait_for(lambda: len(scores()) == 3)
    first, second, others = scores()
    assert [score["value"] for score in scores()] == [0, 1, 0]
    assert first["id"] == second["id"] != others["id"]
    assert first["timestamp"] == second["timestamp"]


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"trace_id": "0" * 32}, 404, "trace_not_found"),
        ({"trace_id": "not-an-id"}, 422, "invalid_input"),
        ({"score": 1.5}, 422, "invalid_input"),
        ({"score": "NaN"}, 422, "invalid_input"),
        ({"comment": "x" * 2001}, 422, "invalid_input"),
        ({"who": "me"}, 422, "invalid_input"),
    ],
)
def test_feedback_that_can_not_be_meant_is_refused(
    api: Api, key: dict[str, str], change: dict[str, object], status: int, code: str
) -> None:
    body = {"trace_id": ask(api, key)["trace_id"], "score": 1} | change
    answer = api.http.post("/feedback", json=body, headers=only(key))
    assert (answer.status_code, code_of(answer)) == (status, code)


def test_feedback_takes_a_key_that_may_ask(api: Api) -> None:
    answer = api.http.post(
        "/feedback", json={"trace_id": "0" * 32, "score": 1}, headers=only(dict(api.key("ingest")))
    )
    assert code_of(answer) == "forbidden"


def test_without_langfuse_answers_have_no_trace_and_feedback_says_why(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> None:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        answer = api.http.post("/query", json={"question": QUESTION})
        assert answer.json()["trace_id"] is None
        refused = api.http.post("/feedback", json={"trace_id": "0" * 32, "score": 1})
        assert (refused.status_code, code_of(refused)) == (409, "tracing_off")
        assert "RAGCORE_LANGFUSE__SECRET_KEY" in refused.json()["detail"]


def test_a_langfuse_that_is_away_is_a_note_of_the_doctors_and_wrong_keys_a_problem() -> None:
    import asyncio

    from ragcore.cli.doctor import _answer, _traces

    def found(url: str) -> tuple[str, str]:
        settings = Settings(
            langfuse=LangfuseSettings(
                url=url,
                public_key=PUBLIC_KEY,
                secret_key=SECRET_KEY,  # type: ignore[arg-type]
            )
        )
        finding = asyncio.run(_answer("traces", _traces(settings)))
        return finding.state, f"{finding.found} {finding.advice}"

    with FakeLangfuse() as langfuse:
        assert found(langfuse.url)[0] == "ok" and "'tests'" in found(langfuse.url)[1]
        langfuse.status = 401
        assert found(langfuse.url)[0] == "problem" and "keys" in found(langfuse.url)[1]
        langfuse.status = 500
        assert found(langfuse.url)[0] == "note"
    assert found("http://127.0.0.1:1")[0] == "note"


def test_a_client_that_leaves_in_the_middle_leaves_a_trace_that_says_so(
    api: Api, key: dict[str, str], langfuse: FakeLangfuse
) -> None:
    with httpx.Client(base_url=api.url, headers=only(key), timeout=60) as http:
        body = {"question": "Which ferry is left?", "stream": True}
        with http.stream("POST", "/query", json=body) as stream:
            next(stream.iter_bytes())

    root = asked(langfuse, "Which ferry is left?")
    assert root.attributes.get("langfuse.observation.output") or (
        root["langfuse.observation.status_message"] == "given up before the end"
    )
