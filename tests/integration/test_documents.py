"""Real documents of every format: the words and pages that their index names are in the chunks.

The files come from the shared data; further ones with known structure are made here. They are read
in this process: what the child around the reader does is tested elsewhere.
"""

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph, SimpleDocTemplate, Table, TableStyle

from ragcore.adapters.docling import pages, tesseract
from ragcore.adapters.docling.chunker import chunk_document, to_markdown
from ragcore.adapters.docling.formats import SourceFormat
from ragcore.adapters.docling.reading import Reading, ReadingOptions, read
from ragcore.adapters.models.tokenizers import load_counter
from ragcore.errors import ConversionFailed, MissingExtra, NotConfigured, PasswordRequired
from ragcore.model import Chunk

DOCUMENTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "documents"

# Docling warns about boxes of sheets that it clamps, and of its own deprecated fields.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
needs_tesseract = pytest.mark.skipif(
    not {"rus", "eng"} <= tesseract.installed_languages(),
    reason="needs Tesseract: apt-get install tesseract-ocr tesseract-ocr-rus",
)

FORMATS = {"jats": SourceFormat.JATS, "uspto": SourceFormat.USPTO, "pdf-scan": SourceFormat.PDF}
MAX_TOKENS = 384


@cache
def counter() -> Callable[[str], int]:
    count = load_counter("bundled")
    return lambda text: count("passage: " + text)


def chunks_of(reading: Reading) -> list[Chunk]:
    return chunk_document(
        reading.document,
        max_tokens=MAX_TOKENS,
        count_tokens=counter(),
        seed="document",
        markdown=to_markdown(reading.document),
    )


def normalised(text: str) -> str:
    """Collapse white space; Docling's PDF parser makes typographic quotes and dashes plain."""
    for fancy, plain in (("’", "'"), ("‘", "'"), ("–", "-"), ("—", "-")):
        text = text.replace(fancy, plain)
    return " ".join(text.split())


def everything(chunks: list[Chunk]) -> str:
    return normalised(" ".join(" ".join([*chunk.headings, chunk.text]) for chunk in chunks))


def read_pdf(path: Path, **options: Any) -> Reading:
    return read(path, format=SourceFormat.PDF, options=ReadingOptions(**options))


# --- the shared documents ------------------------------------------------------------------


def shared_documents() -> list[Any]:
    """Return one test case per file of the index."""
    if not DOCUMENTS.is_dir():
        reason = pytest.mark.skip(reason=f"needs the shared data sets in {DOCUMENTS}")
        return [pytest.param({}, marks=reason, id="shared data")]
    return [
        pytest.param(entry, id=entry["file"], marks=[needs_tesseract] if entry["needs_ocr"] else [])
        for entry in json.loads((DOCUMENTS / "index.json").read_text())
    ]


@pytest.mark.parametrize("entry", shared_documents())
def test_every_document_gives_the_words_and_pages_of_its_index(entry: dict[str, Any]) -> None:
    source_format = FORMATS.get(entry["format"]) or SourceFormat(entry["format"])
    reading = read(
        DOCUMENTS / entry["file"],
        format=source_format,
        options=ReadingOptions(),
        filename=Path(entry["file"]).name,
    )
    chunks = chunks_of(reading)

    text = everything(chunks)
    for wanted in entry["must_contain"]:
        assert normalised(wanted["text"]) in text
        if wanted["page"] is not None:
            on_page = [c for c in chunks if wanted["page"] in {place.page for place in c.places}]
            assert normalised(wanted["text"]) in everything(on_page)
    if entry["pages"] is not None:
        assert reading.pages == entry["pages"]
    assert all(chunk.tokens <= MAX_TOKENS for chunk in chunks)
    assert words_of(reading) <= set(re.findall(r"\w+", text))


def words_of(reading: Reading) -> set[str]:
    """Return the words of the body: of its texts and of its tables' cells."""
    document = reading.document
    texts = [getattr(item, "text", "") for item, _ in document.iterate_items()]
    texts += [cell.text for table in document.tables for cell in table.data.table_cells]
    return set(re.findall(r"\w+", normalised(" ".join(texts))))


def test_facts_of_the_file_are_extracted(shared_data: Path) -> None:
    documents = shared_data / "documents"
    book = read(documents / "poetry.epub", format=SourceFormat.EPUB, options=ReadingOptions())
    assert book.title == "Poetry"
    assert book.extracted["author"] == "Sarah Louisa Forten Purvis"
    handbook = read_pdf(documents / "faa_handbook.pdf")
    assert (handbook.title, handbook.extracted["author"]) == ("AMT General Handbook", "FAA")
    assert handbook.extracted["created"] == "2017-12-11T15:35:19Z"


def test_a_mail_names_its_attachments(shared_data: Path) -> None:
    reading = read(
        shared_data / "documents" / "mail_attachment.eml",
        format=SourceFormat.EML,
        options=ReadingOptions(),
    )
    assert "test.txt" in everything(chunks_of(reading))


@needs_tesseract
def test_a_scan_on_its_side_is_read_and_its_boxes_lie_on_the_page_as_it_is(
    shared_data: Path,
) -> None:
    reading = read_pdf(shared_data / "documents" / "scan_rotated_90.pdf")
    assert reading.ocr_pages == (1,)
    assert reading.ocr_confidence is not None
    assert reading.ocr_confidence > 0.8
    (chunk,) = chunks_of(reading)
    size = reading.document.pages[1].size
    assert chunk.box is not None
    left, top, right, bottom = chunk.box
    assert 0 <= left < right <= size.width
    assert 0 <= top < bottom <= size.height
    assert bottom - top > right - left, "lines on their side are higher than wide"


def test_without_tesseract_the_report_says_what_to_install(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tesseract, "installed_languages", frozenset)
    reading = read_pdf(shared_data / "documents" / "scan.pdf")
    assert reading.pages_without_text == (1,)
    assert "apt-get install tesseract-ocr tesseract-ocr-rus" in reading.warnings[0]


# --- documents with known structure --------------------------------------------------------

TIDES = [
    ["Port", "High water", "Low water"],
    ["Elverin", "04:12", "10:31"],
    ["Norrholm", "05:47", "11:58"],
    ["Sankt Petri", "06:20", "12:44"],
]
SENTENCE = "The harbour master of Port Elverin records the tide every morning before dawn. "


def report(path: Path, *, ruled: bool) -> Path:
    """Write a report with a title, two numbered sections, a list and a table."""
    styles = getSampleStyleSheet()
    lines = [("GRID", (0, 0), (-1, -1), 0.5, colors.black)] if ruled else []
    story = [
        Paragraph("Harbour report", styles["Title"]),
        Paragraph("1 Tides", styles["Heading1"]),
        Paragraph(SENTENCE * 6, styles["BodyText"]),
        Paragraph("1.1 Tables", styles["Heading2"]),
        Table(TIDES, style=TableStyle(lines)),
        Paragraph("2 Rules", styles["Heading1"]),
        Paragraph("Never sail at night.", styles["BodyText"], bulletText="•"),
        Paragraph("Always greet the keeper.", styles["BodyText"], bulletText="•"),
    ]
    SimpleDocTemplate(str(path), pagesize=A4, title="Tides of the year").build(story)
    return path


@pytest.mark.parametrize("profile", ["fast", "layout"])
def test_headings_paragraphs_and_titles_of_a_pdf(tmp_path: Path, profile: str) -> None:
    reading = read_pdf(report(tmp_path / "report.pdf", ruled=True), pdf_profile=profile)
    assert reading.title == "Tides of the year"
    assert reading.profile == profile
    markdown = to_markdown(reading.document)
    assert re.search(r"^#+ 1 Tides$", markdown, re.MULTILINE)
    assert (SENTENCE * 6).strip() in normalised(markdown)


@pytest.mark.parametrize("ruled", [True, False], ids=["ruled", "unruled"])
def test_a_table_of_a_pdf_keeps_its_cells(tmp_path: Path, ruled: bool) -> None:
    reading = read_pdf(report(tmp_path / "report.pdf", ruled=ruled))
    (table,) = reading.document.tables
    assert [[cell.text for cell in row] for row in table.data.grid] == TIDES


def test_sections_of_a_pdf_nest_by_size_and_number(tmp_path: Path) -> None:
    chunks = chunks_of(read_pdf(report(tmp_path / "report.pdf", ruled=True)))
    paths = {chunk.headings for chunk in chunks}
    assert ("Harbour report", "1 Tides", "1.1 Tables") in paths
    assert ("Harbour report", "2 Rules") in paths


def long_report(path: Path, page_count: int) -> Path:
    """Write pages with a running head, a number, and a heading on every tenth page."""
    canvas = Canvas(str(path), pagesize=A4)
    for number in range(1, page_count + 1):
        canvas.setFont("Helvetica", 9)
        canvas.drawString(72, 810, "Journal of the harbour of Elverin")
        canvas.drawCentredString(297, 30, str(number))
        if number % 10 == 1:
            canvas.setFont("Helvetica-Bold", 18)
            canvas.drawString(72, 740, f"Part {number // 10 + 1}")
        canvas.setFont("Helvetica", 11)
        for row in range(20):
            canvas.drawString(72, 700 - 16 * row, f"Marker M{number:05} row {row}: all is well.")
        canvas.showPage()
    canvas.save()
    return path


def test_windows_change_nothing_but_memory(tmp_path: Path) -> None:
    path = long_report(tmp_path / "long.pdf", 25)
    shares: list[float] = []
    in_windows = read(
        path,
        format=SourceFormat.PDF,
        options=ReadingOptions(window_pages=4),
        progress=shares.append,
    )
    at_once = read_pdf(path, window_pages=1000)
    assert to_markdown(in_windows.document) == to_markdown(at_once.document)
    assert [places_of(in_windows)] == [places_of(at_once)]
    assert shares == sorted(shares)
    assert len(shares) == 7
    assert shares[-1] == 1.0


def places_of(reading: Reading) -> list[Any]:
    return [(item.self_ref, item.prov) for item in reading.document.texts]


def test_every_chunk_of_a_long_pdf_knows_its_pages_and_part(tmp_path: Path) -> None:
    reading = read_pdf(long_report(tmp_path / "long.pdf", 25), window_pages=4)
    chunks = chunks_of(reading)
    for chunk in chunks:
        markers = {int(number) for number in re.findall(r"Marker M(\d+)", chunk.text)}
        assert markers == {place.page for place in chunk.places}
        assert {f"Part {(number - 1) // 10 + 1}" for number in markers} == {chunk.headings[-1]}
    assert "Journal of the harbour" not in everything(chunks)


def picture_of(path: Path, target: Path) -> Path:
    """Draw the first page of a PDF as a picture of a scan's resolution."""
    with pages.opened(path) as document:
        pages.render(document, 1, dots_per_inch=150).save(target, dpi=(150, 150))
    return target


@needs_tesseract
def test_only_the_scanned_pages_of_a_mixed_pdf_are_recognised(tmp_path: Path) -> None:
    scan = picture_of(report(tmp_path / "report.pdf", ruled=False), tmp_path / "scan.png")
    mixed = tmp_path / "mixed.pdf"
    canvas = Canvas(str(mixed), pagesize=A4)
    canvas.drawString(72, 700, "A page with a text layer of its own, the only one.")
    canvas.showPage()
    canvas.drawImage(str(scan), 0, 0, *A4)
    canvas.save()

    reading = read_pdf(mixed)
    assert reading.ocr_pages == (2,)
    assert reading.profile == "fast+ocr"
    first, *rest = chunks_of(reading)
    assert first.text == "A page with a text layer of its own, the only one."
    assert "Never sail at night" in everything(rest)
    assert {place.page for chunk in rest for place in chunk.places} == {2}


@needs_tesseract
def test_an_upside_down_picture_is_turned(tmp_path: Path) -> None:
    picture = picture_of(report(tmp_path / "report.pdf", ruled=False), tmp_path / "scan.png")
    with Image.open(picture) as image:
        image.rotate(180).save(picture, dpi=(150, 150))
    reading = read(picture, format=SourceFormat.IMAGE, options=ReadingOptions())
    assert normalised(SENTENCE) in everything(chunks_of(reading))
    heading = next(item for item in reading.document.texts if item.text == "Harbour report")
    assert heading.prov[0].bbox.t > 600, "the title stands at the foot of the picture as it is"


@needs_tesseract
def test_recognition_is_off_or_forced_when_told(tmp_path: Path) -> None:
    path = report(tmp_path / "report.pdf", ruled=False)
    forced = read_pdf(path, ocr="force")
    assert forced.ocr_pages == (1,)
    assert normalised(SENTENCE) in everything(chunks_of(forced))
    picture = picture_of(path, tmp_path / "scan.png")
    off = read(picture, format=SourceFormat.IMAGE, options=ReadingOptions(ocr="off"))
    assert (off.ocr_pages, off.pages_without_text) == ((), (1,))


# --- files that can't be read --------------------------------------------------------------


def test_an_encrypted_pdf_asks_for_its_password_and_opens_with_it(shared_data: Path) -> None:
    path = shared_data / "hostile" / "password.pdf"
    with pytest.raises(PasswordRequired, match=r"password\.pdf"):
        read_pdf(path)
    assert chunks_of(read_pdf(path, password=password_of(shared_data)))


def password_of(shared_data: Path) -> str:
    notes = json.loads((shared_data / "hostile" / "index.json").read_text())["files"]
    note: str = next(entry["note"] for entry in notes if entry["file"] == "password.pdf")
    return note.removeprefix("user password: ")


def test_a_damaged_pdf_fails_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "damaged.pdf"
    path.write_bytes(b"%PDF-1.7\n" + b"nothing of the kind\n" * 50)
    with pytest.raises(ConversionFailed, match=r"damaged\.pdf"):
        read_pdf(path)


def test_a_text_that_is_no_docx_fails_as_one(tmp_path: Path) -> None:
    path = tmp_path / "letter.docx"
    path.write_text("just text")
    with pytest.raises(ConversionFailed, match=r"letter\.docx"):
        read(path, format=SourceFormat.DOCX, options=ReadingOptions(), filename="letter.docx")


def test_the_full_profile_says_what_it_lacks(tmp_path: Path) -> None:
    path = report(tmp_path / "report.pdf", ruled=False)
    with pytest.raises((MissingExtra, NotConfigured), match="pdf_profile='full'"):
        read_pdf(path, pdf_profile="full", artifacts_path=tmp_path / "absent")
