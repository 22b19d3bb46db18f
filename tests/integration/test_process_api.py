"""Open WebUI's external document loader, as Open WebUI 0.12 speaks to it."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import httpx
import pytest
from reportlab.lib.pagesizes import A4
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

from apis import Api, code_of, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers
from ragcore.settings import ConversionSettings

LINES = (
    "The harbour of Elverin was built in 1871 and has two piers.",
    "Смотритель маяка записывал погоду три раза в день.",
)


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        conversion=ConversionSettings(max_file_mb=2),
    ) as api:
        yield api


def pdf(path: Path) -> bytes:
    font = Path(__import__("matplotlib").get_data_path(), "fonts/ttf/DejaVuSans.ttf")
    pdfmetrics.registerFont(TTFont("DejaVu", str(font)))
    canvas = Canvas(str(path), pagesize=A4)
    for line in LINES:
        canvas.setFont("DejaVu", 12)
        canvas.drawString(72, 700, line)
        canvas.showPage()
    canvas.save()
    return path.read_bytes()


def sent(api: Api, content: bytes, name: str | None, **headers: str) -> httpx.Response:
    """Send a file as Open WebUI does: under the name by which it keeps it."""
    if name is not None:
        headers["X-Filename"] = quote(f"{uuid4()}_{name}")
    return api.http.put(
        "/process", content=content, headers={"Content-Type": "application/pdf"} | headers
    )


def test_a_file_comes_back_page_by_page(api: Api, tmp_path: Path) -> None:
    answer = sent(api, pdf(tmp_path / "a.pdf"), "отчёт 2026.pdf")
    assert answer.status_code == 200, answer.text
    pages = answer.json()
    assert [page["page_content"] for page in pages] == list(LINES)
    assert [page["metadata"]["page"] for page in pages] == [0, 1]  # as Open WebUI counts
    assert {page["metadata"]["source"] for page in pages} == {"отчёт 2026.pdf"}


def test_a_format_without_pages_is_one_page_of_markdown(api: Api) -> None:
    text = "# Маяки\n\nМаяк зажгли осенью.\n\n| год | маяков |\n|---|---|\n| 1871 | 2 |\n"
    (page,) = sent(api, text.encode(), "маяки.md").json()
    assert page["page_content"].startswith("# Маяки\n\nМаяк зажгли осенью.")
    assert "1871" in page["page_content"]
    assert page["metadata"] == {"title": "Маяки", "language": "ru", "source": "маяки.md"}


def test_a_file_without_a_name_is_known_by_its_content(api: Api, tmp_path: Path) -> None:
    pages = sent(api, pdf(tmp_path / "a.pdf"), None).json()
    assert len(pages) == 2
    assert "source" not in pages[0]["metadata"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a\0b.txt", "x" * 3000, "a\r\nX-Evil: 1"])
def test_a_name_is_told_back_and_does_nothing(api: Api, name: str) -> None:
    (page,) = sent(api, b"Two piers.", name).json()
    source = page["metadata"]["source"]
    assert source.isprintable() and len(source) <= 1000  # told back, and never used as a path
    assert page["page_content"] == "Two piers."


@pytest.mark.parametrize(
    ("content", "name", "status", "code"),
    [
        (b"", "a.txt", 422, "no_text_found"),
        (b"\x7fELF\x02\x00" * 50, "a.bin", 415, "unsupported_format"),
        (b"%PDF-1.7 and no more", "a.pdf", 422, "conversion_failed"),
        (b"x" * (4 * 2**20), "a.txt", 413, "document_too_large"),
    ],
)
def test_what_can_not_be_read_says_why(
    api: Api, content: bytes, name: str, status: int, code: str
) -> None:
    answer = sent(api, content, name)
    assert (answer.status_code, code_of(answer)) == (status, code)
    assert not list((api.settings.data_dir / "work").rglob("convert-*"))


def test_it_takes_a_key_that_may_ingest(api: Api) -> None:
    nobody = httpx.put(f"{api.url}/process", content=b"Two piers.")
    assert nobody.status_code == 401
    asking = {"X-API-Key": "", **api.key("query")}
    assert sent(api, b"Two piers.", "a.txt", **asking).status_code == 403
    taking = {"X-API-Key": "", **api.key("ingest")}
    assert sent(api, b"Two piers.", "a.txt", **taking).status_code == 200


def test_nothing_of_it_is_stored(api: Api) -> None:
    sent(api, b"Two piers.", "a.txt")
    assert api.http.get("/documents").json()["documents"] == []
    assert api.http.get("/jobs").json()["jobs"] == []


def test_real_documents_come_back_with_their_pages(api: Api, shared_data: Path) -> None:
    pages = sent(api, (shared_data / "documents/word_processor.pdf").read_bytes(), "w.pdf").json()
    numbers = [page["metadata"]["page"] for page in pages]
    assert len(numbers) > 1 and numbers == sorted(set(numbers))
    assert all(page["page_content"] for page in pages)
    (sheet,) = sent(api, (shared_data / "documents/word_tables.docx").read_bytes(), "t.docx").json()
    assert "|" in sheet["page_content"]
