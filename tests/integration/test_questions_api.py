"""Questions as callers of the running API ask them, at once and as a stream."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from apis import Api, code_of, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers

QUESTION = "When does the last ferry to Elverin leave on Sundays?"


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        api.ingest(
            "On Sundays the last ferry to Elverin leaves at 21:40. Dogs travel free of charge.",
            document_id="ferry",
            metadata={"year": 2026},
        )
        api.ingest("По воскресеньям паром на Эльверин ходит дважды.", document_id="parom")
        api.ingest("The museum of the harbour is closed on Mondays.", document_id="museum",
                   collection="city")  # fmt: skip
        yield api


def ask(api: Api, path: str = "/query", **body: Any) -> httpx.Response:
    return api.http.post(path, json={"question": QUESTION} | body)


# --- at once -------------------------------------------------------------------------------


def test_passages_are_found_with_where_they_stand(api: Api) -> None:
    found = ask(api, "/search", top_k=1).json()
    (passage,) = found["passages"]
    assert (passage["document_id"], passage["collection"]) == ("ferry", "default")
    assert passage["metadata"] == {"year": 2026}
    assert 0 < passage["score"] <= 1
    assert passage["explanation"] is None
    assert {"embed", "retrieve"} <= found["timings_ms"].keys()


def test_an_answer_is_cited(api: Api) -> None:
    answer = ask(api).json()
    assert "21:40" in answer["answer"]
    assert answer["no_answer_reason"] is None
    assert answer["generator"] == "extractive"
    citation = answer["citations"][0]
    (cited,) = [p for p in answer["passages"] if p["chunk_id"] == citation["chunk_id"]]
    assert cited["text"][citation["start"] : citation["end"]] == citation["quote"]
    assert citation["supported"] is True
    assert {"embed", "retrieve", "generate"} <= answer["timings_ms"].keys()


def test_ranks_are_explained_when_asked(api: Api) -> None:
    explained = ask(api, "/search", explain=True).json()["passages"][0]["explanation"]
    assert explained["vector_rank"] == explained["keyword_rank"] == explained["fused_rank"] == 1
    assert "ferri" in explained["matched"]


def test_several_collections_are_asked_at_once(api: Api) -> None:
    found = ask(api, "/search", collection=["default", "city"]).json()["passages"]
    assert {passage["collection"] for passage in found} == {"default", "city"}


def test_filters_and_modes_are_obeyed(api: Api) -> None:
    for mode in ("vector", "keyword", "hybrid"):
        found = ask(api, "/search", mode=mode, filters={"year": {"$gte": 2026}}).json()
        assert [passage["document_id"] for passage in found["passages"]] == ["ferry"]


def test_where_nothing_is_there_is_no_answer(api: Api) -> None:
    nothing = ask(api, filters={"year": 1900}).json()
    assert (nothing["no_answer_reason"], nothing["citations"]) == ("no_documents", [])
    assert nothing["answer"]


def test_a_history_is_taken_and_said_not_to_be_read(api: Api) -> None:
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Yes?"}]
    for path in ("/query", "/search"):
        (warning,) = ask(api, path, history=history).json()["warnings"]
        assert "history" in warning


@pytest.mark.parametrize(
    "body",
    [{"question": ""}, {"question": " \n"}, {"question": "\0"}, {"top_k": 0}, {"top_k": 101},
     {"mode": "magic"}, {"collection": []}, {"collection": "NO"}, {"filters": []},
     {"history": [{"role": "robot", "content": "x"}]}, {"surprise": 1},
     {"question": "\ud800"}],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/query", "/search"])
def test_a_question_that_can_not_be_meant_is_refused(
    api: Api, path: str, body: dict[str, Any]
) -> None:
    content = json.dumps({"question": QUESTION} | body)
    answer = api.http.post(path, content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, code_of(answer)) == (422, "invalid_input")


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_of_many_megabytes_is_not_read(api: Api, announced: bool) -> None:
    body = json.dumps({"question": "?" * 5_000_000}).encode()
    content = body if announced else iter([body[:1_000_000], body[1_000_000:]])
    answer = api.http.post("/query", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, code_of(answer)) == (413, "body_too_large")


def test_refusals_name_what_is_wrong(api: Api) -> None:
    assert code_of(ask(api, filters={"year": {"$near": 1}})) == "invalid_filter"
    for stream in (False, True):
        nowhere = ask(api, collection="nowhere", stream=stream)
        assert (nowhere.status_code, code_of(nowhere)) == (404, "collection_not_found")


def test_each_collection_is_checked_against_the_key(api: Api) -> None:
    key = {"X-API-Key": "", **api.key("query", collections=["city"])}
    for path in ("/query", "/search"):
        body: dict[str, Any] = {"question": QUESTION, "collection": "city"}
        assert api.http.post(path, json=body, headers=key).status_code == 200
        for names in (None, "default", "nowhere", ["city", "default"]):
            refused = api.http.post(path, json=body | {"collection": names}, headers=key)
            assert (refused.status_code, code_of(refused)) == (403, "forbidden")


def test_a_key_that_only_takes_documents_in_does_not_ask(api: Api) -> None:
    key = {"X-API-Key": "", **api.key("ingest")}
    assert code_of(api.http.post("/query", json={"question": "?"}, headers=key)) == "forbidden"


# --- as a stream ---------------------------------------------------------------------------


def events_of(answer: httpx.Response) -> list[tuple[str, Any]]:
    events = []
    for block in answer.text.replace("\r\n", "\n").strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        events.append((fields["event"], json.loads(fields["data"])))
    return events


def test_a_streamed_answer_comes_in_order_and_ends_as_the_whole(api: Api) -> None:
    answer = ask(api, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer)
    names = [name for name, _ in events]
    tokens = names.count("token")
    assert tokens > 3
    assert names == ["passages", *["token"] * tokens, "citations", "done"]
    whole = events[-1][1]
    plain = ask(api).json()
    assert whole | {"timings_ms": {}} == plain | {"timings_ms": {}}
    assert "".join(data["text"] for name, data in events if name == "token") == whole["answer"]
    assert events[0][1]["passages"] == whole["passages"]
    assert events[-2][1]["citations"] == whole["citations"]


def test_why_there_is_no_answer_is_streamed_too(api: Api) -> None:
    events = events_of(ask(api, stream=True, filters={"year": 1900}))
    assert events[0] == ("passages", {"passages": []})
    assert events[-1][1]["no_answer_reason"] == "no_documents"


def test_a_caller_may_hang_up_in_the_middle(api: Api) -> None:
    body = {"question": QUESTION, "stream": True}
    with api.http.stream("POST", "/query", json=body) as answer:
        next(answer.iter_lines())
    assert ask(api).status_code == 200
