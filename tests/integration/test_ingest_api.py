"""`POST /ingest` and `POST /convert` of a running API, with a worker behind it."""

import io
import json
import os
import re
import socket
import threading
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from conftest import TestServer, server_directory
from ragcore.embedded import EmbeddedServers
from ragcore.settings import DiskSettings, Settings
from serving import serving
from working import HeldConversions, working

ADMIN = "the-first-key-of-a-new-stack"
TEXT = "The ferry to Vega leaves at noon."


@dataclass
class Api:
    http: httpx.Client
    settings: Settings
    database_url: str
    data_dir: Path
    conversions: HeldConversions

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()

    def blobs(self) -> set[Path]:
        # os.walk passes over directories that are removed meanwhile.
        folders = os.walk(self.data_dir / "blobs")
        return {Path(folder, name) for folder, _, names in folders for name in names}

    def documents(self, collection: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get(
            "/documents", params={"collection": collection}
        ).json()["documents"]
        return found

    def key(self, *scopes: str, **options: Any) -> dict[str, str]:
        """Make a key and return the header that shows it."""
        made = self.http.post("/keys", json={"name": "test", "scopes": scopes} | options).json()
        return {"X-API-Key": made["secret"]}


@pytest.fixture(scope="module")
def pages() -> Iterator["Pages"]:
    pages = Pages()
    thread = threading.Thread(target=pages.serve_forever)
    thread.start()
    yield pages
    pages.shutdown()
    pages.server_close()
    thread.join()


class Pages(ThreadingHTTPServer):
    """A web server on loopback, which the API may fetch from under the name 127.0.0.1."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Page)
        self.content: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.asked: list[str] = []

    def url(self, path: str, *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"


class _Page(BaseHTTPRequestHandler):
    server: Pages

    def do_GET(self) -> None:  # the name that the standard library calls
        self.server.asked.append(self.path)
        status, headers, body = self.server.content.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # hung up on, as it should be
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


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
            conversion={"max_file_mb": 2, "processes": 1},
            fetch={"allowed_hosts": ["127.0.0.1"], "timeout_seconds": 5},
            callbacks={"allowed_hosts": ["n8n.invalid", "127.0.0.1"]},
        )
        headers = {"X-API-Key": ADMIN}
        with (
            working(settings) as conversions,
            serving(settings) as address,
            httpx.Client(base_url=address, headers=headers, timeout=120) as http,
        ):
            yield Api(http, settings, url, settings.data_dir, conversions)


# --- files ---------------------------------------------------------------------------------


def test_a_file_is_taken_and_can_be_found(api: Api) -> None:
    answer = api.http.post(
        "/ingest",
        params={"wait": 300},
        files={"file": ("Расписание.md", f"# Ferry\n\n{TEXT}".encode(), "text/markdown")},
        data={"collection": "files", "title": "Timetable", "metadata": '{"year": 1931}'},
    )
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    assert (job["status"], job["outcome"], job["collection"]) == ("succeeded", "created", "files")
    assert answer.headers["Location"] == job["status_url"] == f"/jobs/{job['job_id']}"
    (document,) = api.documents("files")
    assert (document["title"], document["metadata"]) == ("Timetable", {"year": 1931})
    assert api.rows("SELECT filename FROM ragcore.versions") == [("Расписание.md",)]


def test_fields_may_follow_the_files_and_several_files_are_several_jobs(api: Api) -> None:
    parts = [
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../%d.txt"\r\n\r\n'
        b"Number %d sails.\r\n" % (number, number)
        for number in range(3)
    ]
    fields = b'--x\r\nContent-Disposition: form-data; name="collection"\r\n\r\nlate\r\n--x--\r\n'
    answer = api.http.post(
        "/ingest?wait=300",
        content=b"".join(parts) + fields,
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )
    assert answer.status_code == 200, answer.text
    assert [job["collection"] for job in answer.json()["jobs"]] == ["late"] * 3
    names = api.rows(
        "SELECT filename FROM ragcore.versions JOIN ragcore.documents USING (document_no) "
        "WHERE collection = 'late' ORDER BY 1"
    )
    assert names == [("0.txt",), ("1.txt",), ("2.txt",)]


def test_a_repeat_changes_nothing(api: Api) -> None:
    def post() -> dict[str, Any]:
        answer = api.http.post(
            "/ingest?wait=300", files={"file": b"Again."}, data={"collection": "again"}
        )
        job: dict[str, Any] = answer.json()["jobs"][0]
        return job

    first, second = post(), post()
    assert (first["outcome"], second["outcome"]) == ("created", "unchanged")
    assert first["document_id"] == second["document_id"]


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        ([("file", b"x" * (2 * 2**20 + 1))], {}, 413, "document_too_large"),
        ([("file", b"x" * (9 * 2**20))], {}, 413, "document_too_large"),
        ([("file", b"\x7fELF\x02\x01\x01\x00" + b"\x00" * 100)], {}, 415, "unsupported_format"),
        ([("file", b"good"), ("file", b"\x7fELF\x02\x00")], {}, 415, "unsupported_format"),
        ([("file", b"x")] * 2, {"document_id": "one"}, 422, "invalid_input"),
        ([("file", b"x")], {"document_id": "a/b"}, 422, "invalid_input"),
        ([("file", b"x")], {"collection": "No!"}, 422, "invalid_input"),
        ([("file", b"x")], {"metadata": "[]"}, 422, "invalid_input"),
        ([("file", b"x")], {"metadata": '{"x": NaN}'}, 422, "invalid_input"),
        ([("file", b"x")], {"unknown": "x"}, 422, "invalid_input"),
        ([("file", b"x")], {"file": "x"}, 422, "invalid_input"),
        ([("file", b"x")], {"expires_at": "2001-01-01T00:00:00Z"}, 422, "invalid_input"),
        ([("file", b"x")], {"expires_at": "2101-01-01T00:00:00"}, 422, "invalid_input"),
        ([("file", b"x")], {"callback_url": "http://127.1/"}, 403, "forbidden_url"),
        ([("file", b"x")], {"callback_url": "ftp://example.com/"}, 403, "forbidden_url"),
        ([("other", b"x")], {}, 422, "invalid_input"),
        ([("title", b"x")], {"title": "T"}, 422, "invalid_input"),
    ],
)
def test_what_is_refused_leaves_nothing(
    api: Api, files: list[tuple[str, bytes]], data: dict[str, str], status: int, code: str
) -> None:
    before = api.blobs(), api.rows("SELECT count(*) FROM ragcore.jobs")
    answer = api.http.post(
        "/ingest", files=[(field, ("a.txt", content)) for field, content in files], data=data
    )
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert (api.blobs(), api.rows("SELECT count(*) FROM ragcore.jobs")) == before


def test_another_content_type_is_refused(api: Api) -> None:
    answer = api.http.post("/ingest", content=b"x", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_format")


def test_an_upload_that_says_to_be_too_large_is_refused_before_it_is_sent(api: Api) -> None:
    with socket.create_connection((api.http.base_url.host, api.http.base_url.port)) as connection:
        connection.sendall(
            b"POST /ingest HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\nExpect: 100-continue\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 999999999\r\n\r\n"
            % ADMIN.encode()
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_an_upload_that_is_broken_off_leaves_nothing(api: Api) -> None:
    before, jobs = api.blobs(), api.rows("SELECT count(*) FROM ragcore.jobs")
    with socket.create_connection((api.http.base_url.host, api.http.base_url.port)) as connection:
        connection.sendall(
            b"POST /ingest HTTP/1.1\r\nHost: x\r\nX-API-Key: %s\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1000000\r\n\r\n"
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'
            % ADMIN.encode()
        )
        while not api.blobs() - before:  # the temporary file is there
            connection.sendall(b"x" * 1000)
    while api.blobs() - before:
        pass
    assert api.rows("SELECT count(*) FROM ragcore.jobs") == jobs


# --- texts and URLs ------------------------------------------------------------------------


def test_a_text_may_say_where_it_is_from(api: Api) -> None:
    body = {"text": TEXT, "uri": "n8n://notes/7", "collection": "texts", "filename": "n.md"}
    job = api.http.post("/ingest?wait=300", json=body).json()["jobs"][0]
    later = api.http.post("/ingest?wait=300", json=body | {"text": "Another."}).json()["jobs"][0]
    assert (job["outcome"], later["outcome"]) == ("created", "updated")
    assert job["document_id"] == later["document_id"]
    assert re.fullmatch(r"7~[0-9a-f]{16}", job["document_id"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": "x", "url": "https://example.com/"},
        {"url": "https://example.com/", "uri": "https://example.com/"},
        {"text": "x", "uri": "no uri"},
        {"text": "x", "metadata": []},
        {"text": "x", "surprise": 1},
        {"text": "x", "title": 7},
        ["text"],
    ],
)
def test_a_body_that_is_no_good_is_told_what_is_wrong(api: Api, body: object) -> None:
    answer = api.http.post("/ingest", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_a_url_is_fetched_before_it_is_answered(api: Api, pages: Pages) -> None:
    pages.content["/a/notes.html?v=1"] = (
        200,
        {"Content-Type": "text/html; charset=utf-8"},
        "<h1>Маяк</h1><p>Маяк на острове Вега построен в 1931 году.</p>".encode(),
    )
    url = pages.url("/a/notes.html?v=1")
    body = {"url": url + "#part", "collection": "web"}
    answer = api.http.post("/ingest?wait=300", json=body)
    assert answer.status_code == 200, answer.text
    (job,) = answer.json()["jobs"]
    assert (job["outcome"], job["language"]) == ("created", "ru")
    (document,) = api.documents("web")
    assert (document["uri"], document["mime_type"]) == (url, "text/html")
    again = api.http.post("/ingest?wait=300", json={"uri": url, "collection": "web"})
    assert again.json()["jobs"][0]["outcome"] == "unchanged"


def test_a_page_is_read_in_the_charset_that_its_server_names(api: Api, pages: Pages) -> None:
    pages.content["/old.html"] = (
        200,
        {"Content-Type": "text/html; charset=windows-1251"},
        "<h1>Маяк</h1><p>Маяк на острове Вега построен в 1931 году.</p>".encode("cp1251"),
    )
    body = {"url": pages.url("/old.html"), "collection": "charset"}
    (job,) = api.http.post("/ingest?wait=300", json=body).json()["jobs"]
    assert job["outcome"] == "created"
    path = f"/documents/{job['document_id']}/content"
    content = api.http.get(path, params={"collection": "charset"}).text
    assert "Маяк на острове Вега" in content


def test_a_document_is_fetched_again_when_its_page_has_changed(api: Api, pages: Pages) -> None:
    where = {"collection": "refreshed"}
    pages.content["/news.txt"] = (200, {"ETag": '"1"'}, b"The ferry leaves at noon.")
    body = {"url": pages.url("/news.txt"), "title": "News", **where}
    (job,) = api.http.post("/ingest?wait=300", json=body).json()["jobs"]
    path = f"/documents/{job['document_id']}/refresh"

    def refreshed() -> str:
        answer = api.http.post(path, params={**where, "wait": 300})
        assert answer.status_code == 200, answer.text
        (job,) = answer.json()["jobs"]
        assert answer.headers["Location"] == job["status_url"]
        return str(job["outcome"])

    assert refreshed() == "unchanged"
    pages.content["/news.txt"] = (304, {}, b"")
    assert refreshed() == "unchanged"
    pages.content["/news.txt"] = (200, {"ETag": '"2"'}, b"The ferry leaves at midnight.")
    assert refreshed() == "updated"
    (document,) = api.documents("refreshed")
    assert document["title"] == "News"


def test_what_can_not_be_fetched_again_is_told_and_stays(api: Api, pages: Pages) -> None:
    where = {"collection": "refreshed-not"}
    text = {"text": TEXT, "document_id": "text", **where}
    api.http.post("/ingest?wait=300", json=text)
    pages.content["/gone.txt"] = (200, {}, b"The ferry leaves at noon.")
    page = {"url": pages.url("/gone.txt"), "document_id": "page", **where}
    api.http.post("/ingest?wait=300", json=page)
    del pages.content["/gone.txt"]
    for document_id, status, code in (
        ("text", 422, "invalid_input"),
        ("page", 422, "invalid_input"),
        ("nothing", 404, "document_not_found"),
    ):
        answer = api.http.post(f"/documents/{document_id}/refresh", params=where)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert len(api.documents("refreshed-not")) == 2
    reader = api.key("query")
    answer = api.http.post("/documents/page/refresh", params=where, headers=reader)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("path", "host", "status", "code"),
    [
        ("/secret", "localhost", 403, "forbidden_url"),
        ("/secret", "127.1", 403, "forbidden_url"),
        ("/secret", "[::ffff:127.0.0.1]", 403, "forbidden_url"),
        ("/away", "127.0.0.1", 403, "forbidden_url"),
        ("/missing", "127.0.0.1", 422, "invalid_input"),
        ("/broken", "127.0.0.1", 503, "source_unavailable"),
        ("/large", "127.0.0.1", 413, "document_too_large"),
        ("/program", "127.0.0.1", 415, "unsupported_format"),
    ],
)
def test_a_url_that_can_not_be_taken_leaves_nothing(
    api: Api, pages: Pages, path: str, host: str, status: int, code: str
) -> None:
    pages.content |= {
        "/secret": (200, {}, b"secret"),
        "/away": (302, {"Location": pages.url("/secret", host="localhost")}, b""),
        "/broken": (502, {}, b""),
        "/large": (200, {}, b"x" * (3 * 2**20)),
        "/program": (200, {}, b"\x7fELF\x02\x00"),
    }
    before, asked = api.blobs(), len(pages.asked)
    answer = api.http.post("/ingest", json={"url": pages.url(path, host=host)})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert api.blobs() == before
    assert "/secret" not in pages.asked[asked:]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "s3://bucket/key", "http://u:p@127.0.0.1/"])
def test_only_the_web_is_fetched(api: Api, url: str) -> None:
    for body in ({"url": url}, {"uri": url}):
        answer = api.http.post("/ingest", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden_url")


def test_documents_are_refused_before_the_disk_is_full_and_questions_are_not(api: Api) -> None:
    full = api.settings.model_copy(update={"disk": DiskSettings(min_free_mb=2**40)})
    before = api.blobs()
    with serving(full) as address, httpx.Client(base_url=address, headers=api.http.headers) as http:
        for path in ("/ingest", "/convert"):
            answer = http.post(path, files={"file": b"x"})
            assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
            assert int(answer.headers["Retry-After"]) > 0
        assert http.post("/ingest", json={"text": "x"}).status_code == 507
        assert http.post("/search", json={"question": "When?"}).status_code == 200
    assert api.blobs() == before


# --- once, for whom, until when ------------------------------------------------------------


def test_the_same_key_and_request_are_answered_with_the_first_jobs(api: Api) -> None:
    def post(key: str, *contents: bytes, **options: Any) -> httpx.Response:
        return api.http.post(
            "/ingest?wait=300",
            files=[("file", ("a.txt", content)) for content in contents],
            data={"collection": "once"},
            headers={"Idempotency-Key": key, **options},
        )

    first = post("k1", b"one", b"two").json()
    blobs = api.blobs()
    assert [job["job_id"] for job in post("k1", b"one", b"two").json()["jobs"]] == [
        job["job_id"] for job in first["jobs"]
    ]
    assert api.blobs() <= blobs
    other = post("k1", b"one", b"three")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    assert api.blobs() <= blobs
    mine = post("k1", b"one", b"three", **api.key("ingest"))
    assert mine.status_code == 200  # somebody else's key of the same name


def test_a_url_under_a_key_is_the_same_request_whatever_it_leads_to(api: Api, pages: Pages) -> None:
    def post() -> Any:
        body = {"url": pages.url("/changing.txt"), "collection": "once"}
        answer = api.http.post("/ingest?wait=300", json=body, headers={"Idempotency-Key": "url"})
        return answer.json()["jobs"][0]["job_id"]

    pages.content["/changing.txt"] = (200, {}, b"Before.")
    first = post()
    pages.content["/changing.txt"] = (200, {}, b"After.")
    assert post() == first


def test_a_key_ingests_only_into_its_collections(api: Api, pages: Pages) -> None:
    headers = api.key("ingest", collections=["mine"])
    pages.content["/x.txt"] = (200, {}, b"x")
    pages.asked.clear()
    before = api.blobs()
    for body in (
        {"text": "x"},
        {"text": "x", "collection": "theirs"},
        {"url": pages.url("/x.txt")},
    ):
        answer = api.http.post("/ingest", json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    for data in ({}, {"collection": "theirs"}):
        answer = api.http.post("/ingest", files={"file": b"x"}, data=data, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert (pages.asked, api.blobs()) == ([], before)
    mine = {"text": "x", "collection": "mine"}
    assert api.http.post("/ingest?wait=300", json=mine, headers=headers).status_code == 200


def test_a_key_that_only_asks_can_not_ingest_or_convert(api: Api) -> None:
    headers = api.key("query")
    for path in ("/ingest", "/convert"):
        assert api.http.post(path, files={"file": b"x"}, headers=headers).status_code == 403


def test_what_is_said_besides_is_recorded_and_so_is_who_said_it(api: Api) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    body = {
        "text": TEXT,
        "collection": "said",
        "document_id": "doc",
        "callback_url": "http://127.0.0.1:1/hook",
        "expires_at": expires.isoformat(),
    }
    answer = api.http.post("/ingest?wait=300", json=body, headers={"X-Request-ID": "req-1"})
    job = answer.json()["jobs"][0]
    assert api.rows(f"SELECT url FROM ragcore.callbacks WHERE job_id = '{job['job_id']}'") == [
        ("http://127.0.0.1:1/hook",)
    ]
    assert api.rows("SELECT expires_at FROM ragcore.documents WHERE collection = 'said'") == [
        (expires,)
    ]
    assert api.rows(
        "SELECT action, actor, target, request_id FROM ragcore.audit WHERE collection = 'said'"
    ) == [("document.ingest", "admin", "doc", "req-1")]


def test_waiting_ends_with_the_time_and_tells_how_far_the_job_is(api: Api) -> None:
    api.conversions.began.clear()
    answer = api.http.post(
        "/ingest?wait=0.2", json={"text": "x", "filename": "held.txt", "collection": "held"}
    )
    assert answer.status_code == 202
    job = answer.json()["jobs"][0]
    assert job["status"] in ("queued", "running")
    assert api.http.post(f"{job['status_url']}/cancel").json()["status"] == "cancelled"


# --- converting ----------------------------------------------------------------------------

MARKDOWN = b"# Ferry\n\nIt leaves at noon.\n\n## Back\n\nAnd returns at dusk.\n"


def test_a_file_is_converted_to_each_format(api: Api) -> None:
    def convert(format: str) -> Any:
        answer = api.http.post(
            "/convert", params={"format": format}, files={"file": ("ferry.md", MARKDOWN)}
        )
        assert answer.status_code == 200, answer.text
        assert (answer.json()["format"], answer.json()["filename"]) == (format, "ferry.md")
        return answer.json()["content"]

    assert "## Back" in convert("markdown")
    assert convert("text").split("\n\n") == [
        "Ferry", "It leaves at noon.", "Back", "And returns at dusk."
    ]  # fmt: skip
    assert convert("json")["schema_name"] == "DoclingDocument"
    assert convert("chunks")[-1]["headings"] == ["Ferry", "Back"]
    assert not list((api.data_dir / "work").rglob("convert-*"))


@pytest.mark.parametrize(
    ("format", "media_type"), [("markdown", "text/markdown"), ("text", "text/plain")]
)
def test_bare_text_is_answered_to_whoever_asks_for_it(
    api: Api, format: str, media_type: str
) -> None:
    answer = api.http.post(
        "/convert",
        params={"format": format},
        files={"file": ("a.md", MARKDOWN)},
        headers={"Accept": f"{media_type}, */*;q=0.1"},
    )
    assert answer.headers["Content-Type"].startswith(media_type)
    assert "And returns at dusk." in answer.text


def _bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
        archive.writestr("word/document.xml", b"\x00" * (64 * 2**20))
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "status", "code"),
    [
        ("a.bin", b"\x7fELF\x02\x00" * 50, 415, "unsupported_format"),
        ("a.txt", b"", 422, "no_text_found"),
        ("a.pdf", b"%PDF-1.7 and no more", 422, "conversion_failed"),
        ("a.docx", _bomb(), 413, "document_too_large"),
        ("a.txt", b"x" * (4 * 2**20), 413, "document_too_large"),
    ],
)
def test_what_can_not_be_converted_says_why(
    api: Api, name: str, content: bytes, status: int, code: str
) -> None:
    answer = api.http.post("/convert", files={"file": (name, content)})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert not list((api.data_dir / "work").rglob("convert-*"))


@pytest.mark.parametrize(
    ("files", "data"),
    [
        ([], {"password": "x"}),
        ([("file", b"x")] * 2, {}),
        ([("other", b"x")], {}),
        ([("file", b"x")], {"title": "x"}),
    ],
)
def test_a_form_to_convert_takes_one_file_and_a_password(
    api: Api, files: list[tuple[str, bytes]], data: dict[str, str]
) -> None:
    if files:
        answer = api.http.post("/convert", files=files, data=data)
    else:
        answer = api.http.post(
            "/convert",
            content=b'--x\r\nContent-Disposition: form-data; name="password"\r\n\r\nx\r\n--x--\r\n',
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_nothing_that_was_converted_is_stored(api: Api) -> None:
    before = api.blobs(), api.rows("SELECT count(*) FROM ragcore.documents")
    api.http.post("/convert", files={"file": ("a.md", MARKDOWN)})
    assert (api.blobs(), api.rows("SELECT count(*) FROM ragcore.documents")) == before


def test_the_openapi_document_tells_both_ways_in(api: Api) -> None:
    operation = api.http.get("/openapi.json").json()["paths"]["/ingest"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {"200", "202", "403", "409", "413", "415", "422", "503", "507"} <= set(
        operation["responses"]
    )
    assert json.dumps(operation)
