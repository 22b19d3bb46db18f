"""Documents as callers of the running API find, read, change and delete them."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from apis import Api, code_of, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers
from ragcore_api.routes.documents import attachment

HOUSES = "\n\n".join(
    f"# House {number}\n\nHouse number {number} of the harbour has a red door and a cellar."
    for number in range(1, 8)
)


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        api.ingest(_pdf(tmp_path_factory.mktemp("in") / "отчёт 2026.pdf"), document_id="report")
        api.ingest(HOUSES, document_id="houses", filename="houses.md", metadata={"year": 2025})
        for number in range(3):
            api.ingest(f"Note {number} of the harbour.", document_id=f"note-{number}")
        yield api


def _pdf(path: Path) -> Path:
    canvas = Canvas(str(path), pagesize=A4)
    for number in (1, 2):
        canvas.drawString(72, 700, f"Page {number} of the report on the harbour of Elverin.")
        canvas.showPage()
    canvas.save()
    return path


# --- lists ---------------------------------------------------------------------------------


def test_pages_of_a_list_follow_one_another(api: Api) -> None:
    seen, cursor = [], None
    while True:
        answer = api.http.get(
            "/documents", params={"limit": 2} | ({"cursor": cursor} if cursor else {})
        )
        page = answer.json()
        seen += [document["document_id"] for document in page["documents"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ["houses", "note-0", "note-1", "note-2", "report"]


def test_a_list_is_filtered(api: Api) -> None:
    wanted = json.dumps({"year": {"$gte": 2025}})
    found = api.http.get("/documents", params={"filter": wanted}).json()["documents"]
    assert [document["document_id"] for document in found] == ["houses"]


def test_a_document_is_found_by_where_it_came_from(api: Api) -> None:
    uri = api.http.get("/documents/report").json()["uri"]
    assert uri.startswith("file://")
    found = api.http.get("/documents", params={"uri": uri}).json()["documents"]
    assert [document["document_id"] for document in found] == ["report"]
    assert api.http.get("/documents", params={"uri": "x:y"}).json()["documents"] == []


@pytest.mark.parametrize("filter_", ["{", "[1]", '{"year": {"$near": 1}}', "[" * 2000])
def test_a_filter_that_means_nothing_is_refused(api: Api, filter_: str) -> None:
    answer = api.http.get("/documents", params={"filter": filter_})
    assert (answer.status_code, code_of(answer)) == (422, "invalid_filter")


def test_a_list_of_no_collection_is_not_found(api: Api) -> None:
    for parameters in ({}, {"uri": "x:y"}):
        answer = api.http.get("/documents", params={"collection": "nowhere"} | parameters)
        assert (answer.status_code, code_of(answer)) == (404, "collection_not_found")


# --- one -----------------------------------------------------------------------------------


def test_a_document_tells_of_its_versions_and_of_how_it_was_read(api: Api) -> None:
    document = api.http.get("/documents/report").json()
    (version,) = document["versions"]
    assert (version["state"], version["sequence"]) == ("current", 1)
    assert version["filename"] == "отчёт 2026.pdf"
    assert len(version["sha256"]) == 64
    assert document["pages"] == version["pages"] == 2
    assert document["reading_report"]["profile"] == "fast"
    assert document["reading_report"]["is_doubtful"] is False
    assert document["expires_at"] is None


def test_chunks_are_read_page_by_page(api: Api) -> None:
    chunks, cursor = [], "0"
    while cursor is not None:
        parameters = {"limit": 1, "cursor": cursor}
        page = api.http.get("/documents/houses/chunks", params=parameters).json()
        chunks += page["chunks"]
        cursor = page["next_cursor"]
    assert [chunk["ordinal"] for chunk in chunks] == list(range(len(chunks)))
    assert len(chunks) == api.http.get("/documents/houses").json()["chunks"]
    (chunk,) = api.http.get("/documents/report/chunks").json()["chunks"]
    assert [place["page"] for place in chunk["places"]] == [1, 2]
    assert chunk["bbox"] == chunk["places"][0]["bbox"]


@pytest.mark.parametrize(
    "path",
    ["", "/chunks", "/content", "/content?format=json", "/content?format=original", "/pages/1.png"],
)
def test_nothing_is_told_of_a_document_that_is_not_there(api: Api, path: str) -> None:
    answer = api.http.get(f"/documents/nothing{path}")
    assert (answer.status_code, code_of(answer)) == (404, "document_not_found")


# --- content -------------------------------------------------------------------------------


def test_a_document_is_read_as_it_was_understood(api: Api) -> None:
    markdown = api.http.get("/documents/houses/content")
    assert markdown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "# House 1" in markdown.text
    docling = api.http.get("/documents/houses/content", params={"format": "json"})
    assert docling.headers["content-type"] == "application/json"
    assert docling.json()["schema_name"] == "DoclingDocument"


def test_the_original_is_saved_and_never_shown(api: Api) -> None:
    answer = api.http.get("/documents/report/content", params={"format": "original"})
    assert answer.content.startswith(b"%PDF")
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"] == (
        'attachment; filename="otchet 2026.pdf"; '
        "filename*=UTF-8''%D0%BE%D1%82%D1%87%D1%91%D1%82%202026.pdf"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    ['a"b.txt', "a\\b.txt", "../../etc/passwd", "a;b.txt", "ü\u2028.txt", "", "\n", "中.txt"],
)
def test_no_filename_breaks_out_of_its_header(name: str) -> None:
    header = attachment(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert not {"/", "\\"} & set(header)


@pytest.mark.parametrize(
    "path", ["content", "content?format=json", "content?format=original", "pages/1.png"]
)
def test_what_is_known_already_is_not_sent_again(api: Api, path: str) -> None:
    first = api.http.get(f"/documents/report/{path}")
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (first.headers["etag"], f'"other", W/{first.headers["etag"]}'):
        again = api.http.get(f"/documents/report/{path}", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]


def test_json_that_unpacks_to_a_great_deal_is_sent_in_small_pieces(api: Api) -> None:
    job = api.ingest("A text that becomes another.", document_id="bomb")
    version = api.http.get("/documents/bomb").json()["versions"][0]["version_id"]
    assert job.document_id == "bomb"
    stored = api.settings.data_dir / "blobs" / "versions" / version / "docling.json.gz"
    stored.write_bytes(gzip.compress(b'"' + b"0" * 50_000_000 + b'"'))
    with api.http.stream("GET", "/documents/bomb/content", params={"format": "json"}) as answer:
        sizes = [len(piece) for piece in answer.iter_raw()]
    assert sum(sizes) == 50_000_002
    stored.unlink()
    gone = api.http.get("/documents/bomb/content", params={"format": "json"})
    assert (gone.status_code, code_of(gone)) == (404, "blob_not_found")
    assert api.http.delete("/documents/bomb").status_code == 200


# --- pages ---------------------------------------------------------------------------------


def test_a_page_is_drawn_with_its_size_in_points(api: Api) -> None:
    answer = api.http.get("/documents/report/pages/2.png", params={"dpi": 72})
    assert answer.headers["content-type"] == "image/png"
    size = [float(answer.headers[f"x-page-{side}"]) for side in ("width", "height")]
    assert size == pytest.approx(A4, abs=0.1)
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == pytest.approx(size, abs=1)


@pytest.mark.parametrize("document", ["report/pages/3", "houses/pages/1"])
def test_a_page_that_is_not_there_is_not_found(api: Api, document: str) -> None:
    answer = api.http.get(f"/documents/{document}.png")
    assert (answer.status_code, code_of(answer)) == (404, "page_not_found")


@pytest.mark.parametrize("page", ["0.png", "-1.png", "x.png", "1.png?dpi=10000"])
def test_a_page_that_can_not_be_meant_is_refused(api: Api, page: str) -> None:
    assert code_of(api.http.get(f"/documents/report/pages/{page}")) == "invalid_input"


# --- changes -------------------------------------------------------------------------------


def test_what_is_named_changes_and_the_rest_stays(api: Api) -> None:
    before = api.http.get("/documents/note-0").json()
    path = "/documents/note-0"
    titled = api.http.patch(path, json={"title": "First note"}).json()
    assert (titled["title"], titled["metadata"]) == ("First note", before["metadata"])
    described = api.http.patch(path, json={"metadata": {"a": 1, "b": None}}).json()
    assert (described["title"], described["metadata"]) == ("First note", {"a": 1, "b": None})
    assert api.http.patch(path, json={"metadata": {"c": 2}}).json()["metadata"] == {"c": 2}
    dated = api.http.patch(path, json={"expires_at": "2999-01-01T00:00:00+03:00"}).json()
    assert dated["expires_at"] == "2998-12-31T21:00:00Z"
    assert api.http.patch(path, json={"expires_at": None}).json()["expires_at"] is None
    assert api.http.get(path).json()["versions"] == before["versions"]


@pytest.mark.parametrize(
    "patch",
    [{}, {"title": None}, {"title": ""}, {"metadata": None}, {"metadata": {"a": "\0"}},
     {"expires_at": "2999-01-01T00:00:00"}, {"document_id": "other"}],
)  # fmt: skip
def test_a_change_that_can_not_be_meant_is_refused(api: Api, patch: object) -> None:
    answer = api.http.patch("/documents/note-0", json=patch)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_input")


def test_a_document_that_is_not_there_can_not_be_changed(api: Api) -> None:
    answer = api.http.patch("/documents/nothing", json={"title": "x"})
    assert (answer.status_code, code_of(answer)) == (404, "document_not_found")


# --- deletions -----------------------------------------------------------------------------


def test_a_deletion_tells_what_is_gone_and_leaves_nothing(api: Api) -> None:
    api.ingest("To be gone soon.", document_id="gone")
    version = api.http.get("/documents/gone").json()["versions"][0]["version_id"]
    receipt = api.http.delete("/documents/gone").json()
    assert receipt == {
        "collection": "default", "document_ids": ["gone"], "chunks": 1, "versions": 1,
        "blobs": 3, "cached_vectors": 1, "dry_run": False,
    }  # fmt: skip
    assert not (api.settings.data_dir / "blobs" / "versions" / version).exists()
    again = api.http.delete("/documents/gone")
    assert (again.status_code, code_of(again)) == (404, "document_not_found")
    entries = api.http.get("/audit", params={"action": "document.delete"}).json()["entries"]
    assert (entries[0]["target"], entries[0]["actor"]) == ("gone", "admin")


def test_a_dry_run_deletes_nothing(api: Api) -> None:
    for number in (7, 8):
        api.ingest(f"Old {number}.", document_id=f"old-{number}", metadata={"age": number})
    body = {"filter": {"age": {"$gte": 8}}}
    rehearsed = api.http.post("/documents/delete", json=body | {"dry_run": True}).json()
    assert (rehearsed["document_ids"], rehearsed["dry_run"]) == (["old-8"], True)
    assert api.http.get("/documents/old-8").status_code == 200
    done = api.http.post("/documents/delete", json=body).json()
    assert (done["document_ids"], done["chunks"], done["dry_run"]) == (["old-8"], 1, False)
    assert api.http.get("/documents/old-8").status_code == 404
    assert api.http.delete("/documents/old-7").status_code == 200


@pytest.mark.parametrize("filter_", [{"\0": 1}, {"a": ["\0"]}, {"a": "\0"}, {"$or": [{}, 1]}])
def test_a_filter_is_checked_before_anything_is_recorded(api: Api, filter_: object) -> None:
    answer = api.http.post("/documents/delete", json={"filter": filter_})
    assert (answer.status_code, code_of(answer)) == (422, "invalid_filter")


@pytest.mark.parametrize("body", [{}, {"filter": {}}, {"filter": None}])
def test_everything_is_not_deleted_by_an_empty_filter(api: Api, body: object) -> None:
    answer = api.http.post("/documents/delete", json=body)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_input")


# --- access --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/documents?collection=default"),
        ("GET", "/documents/report"),
        ("GET", "/documents/report/content"),
        ("GET", "/documents/report/chunks"),
        ("GET", "/documents/report/pages/1.png"),
        ("PATCH", "/documents/report"),
        ("DELETE", "/documents/report"),
        ("POST", "/documents/delete"),
    ],
)
def test_a_key_for_other_collections_sees_and_changes_nothing(
    api: Api, method: str, path: str
) -> None:
    stranger = api.key("query", "ingest", collections=["other"])
    bodies = {"PATCH": {"title": "x"}, "POST": {"filter": {"year": 1}}}
    answer = api.http.request(
        method, path, json=bodies.get(method), headers={"X-API-Key": "", **stranger}
    )
    assert (answer.status_code, code_of(answer)) == (403, "forbidden")


def test_a_key_that_only_asks_changes_nothing(api: Api) -> None:
    reader = {"X-API-Key": "", **api.key("query")}
    assert api.http.get("/documents/report", headers=reader).status_code == 200
    for method, body in (("PATCH", {"title": "x"}), ("DELETE", None)):
        answer = api.http.request(method, "/documents/report", json=body, headers=reader)
        assert code_of(answer) == "forbidden"
