"""The content says what a file is; its name only chooses among kinds of text."""

import zipfile
from pathlib import Path

import pytest

from ragcore.adapters.docling import formats
from ragcore.adapters.docling.formats import SourceFormat, text_format
from ragcore.errors import ConversionFailed, UnsupportedFormat


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zip_of(path: Path, **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/").replace("_xml", ".xml"), content)
    return path


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"%PDF-1.7\n", SourceFormat.PDF),
        (b"\xef\xbb\xbf\n%PDF-1.4\n", SourceFormat.PDF),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), SourceFormat.IMAGE),
        (b"\xff\xd8\xff\xe0" + bytes(20), SourceFormat.IMAGE),
        (b"II*\x00" + bytes(20), SourceFormat.IMAGE),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", SourceFormat.IMAGE),
        (b"BM" + bytes(12) + b"\x28\x00\x00\x00", SourceFormat.IMAGE),
        (b"{\\rtf1\\ansi hello}", SourceFormat.RTF),
        (b"just some words", None),
        (b"BM is also how a sentence may start", None),
        (b"MZ, said the captain", None),
        (b"A text that explains the mark %PDF-1.4", None),
    ],
)
def test_first_bytes_tell_binary_formats(
    tmp_path: Path, head: bytes, expected: SourceFormat | None
) -> None:
    assert formats.binary_format(write(tmp_path / "misleading.txt", head)) is expected


@pytest.mark.parametrize(
    "head", [b"\x7fELF\x02", b"MZ\x90\x00\xff", b"\x1f\x8b\x08", b"7z\xbc\xaf'\x1c"]
)
def test_programs_and_archives_are_refused_by_name(tmp_path: Path, head: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match=r"the file is an? "):
        formats.binary_format(write(tmp_path / "a.pdf", head))


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("word__document_xml", SourceFormat.DOCX),
        ("ppt__presentation_xml", SourceFormat.PPTX),
        ("xl__workbook_xml", SourceFormat.XLSX),
    ],
)
def test_office_files_are_told_by_their_parts(
    tmp_path: Path, part: str, expected: SourceFormat
) -> None:
    path = zip_of(tmp_path / "a.zip", **{"[Content_Types]_xml": "<Types/>", part: "<x/>"})
    assert formats.binary_format(path) is expected


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ("application/vnd.oasis.opendocument.text", SourceFormat.ODT),
        ("application/vnd.oasis.opendocument.spreadsheet", SourceFormat.ODS),
        ("application/epub+zip", SourceFormat.EPUB),
    ],
)
def test_open_documents_are_told_by_what_they_declare(
    tmp_path: Path, declared: str, expected: SourceFormat
) -> None:
    assert formats.binary_format(zip_of(tmp_path / "a", mimetype=declared)) is expected


def test_an_ordinary_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="zip archive"):
        formats.binary_format(zip_of(tmp_path / "a.docx", readme="hello"))


def test_a_cut_zip_is_a_failed_conversion(tmp_path: Path) -> None:
    with pytest.raises(ConversionFailed, match="broken zip"):
        formats.binary_format(write(tmp_path / "a.docx", b"PK\x03\x04 and then nothing"))


MARKDOWN = "# Harbour\n\nSome text.\n\n- one\n- two\n"


@pytest.mark.parametrize(
    ("text", "filename", "mime_type", "expected"),
    [
        (MARKDOWN, "a.md", None, SourceFormat.MARKDOWN),
        (MARKDOWN, None, "text/markdown; charset=utf-8", SourceFormat.MARKDOWN),
        (MARKDOWN, None, None, SourceFormat.MARKDOWN),
        (MARKDOWN, "a.txt", None, SourceFormat.TEXT),
        (MARKDOWN, "a.TXT", "text/markdown", SourceFormat.TEXT),
        ("one word", "a.md", None, SourceFormat.MARKDOWN),
        ("one word", "a.pdf", "application/pdf", SourceFormat.TEXT),
        ("# comment\nx = 1\n", "a.py", None, SourceFormat.TEXT),
        ("<!DOCTYPE html><p>x", "a.docx", None, SourceFormat.HTML),
        ("<!-- saved --><html><body>x", None, None, SourceFormat.HTML),
        ("<div>one</div><p>two</p>", "a.html", None, SourceFormat.HTML),
        ("no tags at all", "a.html", None, SourceFormat.TEXT),
        ("<p align='center'>logo</p>\n\n# Title", "README.md", None, SourceFormat.MARKDOWN),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nhi", "a.txt", None, SourceFormat.VTT),
        ("WEBVTTX is no caption file", "a.txt", None, SourceFormat.TEXT),
        ("a;b\n1;2\n3;4\n", None, None, SourceFormat.CSV),
        ("a;b\n1;2\n", "a.csv", None, SourceFormat.CSV),
        ("Yes, it is.\nNo, it is not.\nWell.\n", None, None, SourceFormat.TEXT),
        ("= Title\n\n== Part\n\ntext", None, None, SourceFormat.ASCIIDOC),
        ("plain", "a.adoc", None, SourceFormat.ASCIIDOC),
        ("\\documentclass{article}\n\\begin{document}x", None, None, SourceFormat.LATEX),
        ("In \\LaTeX one writes\n\\documentclass{article}", "a.md", None, SourceFormat.MARKDOWN),
        ("From: a@b.c\nTo: d@e.f\nSubject: x\n\nhello", None, None, SourceFormat.EML),
        ("Subject: x\nFrom: a@b.c\n\nhello", "a.eml", None, SourceFormat.EML),
        ("To: whom it may concern\n\nhello", "a.txt", None, SourceFormat.TEXT),
        ("<?xml version='1.0'?><html><body/></html>", None, None, SourceFormat.HTML),
        ("<article><front/><body><p>x</p></body></article>", "a.xml", None, SourceFormat.JATS),
        ("<article><h1>a page</h1></article>", "a.html", None, SourceFormat.HTML),
        (
            "<?xml version='1.0'?><!DOCTYPE us-patent-grant SYSTEM 'x' [ ]><us-patent-grant/>",
            "a.xml",
            None,
            SourceFormat.USPTO,
        ),
        ('{"a": [1, 2]}', "a.json", "application/json", SourceFormat.TEXT),
        ("", "a.txt", None, SourceFormat.TEXT),
    ],
)
def test_text_is_told_by_content_then_name_then_signs(
    text: str, filename: str | None, mime_type: str | None, expected: SourceFormat
) -> None:
    assert text_format(text, filename=filename, mime_type=mime_type) is expected


def test_unknown_xml_is_refused_with_its_root() -> None:
    with pytest.raises(UnsupportedFormat, match="'rss'"):
        text_format("<?xml version='1.0'?><rss/>", filename="feed.xml", mime_type=None)


@pytest.mark.parametrize(
    ("data", "mime_type", "expected"),
    [
        (b"<?xml version='1.0' encoding='windows-1251'?><a/>", None, "windows-1251"),
        (b'<html><meta charset="koi8-r">', None, "koi8-r"),
        (b"<meta content='text/html; charset=cp1251'>", None, "cp1251"),
        (b"text", "text/plain; charset=UTF-16", "UTF-16"),
        (b"text", "text/plain", None),
    ],
)
def test_declared_encodings_are_found(
    data: bytes, mime_type: str | None, expected: str | None
) -> None:
    assert formats.declared_encoding(data, mime_type) == expected


def test_xml_is_made_to_declare_utf8() -> None:
    text = formats.as_utf8("<?xml version='1.0' encoding='cp1251'?><a/>", SourceFormat.JATS)
    assert text == "<?xml version='1.0' encoding='UTF-8'?><a/>"


def test_every_format_has_a_mime_type() -> None:
    assert all(source_format.mime_type for source_format in SourceFormat)
