"""A collection moved to another model or chunker, as callers of the running API see it."""

from collections.abc import Iterator, Mapping
from typing import Any

import httpx
import psycopg
import pytest

from apis import Api, code_of, running_api
from conftest import TestServer
from fakes.ollama import FakeModel, FakeOllama
from ragcore.embedded import EmbeddedServers

OTHER_MODEL = "ollama:nomic-embed-text-v2-moe:latest"
TEXTS = {
    "ferry": "# Ferries\n\nThe ferry to Vega leaves at noon.\n\nIt does not run on Sundays.",
    "cheese": "# Cheese\n\nBrown cheese is boiled for nine hours.",
    "маяк": "# Маяки\n\nМаяк на острове зажгли в 1871 году.\n\nСмотритель жил там с семьёй.",
}


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    with FakeOllama(FakeModel("nomic-embed-text-v2-moe:latest")) as server:
        yield server


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    ollama: FakeOllama,
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        ollama={"url": ollama.url},
    ) as api:
        yield api


@pytest.fixture
def collection(api: Api, request: pytest.FixtureRequest) -> str:
    """A collection of the test's own with a few documents."""
    name = request.node.name.removeprefix("test_")[:48]
    for number, text in enumerate(TEXTS.values()):
        api.ingest(text, document_id=f"d{number}", filename="a.md", collection=name)
    return name


def do_waiting(api: Api) -> None:
    """What a worker does every second."""
    api.runner.run(api.rag.runtime.reindex.do_waiting())


def started(api: Api, collection: str, **wanted: Any) -> Mapping[str, Any]:
    answer = api.http.post(f"/collections/{collection}/reindex", json=wanted)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == answer.json()["status_url"]
    return answer.json()  # type: ignore[no-any-return]


def state(api: Api, collection: str) -> Mapping[str, Any]:
    answer = api.http.get(f"/collections/{collection}/reindex")
    assert answer.status_code == 200, answer.text
    return answer.json()  # type: ignore[no-any-return]


def first(api: Api, question: str, collection: str) -> str:
    answer = api.http.post("/search", json={"question": question, "collection": collection})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["passages"][0]["document_id"])


def test_a_collection_moves_to_another_model_and_back(api: Api, collection: str) -> None:
    before = api.http.get(f"/collections/{collection}").json()
    job = started(api, collection, embedding_model=OTHER_MODEL)
    assert (job["kind"], job["status"], job["document_id"]) == ("reindex", "queued", collection)
    (filling,) = state(api, collection)["generations"]
    assert (filling["state"], filling["documents"], filling["missing"]) == ("filling", 0, 3)
    assert filling["job"]["job_id"] == job["job_id"]
    assert first(api, "When does the ferry leave?", collection) == "d0"  # it answers meanwhile
    do_waiting(api)

    done = api.http.get(f"/jobs/{job['job_id']}").json()
    assert (done["status"], done["counts"]) == (
        "succeeded",
        {"documents": 3, "done": 3, "nodes": 0},
    )
    assert done["result"]["state"] == "switched"
    comparison = done["result"]["comparison"]
    assert comparison["are_drawn"] and comparison["questions"] >= 3
    assert comparison["found_after"] == 1.0
    now = api.http.get(f"/collections/{collection}").json()
    assert now["embedding_model"] == OTHER_MODEL != before["embedding_model"]
    assert now["documents"] == 3
    for question, wanted in (("When does the ferry leave?", "d0"), ("Когда зажгли маяк?", "d2")):
        assert first(api, question, collection) == wanted

    back = api.http.post(f"/collections/{collection}/reindex/rollback", json={})
    assert (back.status_code, back.json()["embedding_model"]) == (200, before["embedding_model"])
    assert first(api, "Когда зажгли маяк?", collection) == "d2"
    forth = api.http.post(f"/collections/{collection}/reindex/rollback", json={})
    assert forth.json()["embedding_model"] == OTHER_MODEL
    entries = api.http.get("/audit", params={"collection": collection}).json()["entries"]
    assert {"collection.reindex", "collection.switch", "collection.rollback"} <= {
        entry["action"] for entry in entries
    }


def test_a_manual_switch_waits_for_a_look_at_the_comparison(api: Api, collection: str) -> None:
    job = started(
        api,
        collection,
        max_tokens=32,
        switch="manual",
        questions=["When does the ferry leave?", "Сколько варят сыр?"],
    )
    do_waiting(api)
    ready = state(api, collection)
    assert ready["generations"][0]["state"] == "ready"
    result = ready["generations"][0]["job"]["result"]
    assert (result["state"], result["comparison"]["questions"]) == ("ready", 2)
    assert not result["comparison"]["are_drawn"]
    assert {each["question"] for each in result["comparison"]["samples"]} == {
        "When does the ferry leave?",
        "Сколько варят сыр?",
    }
    assert ready["collection"]["chunker"] != ready["generations"][0]["chunker"]

    # What comes while it waits is in it, too, after the switch.
    api.ingest("# Tar\n\nTar is burnt in pits.", document_id="d9", collection=collection)
    answer = api.http.post(f"/collections/{collection}/reindex/switch", json={})
    assert (answer.status_code, answer.json()["job_id"]) == (202, job["job_id"])
    do_waiting(api)
    switched = state(api, collection)
    assert switched["collection"]["chunker"] == ready["generations"][0]["chunker"]
    assert [each["state"] for each in switched["generations"]] == ["retired"]
    assert first(api, "What is burnt in pits?", collection) == "d9"


def test_a_reindex_is_discarded_and_what_answers_stays(api: Api, collection: str) -> None:
    before = api.http.get(f"/collections/{collection}").json()
    job = started(api, collection, max_tokens=32)
    again = api.http.post(f"/collections/{collection}/reindex", json={"max_tokens": 64})
    assert (again.status_code, code_of(again)) == (409, "reindex_under_way")
    answer = api.http.delete(f"/collections/{collection}/reindex")
    assert (answer.status_code, answer.json()) == (200, before)
    assert api.http.get(f"/jobs/{job['job_id']}").json()["status"] == "cancelled"
    assert state(api, collection)["generations"] == []
    gone = api.http.delete(f"/collections/{collection}/reindex")
    assert (gone.status_code, code_of(gone)) == (404, "generation_not_found")
    started(api, collection, max_tokens=32)
    do_waiting(api)
    assert state(api, collection)["collection"]["chunker"] != before["chunker"]


def test_a_cancelled_reindex_makes_room_for_another(api: Api, collection: str) -> None:
    job = started(api, collection, max_tokens=32)
    assert api.http.post(f"/jobs/{job['job_id']}/cancel").json()["status"] == "cancelled"
    do_waiting(api)
    again = started(api, collection, max_tokens=64)
    do_waiting(api)
    assert api.http.get(f"/jobs/{again['job_id']}").json()["status"] == "succeeded"


@pytest.mark.parametrize(
    ("wanted", "status", "code"),
    [
        ({}, 409, "conflict"),
        ({"embedding_model": "ollama:no-such"}, 503, "model_missing"),
        ({"embedding_model": "made-up:x"}, 422, "invalid_input"),
        ({"embedding_model": "\0"}, 422, "invalid_input"),
        ({"max_tokens": 1}, 422, "invalid_input"),
        ({"questions": [" "]}, 422, "invalid_input"),
        ({"questions": ["x"] * 101}, 422, "invalid_input"),
        ({"switch": "never"}, 422, "invalid_input"),
        ({"unknown": 1}, 422, "invalid_input"),
    ],
    ids=str,
)
def test_what_can_not_be_done_is_refused(
    api: Api, wanted: Mapping[str, Any], status: int, code: str
) -> None:
    api.http.put("/collections/refusing", json={})
    answer = api.http.post("/collections/refusing/reindex", json=wanted)
    assert (answer.status_code, code_of(answer)) == (status, code), answer.text
    assert state(api, "refusing")["generations"] == []


def test_there_is_nothing_to_switch_or_go_back_to(api: Api) -> None:
    api.http.put("/collections/plain", json={})
    for way in ("switch", "rollback"):
        answer = api.http.post(f"/collections/plain/reindex/{way}", json={})
        assert (answer.status_code, code_of(answer)) == (404, "generation_not_found")
    for method, path in (("GET", ""), ("POST", ""), ("POST", "/switch"), ("DELETE", "")):
        answer = api.http.request(
            method, f"/collections/nowhere/reindex{path}", json={} if method == "POST" else None
        )
        assert (answer.status_code, code_of(answer)) == (404, "collection_not_found"), path


def test_only_administrators_of_a_collection_move_it(api: Api) -> None:
    api.http.put("/collections/guarded", json={})
    other = api.key("admin", collections=["other"])
    ingest = api.key("ingest", "query", collections=["guarded"])
    admin = api.key("admin", collections=["guarded"])

    def status(headers: Mapping[str, str], method: str, path: str = "") -> int:
        body: Mapping[str, Any] | None = {"max_tokens": 32} if path == "" else {}
        return httpx.request(
            method,
            f"{api.url}/collections/guarded/reindex{path}",
            json=body if method == "POST" else None,
            headers=headers,
        ).status_code

    for headers in (other, ingest):
        for method, path in (("POST", ""), ("POST", "/switch"), ("POST", "/rollback")):
            assert status(headers, method, path) == 403
        assert status(headers, "DELETE") == 403
    assert status(other, "GET") == 403
    assert (status(ingest, "GET"), status(admin, "GET")) == (200, 200)
    assert status(admin, "POST") == 202
    assert status(admin, "DELETE") == 200


def test_a_document_that_can_not_be_taken_over_is_told_and_asked_about(
    api: Api, collection: str
) -> None:
    """Nothing is kept of it, as after the loss of a disk."""
    version = api.http.get("/documents/d1", params={"collection": collection}).json()
    files = [
        each for each in api.settings.data_dir.rglob(f"*{version['version_id']}*") if each.exists()
    ]
    assert files
    for each in files:
        for file in [each] if each.is_file() else [f for f in each.rglob("*") if f.is_file()]:
            file.unlink()
    job = started(api, collection, max_tokens=32)
    do_waiting(api)
    done = api.http.get(f"/jobs/{job['job_id']}").json()
    assert (done["status"], done["result"]["state"]) == ("succeeded", "ready")
    assert [each["document_id"] for each in done["result"]["problems"]] == ["d1"]
    assert first(api, "How long is brown cheese boiled?", collection) == "d1"  # still answered

    api.http.post(f"/collections/{collection}/reindex/switch", json={"accept_loss": True})
    do_waiting(api)
    assert state(api, collection)["generations"][0]["state"] == "retired"
    answer = api.http.post(
        "/search", json={"question": "brown cheese", "collection": collection, "mode": "keyword"}
    )
    assert "d1" not in [each["document_id"] for each in answer.json()["passages"]]
    back = api.http.post(f"/collections/{collection}/reindex/rollback", json={})
    assert back.status_code == 200
    assert first(api, "How long is brown cheese boiled?", collection) == "d1"


def test_going_back_would_lose_what_came_since(
    api: Api, collection: str, ollama: FakeOllama
) -> None:
    """Its model is away while a document comes: the generation before lacks it."""
    started(api, collection, embedding_model=OTHER_MODEL)
    do_waiting(api)
    api.http.post(f"/collections/{collection}/reindex/rollback", json={})  # Ollama's is before now
    with psycopg.connect(_dsn(api), autocommit=True) as database:
        api.ingest(
            "# Salt\n\nSalt is boiled from the sea.", document_id="d9", collection=collection
        )
        database.execute(
            "DELETE FROM ragcore.generation_documents h USING ragcore.documents d"
            " WHERE h.document_no = d.document_no AND d.document_id = 'd9'"
        )
    answer = api.http.post(f"/collections/{collection}/reindex/rollback", json={})
    assert (answer.status_code, code_of(answer)) == (409, "rollback_loses")
    accepted = api.http.post(
        f"/collections/{collection}/reindex/rollback", json={"accept_loss": True}
    )
    assert accepted.status_code == 200


def _dsn(api: Api) -> str:
    assert api.settings.database_url is not None
    return api.settings.database_url.get_secret_value()


def test_changing_metadata_embeds_nothing(api: Api, collection: str, ollama: FakeOllama) -> None:
    """Neither where it answers nor in what is kept for going back."""
    started(api, collection, embedding_model=OTHER_MODEL)
    do_waiting(api)
    embedded = len(ollama.embedded)
    answer = api.http.patch(
        "/documents/d0",
        params={"collection": collection},
        json={"title": "Timetable", "metadata": {"year": 1931}},
    )
    assert answer.status_code == 200, answer.text
    assert len(ollama.embedded) == embedded
    for _ in range(2):
        found = api.http.post(
            "/search",
            json={
                "question": "ferry",
                "collection": collection,
                "mode": "keyword",
                "filters": {"year": 1931},
            },
        ).json()["passages"]
        assert [each["document_id"] for each in found] == ["d0"]
        api.http.post(f"/collections/{collection}/reindex/rollback", json={})


def test_who_waits_gets_the_finished_job(api: Api, collection: str) -> None:
    answer = api.http.post(
        f"/collections/{collection}/reindex", params={"wait": 0.3}, json={"max_tokens": 32}
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")  # no worker runs
    do_waiting(api)
    job = api.http.get(answer.json()["status_url"], params={"wait": 60}).json()
    assert job["status"] == "succeeded"
