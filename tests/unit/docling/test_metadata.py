"""What files say about themselves."""

from pathlib import Path

import pytest

from ragcore.adapters.docling import metadata
from ragcore.adapters.docling.formats import SourceFormat


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("D:20250124135915Z00'00'", "2025-01-24T13:59:15Z"),
        ("D:20250124135915+03'00'", "2025-01-24T10:59:15Z"),
        ("D:20250124135915", "2025-01-24T13:59:15"),
        ("D:2025", "2025-01-01T00:00:00"),
        ("20250230", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_pdf_dates(written: str, read: str | None) -> None:
    assert metadata.pdf_date(written) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2024", "2024"),
        ("2024-05-01", "2024-05-01"),
        ("2024-05-01T10:00:00+02:00", "2024-05-01T08:00:00Z"),
        ("May", None),
    ],
)
def test_iso_dates(written: str, read: str | None) -> None:
    assert metadata.iso_date(written) == read


def facts(tmp_path: Path, text: str, kind: SourceFormat) -> metadata.Facts:
    path = tmp_path / "file"
    path.write_text(text, encoding="utf-8")
    return metadata.of_file(path, kind)


def test_html_head(tmp_path: Path) -> None:
    page = (
        '<html lang="ru"><head><title>Порт &amp; гавань</title>'
        "<meta content='Анна' name='author'><meta property='article:published_time' "
        'content="2024-05-01"></head><body>…</body></html>'
    )
    found = facts(tmp_path, page, SourceFormat.HTML)
    assert found.title == "Порт & гавань"
    assert found.extracted == {"author": "Анна", "language": "ru", "created": "2024-05-01"}


def test_mail_headers(tmp_path: Path) -> None:
    mail = (
        "From: Anna <anna@example.com>\nTo: Boris <boris@example.com>\n"
        "Subject: =?utf-8?B?0J/RgNC40LvQuNCy?=\nDate: Mon, 6 May 2024 10:00:00 +0300\n\nText\n"
    )
    found = facts(tmp_path, mail, SourceFormat.EML)
    assert found.title == "Прилив"
    assert found.extracted["author"] == "Anna <anna@example.com>"
    assert found.extracted["created"] == "2024-05-06T07:00:00Z"


def test_front_matter_of_markdown(tmp_path: Path) -> None:
    found = facts(tmp_path, '---\ntitle: "Tides"\nlang: en\n---\n# Other\n', SourceFormat.MARKDOWN)
    assert (found.title, found.extracted) == ("Tides", {"language": "en"})


def test_a_file_name_is_no_title(tmp_path: Path) -> None:
    page = "<html><title>Microsoft Word - report.docx</title></html>"
    assert facts(tmp_path, page, SourceFormat.HTML).title is None


def test_damaged_metadata_is_no_metadata(tmp_path: Path) -> None:
    assert facts(tmp_path, "not a zip archive", SourceFormat.DOCX) == metadata.Facts()
