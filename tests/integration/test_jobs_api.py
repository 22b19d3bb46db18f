"""Jobs as callers of a running API follow them, stop them and run them again."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from conftest import TestServer, server_directory
from ragcore.embedded import EmbeddedServers
from ragcore.settings import Settings
from serving import serving
from working import HeldConversions, working

ADMIN = "the-first-key-of-a-new-stack"


@dataclass
class Api:
    http: httpx.Client
    settings: Settings
    database_url: str

    def post(self, text: str, *, held: bool = False, **fields: Any) -> dict[str, Any]:
        """Post a text; a worker that holds conversions holds it when it is to be `held`."""
        filename = f"held-{uuid4()}.txt" if held else "text.txt"
        answer = self.http.post("/ingest", json={"text": text, "filename": filename} | fields)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()["jobs"][0]
        return job

    def job(self, job: dict[str, Any], **params: Any) -> dict[str, Any]:
        answer = self.http.get(job["status_url"], params=params)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    def key(self, *scopes: str, **options: Any) -> dict[str, str]:
        made = self.http.post("/keys", json={"name": "test", "scopes": scopes} | options).json()
        return {"X-API-Key": made["secret"]}

    def change(self, query: str) -> None:
        with psycopg.connect(self.database_url) as connection:
            connection.execute(query)


@pytest.fixture(scope="module")
def api(
    embedded: EmbeddedServers, postgres_server: TestServer, migrated_template: str
) -> Iterator[Api]:
    with server_directory() as root, postgres_server.database(template=migrated_template) as url:
        settings = Settings(
            database_url=url,
            redis_url=embedded.redis_url,
            data_dir=root / "data",
            access={"admin_key": ADMIN, "requests_per_minute": 0},
            conversion={"processes": 1},
        )
        with (
            serving(settings) as address,
            httpx.Client(base_url=address, headers={"X-API-Key": ADMIN}, timeout=300) as http,
        ):
            yield Api(http, settings, url)


@pytest.fixture(scope="module")
def running(api: Api) -> Iterator[HeldConversions]:
    """A worker, from the first test that asks for one to the last: the tests before it find jobs
    that wait, and their jobs are removed."""
    api.change("DELETE FROM ragcore.jobs")
    with working(api.settings) as conversions:
        yield conversions


@pytest.fixture
def worker(running: HeldConversions) -> Iterator[HeldConversions]:
    """The worker, which holds conversions of this test's own."""
    running.hold()
    yield running
    running.let_go()


def following(api: Api, job: dict[str, Any], **headers: str) -> Iterator[tuple[str, Any]]:
    """Yield the events of a job as they come."""
    with api.http.stream("GET", f"{job['status_url']}/events", headers=headers) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        name = ""
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


# --- following -----------------------------------------------------------------------------


def test_whoever_stops_listening_stops_the_stream(api: Api) -> None:
    job = api.post("Nobody works.", collection="left")
    for _ in range(3):
        events = following(api, job)
        assert next(events)[0] == "progress"
        events.close()  # type: ignore[attr-defined]  # it is a generator
    assert api.http.post(f"{job['status_url']}/cancel").status_code == 202


def test_a_job_that_is_removed_ends_its_stream_with_an_error(api: Api) -> None:
    job = api.post("Removed.", collection="removed")
    events = following(api, job)
    next(events)
    api.change(f"DELETE FROM ragcore.jobs WHERE job_id = '{job['job_id']}'")
    name, problem = next(events)
    assert (name, problem["code"], problem["status"]) == ("error", "job_not_found", 404)
    assert list(events) == []


@pytest.mark.parametrize("path", ["", "/events"])
def test_a_job_that_is_not_there_is_not_found(api: Api, path: str) -> None:
    answer = api.http.get(f"/jobs/{uuid4()}{path}")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


# --- listing -------------------------------------------------------------------------------


def test_jobs_come_in_pages_the_newest_first(api: Api) -> None:
    posted = [api.post(f"Text {n}.", collection="pages")["job_id"] for n in range(5)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"collection": "pages", "limit": 2}
        params |= {"cursor": cursor} if cursor else {}
        page = api.http.get("/jobs", params=params).json()
        assert len(page["jobs"]) <= 2
        seen += [job["job_id"] for job in page["jobs"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == posted[::-1]


def test_jobs_are_told_by_state_and_document(api: Api) -> None:
    job = api.post("Told.", collection="told", document_id="a")
    api.post("Told too.", collection="told", document_id="b")
    api.http.post(f"{job['status_url']}/cancel")

    def ids(**params: str) -> list[str]:
        found = api.http.get("/jobs", params={"collection": "told"} | params).json()["jobs"]
        return [job["document_id"] for job in found]

    assert ids() == ["b", "a"]
    assert ids(status="cancelled") == ["a"]
    assert ids(status="queued", document_id="a") == []
    assert ids(document_id="b") == ["b"]


@pytest.mark.parametrize(
    "params", [{"status": "lost"}, {"limit": 0}, {"limit": 501}, {"cursor": "x"}]
)
def test_a_list_that_can_not_be_meant_is_refused(api: Api, params: dict[str, Any]) -> None:
    answer = api.http.get("/jobs", params=params)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_a_cursor_that_is_not_there_is_not_found(api: Api) -> None:
    assert api.http.get("/jobs", params={"cursor": str(uuid4())}).status_code == 404


# --- stopping and running again ------------------------------------------------------------


def test_who_stops_a_job_or_runs_it_again_is_recorded(api: Api) -> None:
    job = api.post("Recorded.", collection="recorded")
    for act in ("cancel", "retry"):
        api.http.post(f"{job['status_url']}/{act}", headers={"X-Request-ID": f"to-{act}"})
    with psycopg.connect(api.database_url) as connection:
        entries = connection.execute(
            "SELECT action, actor, request_id FROM ragcore.audit WHERE target = %s "
            "ORDER BY entry_no",
            [job["job_id"]],
        ).fetchall()
    assert entries == [("job.cancel", "admin", "to-cancel"), ("job.retry", "admin", "to-retry")]


# --- whose jobs ----------------------------------------------------------------------------


def test_a_key_sees_the_jobs_of_its_collections_and_no_others(api: Api) -> None:
    mine = api.post("Mine.", collection="mine")
    theirs = api.post("Theirs.", collection="theirs")
    headers = api.key("ingest", collections=["mine"])
    seen = api.http.get("/jobs", headers=headers).json()["jobs"]
    assert [job["job_id"] for job in seen] == [mine["job_id"]]
    assert api.http.get(mine["status_url"], headers=headers).status_code == 200
    for method, path in (
        ("GET", theirs["status_url"]),
        ("GET", f"{theirs['status_url']}/events"),
        ("POST", f"{theirs['status_url']}/cancel"),
        ("POST", f"{theirs['status_url']}/retry"),
        ("GET", f"/jobs?cursor={theirs['job_id']}"),
    ):
        answer = api.http.request(method, path, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found"), path
    for method, path, body in (
        ("GET", "/jobs?collection=theirs", None),
        ("POST", "/jobs/retry", {"collection": "theirs"}),
    ):
        answer = api.http.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    assert api.job(theirs)["status"] == "queued"


def test_a_key_that_only_asks_stops_nothing(api: Api) -> None:
    job = api.post("Kept.", collection="kept")
    headers = api.key("query")
    assert api.http.get(job["status_url"], headers=headers).status_code == 200
    for path in (f"{job['status_url']}/cancel", f"{job['status_url']}/retry", "/jobs/retry"):
        answer = api.http.post(path, json={}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_two_hundred_requests_wait_while_others_are_answered(api: Api) -> None:
    job = api.post("Waited for by many.", collection="many")
    answered = threading.Event()
    many = httpx.Client(
        base_url=api.http.base_url,
        headers=api.http.headers,
        limits=httpx.Limits(max_connections=200),
        timeout=300,
    )

    def wait(_: int) -> str:
        answer = many.get(job["status_url"], params={"wait": 300})
        assert answered.is_set()
        status: str = answer.json()["status"]
        return status

    with many, ThreadPoolExecutor(200) as threads:
        waits = [threads.submit(wait, number) for number in range(200)]
        for _ in range(20):
            assert api.http.get("/jobs", params={"limit": 1}).status_code == 200
        answered.set()
        api.http.post(f"{job['status_url']}/cancel")
        assert {each.result() for each in waits} == {"cancelled"}


# --- with a worker -------------------------------------------------------------------------


def test_waiting_for_a_job_is_answered_when_it_has_finished(
    api: Api, worker: HeldConversions
) -> None:
    job = api.post("Held back.", held=True)
    with ThreadPoolExecutor() as threads:
        waits = [threads.submit(api.job, job, wait=300) for _ in range(20)]
        assert api.job(job, wait=0.1)["status"] in ("queued", "running")
        worker.began.wait()
        worker.let_go()
        assert {wait.result()["outcome"] for wait in waits} == {"created"}


def test_events_tell_the_progress_and_then_the_whole_job(api: Api, worker: HeldConversions) -> None:
    job = api.post("Followed to the end.", held=True, collection="events")
    told: list[tuple[str, Any]] = []
    for name, data in following(api, job):
        told.append((name, data))
        if data.get("stage") == "converting":
            worker.let_go()
    assert {name for name, _ in told[:-1]} == {"progress"}
    assert ("converting", 0.5) in [(data["stage"], data["progress"]) for _, data in told[:-1]]
    assert told[-1] == ("done", api.job(job))
    assert told[-1][1]["outcome"] == "created"
    # Whoever connects again, after whatever event, hears how it ended, and the stream ends.
    assert list(following(api, job, **{"Last-Event-ID": "7"})) == [told[-1]]


def test_cancelling_stops_a_running_conversion(api: Api, worker: HeldConversions) -> None:
    job = api.post("Stopped.", held=True, collection="stopped")
    worker.began.wait()
    answer = api.http.post(f"{job['status_url']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelled")
    worker.gave_up.wait()
    assert api.job(job)["status"] == "cancelled"
    assert api.http.post(f"{job['status_url']}/cancel").json()["status"] == "cancelled"


def test_a_cancelled_job_runs_again_when_it_is_told_to(api: Api, worker: HeldConversions) -> None:
    job = api.post("Told twice.", held=True, collection="again")
    api.http.post(f"{job['status_url']}/cancel")
    answer = api.http.post(f"{job['status_url']}/retry")
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    worker.let_go()
    assert api.job(job, wait=300)["outcome"] == "created"
    answer = api.http.post(f"{job['status_url']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_retryable")


def test_failed_jobs_that_match_run_again(api: Api, worker: HeldConversions) -> None:
    jobs = [
        api.post(" ", collection="failed", document_id=name) for name in ("a", "b")
    ]  # nothing to be found in them
    for job in jobs:
        assert api.job(job, wait=300)["error"]["code"] == "no_text_found"

    def retry(**wanted: str) -> list[str]:
        answer = api.http.post("/jobs/retry", json={"collection": "failed"} | wanted)
        assert answer.status_code == 202, answer.text
        return [job["document_id"] for job in answer.json()["jobs"]]

    assert retry(code="conversion_failed") == []
    assert retry(document_id="b") == ["b"]
    assert api.job(jobs[1], wait=300)["status"] == "failed"
    assert retry(code="no_text_found") == ["a", "b"]
    for job in jobs:
        assert api.job(job, wait=300)["attempts"] == 1  # counted anew
