"""Compare the PDF profiles `fast` and `layout`: speed, words kept, structure found.

    python benchmarks/pdf_profiles.py [--documents ../shared/data/documents] [--only fast]

Structure is measured on PDFs made here, whose headings, lists, tables and columns are known, in
Russian and English, ruled and unruled; words also on the shared documents, against PDFium's text.
Both profiles run in one process, one after the other, on the same files; trust the ratios.
"""

import argparse
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pypdfium2
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    BaseDocTemplate,
    Frame,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from ragcore.adapters.docling.formats import SourceFormat
from ragcore.adapters.docling.reading import Reading, ReadingOptions, read

DOCUMENTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "documents"
FONTS = Path("/usr/share/fonts/truetype/dejavu")
PROFILES = ("fast", "layout")

WORDS = {
    "en": tuple(
        "harbour tide keeper morning lantern vessel pilot journal current anchor signal weather "  # noqa: SIM905
        "cargo custom bridge northern quiet between always records through".split()
    ),
    "ru": tuple(
        "гавань прилив смотритель утро фонарь судно лоцман журнал течение якорь сигнал погода "  # noqa: SIM905
        "груз таможня мост северный тихий между всегда записывает через".split()
    ),
}


@dataclass
class Known:
    """A PDF made here, and what is in it."""

    path: Path
    headings: list[str] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    """First words of the paragraphs, in the order of reading."""


# --- PDFs with known structure -------------------------------------------------------------


def make_documents(directory: Path) -> list[Known]:
    """Write one PDF for each combination of language, columns, rulings and style of headings."""
    fonts = _fonts()
    made = []
    for language in ("en", "ru") if "DejaVu" in fonts else ("en",):
        for columns in (1, 2):
            for ruled in (True, False):
                for headings in ("large", "bold"):
                    name = f"{language}-{columns}-{'ruled' if ruled else 'bare'}-{headings}.pdf"
                    made.append(_make(directory / name, language, columns, ruled, headings, fonts))
    return made


def _fonts() -> tuple[str, str]:
    if not (FONTS / "DejaVuSans.ttf").exists():
        return "Helvetica", "Helvetica-Bold"
    pdfmetrics.registerFont(TTFont("DejaVu", str(FONTS / "DejaVuSans.ttf")))
    pdfmetrics.registerFont(TTFont("DejaVu-Bold", str(FONTS / "DejaVuSans-Bold.ttf")))
    return "DejaVu", "DejaVu-Bold"


def _make(
    path: Path, language: str, columns: int, ruled: bool, headings: str, fonts: tuple[str, str]
) -> Known:
    chance = random.Random(path.name)
    plain, bold = fonts
    body = ParagraphStyle("body", fontName=plain, fontSize=10, leading=13, spaceAfter=7)
    head = ParagraphStyle(
        "head", fontName=bold, fontSize=15 if headings == "large" else 10, leading=19, spaceAfter=5
    )
    item = ParagraphStyle("item", parent=body, leftIndent=14, bulletIndent=2)
    known, story = Known(path), []
    for section in range(1, 9):
        known.headings.append(f"{section} {_phrase(chance, language, 3).capitalize()}")
        story.append(Paragraph(known.headings[-1], head))
        for _ in range(3):
            text = " ".join(_sentence(chance, language) for _ in range(5))
            known.order.append(" ".join(text.split()[:6]))
            story.append(Paragraph(text, body))
        for _ in range(3):
            known.items.append(_phrase(chance, language, 6))
            story.append(Paragraph(known.items[-1], item, bulletText="•"))
        if section % 2 == 0:
            known.tables.append(_rows(chance, language, 3 if columns == 2 else 4))
            lines = [("GRID", (0, 0), (-1, -1), 0.5, colors.black)] if ruled else []
            style = TableStyle([*lines, ("FONT", (0, 0), (-1, -1), plain, 9)])
            table = Table(known.tables[-1], style=style, hAlign="LEFT", splitByRow=0)
            story += [table, Spacer(1, 8)]
    _build(path, story, columns)
    return known


def _build(path: Path, story: list[Any], columns: int) -> None:
    width, height = A4
    gutter = 20
    each = (width - 120 - gutter * (columns - 1)) / columns
    frames = [Frame(60 + n * (each + gutter), 60, each, height - 120) for n in range(columns)]

    def margins(canvas: Any, template: Any) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawString(60, height - 40, "Journal of the harbour of Elverin")
        canvas.drawCentredString(width / 2, 30, str(template.page))

    template = BaseDocTemplate(str(path), pagesize=A4)
    template.addPageTemplates([PageTemplate(frames=frames, onPage=margins)])
    template.build(story)


def _phrase(chance: random.Random, language: str, length: int) -> str:
    return " ".join(chance.choice(WORDS[language]) for _ in range(length))


def _sentence(chance: random.Random, language: str) -> str:
    return _phrase(chance, language, chance.randint(6, 14)).capitalize() + "."


def _rows(chance: random.Random, language: str, columns: int) -> list[list[str]]:
    header = [_phrase(chance, language, 1).capitalize() for _ in range(columns)]
    body = [
        [_phrase(chance, language, 1), *(str(chance.randint(10, 9999)) for _ in range(columns - 1))]
        for _ in range(6)
    ]
    return [header, *body]


# --- measures ------------------------------------------------------------------------------


@dataclass
class Score:
    """Sums over documents; shares are of these."""

    pages: int = 0
    cpu_seconds: float = 0.0
    words: Counter[str] = field(default_factory=Counter)
    headings: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)
    tables: Counter[str] = field(default_factory=Counter)
    cells: Counter[str] = field(default_factory=Counter)
    order: Counter[str] = field(default_factory=Counter)

    def count(self, name: str, found: int, wanted: int, given: int | None = None) -> None:
        """Add `found` of `wanted`, where `given` were offered."""
        getattr(self, name).update(found=found, wanted=wanted, given=given or 0)

    def recall(self, name: str) -> str:
        counts = getattr(self, name)
        return f"{counts['found'] / counts['wanted']:.3f}" if counts["wanted"] else "–"

    def precision(self, name: str) -> str:
        counts = getattr(self, name)
        return f"{counts['found'] / counts['given']:.3f}" if counts["given"] else "–"


def measure(path: Path, profile: str, score: Score) -> Reading:
    """Read a file, adding its pages, processor time and words."""
    started = time.process_time()
    reading = read(path, format=SourceFormat.PDF, options=ReadingOptions(pdf_profile=profile))
    score.cpu_seconds += time.process_time() - started
    score.pages += reading.pages or 0
    wanted, found = Counter(_text_of(path)), Counter(_words_in(reading))
    score.count("words", sum((wanted & found).values()), sum(wanted.values()))
    return reading


def _text_of(path: Path) -> list[str]:
    document = pypdfium2.PdfDocument(path)
    text = "\n".join(page.get_textpage().get_text_range() for page in document)
    document.close()
    return re.findall(r"\w{2,}", text)


def _words_in(reading: Reading) -> Iterator[str]:
    for item in reading.document.texts:
        yield from re.findall(r"\w{2,}", item.text)
    for table in reading.document.tables:
        for cell in table.data.table_cells:
            yield from re.findall(r"\w{2,}", cell.text)


def compare(reading: Reading, known: Known, score: Score) -> None:
    """Hold what was understood against what is there."""
    document = reading.document
    texts = {"section_header": [], "list_item": []}
    for item in document.texts:
        texts.setdefault(item.label.value, []).append(" ".join(item.text.split()))
    for name, label, wanted in (
        ("headings", "section_header", known.headings),
        ("items", "list_item", known.items),
    ):
        given = Counter(texts[label])
        score.count(name, sum((Counter(wanted) & given).values()), len(wanted), sum(given.values()))
    tables = [[[cell.text for cell in row] for row in table.data.grid] for table in document.tables]
    score.count("tables", sum(t in tables for t in known.tables), len(known.tables), len(tables))
    wanted_cells = Counter(cell for table in known.tables for row in table for cell in row)
    given_cells = Counter(cell for table in tables for row in table for cell in row if cell)
    score.count("cells", sum((wanted_cells & given_cells).values()), sum(wanted_cells.values()))
    _compare_order(" ".join(" ".join(item.text for item in document.texts).split()), known, score)


def _compare_order(text: str, known: Known, score: Score) -> None:
    places = [text.find(beginning) for beginning in known.order]
    pairs = list(pairwise(places))
    score.count("order", sum(0 <= one < other for one, other in pairs), len(pairs))


# --- report --------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, default=DOCUMENTS)
    parser.add_argument("--only", choices=PROFILES)
    chosen = parser.parse_args(arguments)
    profiles = (chosen.only,) if chosen.only else PROFILES
    made, shared = ({p: Score() for p in profiles} for _ in range(2))
    with tempfile.TemporaryDirectory() as directory:
        documents = make_documents(Path(directory))
        for profile in profiles:
            measure(documents[0].path, profile, Score())  # imports and weights, not counted
            for known in documents:
                compare(measure(known.path, profile, made[profile]), known, made[profile])
            for path in _with_text(chosen.documents):
                measure(path, profile, shared[profile])
    _print(made, shared)


def _with_text(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*.pdf")) if "scan" not in path.name]


def _print(made: dict[str, Score], shared: dict[str, Score]) -> None:
    rows: list[tuple[str, dict[str, Any]]] = [
        ("pages", {p: s.pages for p, s in made.items()}),
        ("pages per CPU second", {p: f"{s.pages / s.cpu_seconds:.1f}" for p, s in made.items()}),
        ("words kept, made here", {p: s.recall("words") for p, s in made.items()}),
        ("words kept, real files", {p: s.recall("words") for p, s in shared.items()}),
        ("headings: recall", {p: s.recall("headings") for p, s in made.items()}),
        ("headings: precision", {p: s.precision("headings") for p, s in made.items()}),
        ("list items: recall", {p: s.recall("items") for p, s in made.items()}),
        ("tables: exactly right", {p: s.recall("tables") for p, s in made.items()}),
        ("tables: precision", {p: s.precision("tables") for p, s in made.items()}),
        ("cells: recall", {p: s.recall("cells") for p, s in made.items()}),
        ("paragraphs in order", {p: s.recall("order") for p, s in made.items()}),
    ]
    print(f"{'':26}" + "".join(f"{profile:>10}" for profile in made))
    for name, values in rows:
        print(f"{name:26}" + "".join(f"{values[profile]:>10}" for profile in made))


if __name__ == "__main__":
    main()
