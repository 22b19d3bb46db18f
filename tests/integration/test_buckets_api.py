"""Buckets over HTTP: ingested on request, and told of by MinIO."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote_plus
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner

from apis import ADMIN, Api, code_of, running_api
from buckets import Bucket, S3Server
from conftest import TestServer
from ragcore.cli.app import app

SECRET = "what MinIO knows of us"


@pytest.fixture(scope="module")
def module_bucket(s3_server: S3Server) -> Bucket:
    return s3_server.make_bucket()


@pytest.fixture(scope="module")
def own_bucket(s3_server: S3Server) -> Bucket:
    """Where uploads are stored."""
    return s3_server.make_bucket()


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: object,
    s3_server: S3Server,
    module_bucket: Bucket,
    own_bucket: Bucket,
) -> Iterator[Api]:
    redis_url: str = embedded.redis_url  # type: ignore[attr-defined]
    blobs_url = f"s3://{_key(s3_server)}@{s3_server.address}/{own_bucket.name}?secure=false"
    sync = {"bucket": module_bucket.name, "prefix": "told/", "delete_missing": True}
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=redis_url,
        blobs_url=blobs_url,
        buckets={
            "servers": {"test": s3_server.settings(module_bucket.name)},
            "syncs": {"told": {**sync, "collection": "told"}},
            "hook_secret": SECRET,
        },
    ) as api:
        yield api


def _key(server: S3Server) -> str:
    described = server.settings()
    return f"{described['access_key']}:{described['secret_key']}"


def run(api: Api, job_id: str) -> None:
    """Do what a worker would do about a bucket's job."""
    job = api.runner.run(api.rag.runtime.catalog.job(UUID(job_id)))
    api.runner.run(api.rag._finish_bucket(job, None))


def test_a_bucket_is_ingested_by_a_job_that_tells_of_its_objects(
    api: Api, module_bucket: Bucket
) -> None:
    module_bucket.put("in/a.txt", "The ferry to Vega leaves at noon.")
    module_bucket.put("in/b.mp4", "no text")
    caller = httpx.Client(
        base_url=api.url,
        headers=api.key("ingest", "query", collections=["harbour"]),
        timeout=60,
    )
    wanted = {"bucket": module_bucket.name, "prefix": "in/", "collection": "harbour"}
    answer = caller.post("/ingest/bucket", json=wanted)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    assert (job["kind"], job["status"]) == ("bucket", "queued")
    assert answer.headers["Location"] == f"/jobs/{job['job_id']}"
    again = caller.post("/ingest/bucket", json=wanted).json()
    assert again["job_id"] == job["job_id"]

    run(api, job["job_id"])
    ended = caller.get(f"/jobs/{job['job_id']}?wait=10").json()
    assert ended["status"] == "succeeded"
    assert {k: v for k, v in ended["counts"].items() if v} == {
        "listed": 2, "skipped": 1, "new": 1, "created": 1
    }  # fmt: skip
    url = f"/jobs/{job['job_id']}/objects"
    first = caller.get(url, params={"limit": 1}).json()
    assert first["objects"][0]["outcome"] == "created"
    rest = caller.get(url, params={"cursor": first["next_cursor"]}).json()
    assert [each["action"] for each in rest["objects"]] == ["skipped"]
    assert rest["next_cursor"] is None
    document = caller.get(
        "/documents",
        params={"collection": "harbour", "uri": module_bucket.uri("in/a.txt")},
    ).json()["documents"][0]
    assert document["document_id"] == first["objects"][0]["key"].removeprefix("in/") + (
        "~" + document["document_id"].partition("~")[2]
    )
    caller.close()
    trail = api.http.get("/audit", params={"action": "bucket.ingest"}).json()["entries"]
    assert trail[0]["collection"] == "harbour"
    assert trail[0]["details"]["order"]["bucket"] == module_bucket.name


def test_who_may_not_ingest_there_is_refused(api: Api, module_bucket: Bucket) -> None:
    wanted = {"bucket": module_bucket.name, "collection": "harbour"}
    for key in (api.key("query"), api.key("ingest", collections=["other"])):
        answer = httpx.post(f"{api.url}/ingest/bucket", json=wanted, headers=key)
        assert code_of(answer) == "forbidden"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"bucket": "not-configured"}, "bucket_not_found"),
        ({"bucket": "../x"}, "bucket_not_found"),
        ({"bucket": ""}, "invalid_input"),
        ({"include": [""]}, "invalid_input"),
        ({"include": ["x"] * 51}, "invalid_input"),
        ({"prefix": "a\0b"}, "invalid_input"),
        ({"max_delete_share": 2}, "invalid_input"),
        ({"endpoint": "http://169.254.169.254"}, "invalid_input"),
    ],
)
def test_orders_that_cant_be_meant_are_refused(
    api: Api, module_bucket: Bucket, wrong: dict[str, object], code: str
) -> None:
    answer = api.http.post("/ingest/bucket", json={"bucket": module_bucket.name, **wrong})
    assert code_of(answer) == code, answer.text


def told(api: Api, *keys: str, bucket: Bucket, authorization: str | None) -> httpx.Response:
    records = [
        {"s3": {"bucket": {"name": bucket.name}, "object": {"key": quote_plus(key)}}}
        for key in keys
    ]
    headers = {} if authorization is None else {"Authorization": authorization}
    body = {"EventName": "s3:ObjectCreated:Put", "Records": records}
    return httpx.post(f"{api.url}/hooks/minio", json=body, headers=headers, timeout=60)


def test_minio_tells_what_happened_and_shows_its_secret(api: Api, module_bucket: Bucket) -> None:
    module_bucket.put("told/a b.txt", "told by the bucket")
    for authorization in (None, "Bearer wrong", "Bearer", f"Basic {SECRET}"):
        answer = told(api, "told/a b.txt", bucket=module_bucket, authorization=authorization)
        assert (answer.status_code, code_of(answer)) == (401, "unauthenticated")
    for authorization in (f"Bearer {SECRET}", SECRET):
        answer = told(api, "told/a b.txt", bucket=module_bucket, authorization=authorization)
        assert answer.status_code == 202, answer.text
    jobs = api.http.get("/jobs", params={"collection": "told"}).json()["jobs"]
    assert [job["status"] for job in jobs] == ["queued"]  # told twice, ingested once

    api.runner.run(api.rag.runtime.work.next(job_id=UUID(jobs[0]["job_id"])))
    where = {"collection": "told", "uri": module_bucket.uri("told/a b.txt")}
    assert len(api.http.get("/documents", params=where).json()["documents"]) == 1
    module_bucket.remove("told/a b.txt")
    answer = told(api, "told/a b.txt", bucket=module_bucket, authorization=f"Bearer {SECRET}")
    assert answer.json() == {"objects": 1}
    assert api.http.get("/documents", params=where).json()["documents"] == []


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"[" * 100_000, b'{"Records": [{}]}'])
def test_what_is_no_notification_is_refused(api: Api, body: bytes) -> None:
    headers = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/json"}
    answer = httpx.post(f"{api.url}/hooks/minio", content=body, headers=headers, timeout=60)
    assert code_of(answer) == "invalid_input"


def test_uploads_rest_in_the_same_object_store(api: Api, own_bucket: Bucket) -> None:
    before = stored(own_bucket)
    answer = api.http.post("/ingest", json={"text": "Kept in a bucket.", "collection": "kept"})
    assert answer.status_code == 202, answer.text
    (job,) = answer.json()["jobs"]
    done = api.runner.run(api.rag.runtime.work.next(job_id=UUID(job["job_id"])))
    assert done is not None
    assert done.status == "succeeded", done.error
    names = {key.rpartition("/")[2] for key in stored(own_bucket) - before}
    assert names == {"original", "docling.json.gz", "document.md"}
    where = {"collection": "kept"}
    content = api.http.get(f"/documents/{job['document_id']}/content", params=where)
    assert "Kept in a bucket." in content.text
    receipt = api.http.delete(f"/documents/{job['document_id']}", params=where).json()
    assert receipt["blobs"] == 3
    assert stored(own_bucket) == before


def stored(bucket: Bucket) -> set[str]:
    found = bucket.client.list_objects(bucket.name, recursive=True)
    return {str(entry.object_name) for entry in found if not entry.is_dir}


def test_without_a_secret_the_hook_is_closed(
    postgres_server: TestServer, migrated_template: str, redis_url: str
) -> None:
    with running_api(postgres_server, template=migrated_template, redis_url=redis_url) as closed:
        body = json.dumps({"Records": []})
        answer = httpx.post(
            f"{closed.url}/hooks/minio", content=body, headers={"Authorization": "Bearer x"}
        )
        assert (answer.status_code, code_of(answer)) == (403, "forbidden")


def test_the_command_line_has_a_service_ingest_its_buckets(
    api: Api, module_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAGCORE_URL", "")  # --url sets it for the command's process
    monkeypatch.setenv("RAGCORE_API_KEY", ADMIN)
    module_bucket.put("typed/a.txt", "The pump was replaced in May.")
    module_bucket.put("typed/b.mp4", "no text")
    command = ["--url", api.url, "ingest", f"s3://{module_bucket.name}/typed/", "-c", "typed"]
    with ThreadPoolExecutor(1) as commands:
        typed = commands.submit(CliRunner().invoke, app, command)
        jobs: list[dict[str, str]] = []
        while not (jobs or typed.done()):
            jobs = api.http.get("/jobs", params={"collection": "typed"}).json()["jobs"]
        for job in jobs:
            run(api, job["job_id"])
        ran = typed.result()
    assert ran.exit_code == 0, ran.output
    assert "typed/b.mp4" in ran.output  # skipped, and said so
    assert "1 created" in ran.output
