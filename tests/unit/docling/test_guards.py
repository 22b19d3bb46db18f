"""What would cost minutes or gigabytes is refused at once; what is merely odd is not."""

import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.pdfgen.canvas import Canvas

from ragcore.adapters.docling import guards
from ragcore.adapters.docling.formats import SourceFormat
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import ConversionFailed, DocumentTooLarge, PasswordRequired

MIB = 1024 * 1024


def pdf(path: Path, *, pages: int = 1, password: str | None = None) -> Path:
    encryption = StandardEncryption(password) if password else None
    canvas = Canvas(str(path), encrypt=encryption)
    for number in range(pages):
        canvas.drawString(100, 700, f"page {number + 1}")
        canvas.showPage()
    canvas.save()
    return path


def test_a_file_over_the_limit_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "big"
    with path.open("wb") as file:
        file.truncate(2 * MIB + 1)
    guards.check_size(path, ConversionOptions(max_file_mb=3))
    with pytest.raises(DocumentTooLarge, match="the limit is 2 MiB"):
        guards.check_size(path, ConversionOptions(max_file_mb=2))


# --- zip containers ------------------------------------------------------------------------


def test_an_honest_container_passes(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", "<w:p>some words</w:p>" * 20_000)
    guards.check_zip(path)


def test_a_bomb_is_told_by_its_ratio_without_unpacking(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", bytes(20 * MIB))
    with pytest.raises(DocumentTooLarge, match=r"'word/document\.xml'.* times its packed size"):
        guards.check_zip(path)


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"{number}", "")
    with pytest.raises(DocumentTooLarge, match="20001 files"):
        guards.check_zip(path)


def test_an_encrypted_open_document_asks_for_its_password(tmp_path: Path) -> None:
    path = tmp_path / "a.odt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("META-INF/manifest.xml", "<manifest:encryption-data/>")
    with pytest.raises(PasswordRequired):
        guards.check_zip(path)


def test_an_encrypted_member_asks_for_its_password(tmp_path: Path) -> None:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("word/document.xml", "x")
    data = bytearray(buffer.getvalue())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 8] |= 1  # the flag "encrypted" in the container's directory
    path = tmp_path / "a.docx"
    path.write_bytes(data)
    with pytest.raises(PasswordRequired):
        guards.check_zip(path)


# --- PDF and pictures ----------------------------------------------------------------------


def test_pages_are_counted_before_parsing(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", pages=3)
    assert guards.check_pdf(path, max_pages=3, password=None) == 3
    with pytest.raises(DocumentTooLarge, match="3 pages, the limit is 2"):
        guards.check_pdf(path, max_pages=2, password=None)


def test_an_encrypted_pdf_opens_with_its_password_only(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", password="open sesame")
    assert guards.check_pdf(path, max_pages=9, password="open sesame") == 1
    for password in (None, "", "wrong"):
        with pytest.raises(PasswordRequired):
            guards.check_pdf(path, max_pages=9, password=password)


def test_a_damaged_pdf_is_a_failed_conversion(tmp_path: Path) -> None:
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.4\nnothing else")
    with pytest.raises(ConversionFailed, match="damaged"):
        guards.check_pdf(path, max_pages=9, password=None)


def test_pictures_are_measured_by_their_header(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("1", (1500, 1000)).save(path)
    guards.check_image(path, megapixels=2, max_pages=9)
    with pytest.raises(DocumentTooLarge, match="1500 x 1000"):
        guards.check_image(path, megapixels=1, max_pages=9)


def test_a_damaged_picture_is_a_failed_conversion(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    with pytest.raises(ConversionFailed, match="damaged"):
        guards.check_image(path, megapixels=1, max_pages=9)


# --- text ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source_format"),
    [
        ("<div>" * 300, SourceFormat.HTML),
        ("<ul><li>x" * 300, SourceFormat.HTML),
        ("<table><tr><td>" * 300, SourceFormat.HTML),
        ("text <span>" * 300, SourceFormat.MARKDOWN),
        (">" * 300 + " quote", SourceFormat.MARKDOWN),
        ("> " * 300 + "quote", SourceFormat.MARKDOWN),
        ("<article>" + "<sec>" * 300, SourceFormat.JATS),
    ],
)
def test_deep_nesting_is_refused(text: str, source_format: SourceFormat) -> None:
    with pytest.raises(ConversionFailed, match="deep"):
        guards.check_text(text, source_format)


@pytest.mark.parametrize(
    ("text", "source_format"),
    [
        ("<p>one" * 3000, SourceFormat.HTML),  # closed by what follows
        ("<li>one<br>" * 3000, SourceFormat.HTML),
        ("<div>x</div>" * 3000, SourceFormat.HTML),
        ("<path/>" * 3000, SourceFormat.HTML),
        ("<script>" + "'<div>'," * 3000 + "</script>", SourceFormat.HTML),
        ("<!--" + "<div>" * 3000 + "-->", SourceFormat.HTML),
        ("> quote\n" * 3000, SourceFormat.MARKDOWN),
        ("a > b > c\n" * 3000, SourceFormat.MARKDOWN),
        ("<div>" * 3000, SourceFormat.TEXT),
        ("<div>" * 3000, SourceFormat.CSV),
    ],
)
def test_wide_is_not_deep(text: str, source_format: SourceFormat) -> None:
    guards.check_text(text, source_format)


@given(st.integers(0, 200), st.integers(201, 400))
def test_the_border_of_depth_is_exact(allowed: int, refused: int) -> None:
    guards.check_text("<div>" * allowed + "</div>" * allowed, SourceFormat.HTML)
    with pytest.raises(ConversionFailed):
        guards.check_text("<div>" * refused + "</div>" * refused, SourceFormat.HTML)


@pytest.mark.parametrize(
    "declaration",
    ['<!ENTITY a "ha">', '<!ENTITY a SYSTEM "file:///etc/passwd">', '<!ENTITY % p "x">'],
)
def test_entities_of_the_documents_own_are_refused(declaration: str) -> None:
    with pytest.raises(ConversionFailed, match="XML entity"):
        guards.check_text(f"<!DOCTYPE article [{declaration}]><article/>", SourceFormat.JATS)


def test_pictures_of_a_patent_may_be_entities() -> None:
    declaration = '<!ENTITY D0001 SYSTEM "US1-D0001.TIF" NDATA TIF>'
    guards.check_text(f"<!DOCTYPE PATDOC [{declaration}]><PATDOC/>", SourceFormat.USPTO)
