"""XQuAD articles as files of real formats, the same bytes' worth of text on every machine."""

import csv
import html
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"

Format = Literal["pdf", "docx", "html", "md", "txt", "csv"]
FORMATS: tuple[Format, ...] = ("docx", "html", "pdf", "md", "txt", "csv")

_FONTS = (
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"),
    Path("/usr/share/fonts/truetype/dejavu/DejaVuSans-Bold.ttf"),
)


@dataclass(frozen=True, slots=True)
class Question:
    text: str
    article: int
    paragraph: int
    """Position of its paragraph in the article."""


@dataclass(frozen=True, slots=True)
class Article:
    number: int
    title: str
    paragraphs: tuple[str, ...]
    questions: tuple[Question, ...]


def articles(language: str) -> list[Article]:
    """XQuAD's 48 articles; the same number is the same article in every language."""
    path = SHARED / "xquad" / f"xquad.{language}.json"
    data = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [
        Article(
            number,
            entry["title"].replace("_", " "),
            tuple(p["context"] for p in entry["paragraphs"]),
            tuple(
                Question(qa["question"], number, position)
                for position, p in enumerate(entry["paragraphs"])
                for qa in p["qas"]
            ),
        )
        for number, entry in enumerate(data)
    ]


def render(article: Article, form: Format, path: Path) -> None:
    """Write the article with its title as a heading and a heading for every paragraph."""
    sections = [(f"{n}. {_heading(p)}", p) for n, p in enumerate(article.paragraphs, start=1)]
    if form == "docx":
        _docx(article.title, sections, path)
    elif form == "pdf":
        _pdf(article.title, sections, path)
    else:
        path.write_text("".join(_text(article.title, sections, form)), encoding="utf-8")


def mixed_files(directory: Path, count: int) -> list[Path]:
    """Write `count` articles, Russian and English in turn, in all formats in turn."""
    both = [a for pair in zip(articles("en"), articles("ru"), strict=True) for a in pair]
    both += [_half(a) for a in both]  # an article and its first half have different bytes
    paths = []
    for number, article in enumerate(both[:count]):
        form = FORMATS[number % len(FORMATS)]
        path = directory / f"{number:03}.{form}"
        render(article, form, path)
        paths.append(path)
    return paths


def _half(article: Article) -> Article:
    kept = article.paragraphs[: len(article.paragraphs) // 2]
    words = tuple(" ".join(reversed(p.split(". "))) for p in kept)
    return Article(article.number, f"{article.title} (2)", words, ())


def _heading(paragraph: str) -> str:
    return " ".join(re.findall(r"\w+", paragraph)[:4])


def _text(title: str, sections: Sequence[tuple[str, str]], form: Format) -> Iterator[str]:
    if form == "md":
        yield f"# {title}\n\n"
        yield from (f"## {heading}\n\n{text}\n\n" for heading, text in sections)
    elif form == "html":
        yield f"<!doctype html><html><head><title>{html.escape(title)}</title></head><body>"
        yield f"<h1>{html.escape(title)}</h1>"
        for heading, text in sections:
            yield f"<h2>{html.escape(heading)}</h2><p>{html.escape(text)}</p>"
        yield "</body></html>"
    elif form == "csv":
        table = io.StringIO()
        csv.writer(table).writerows([("heading", "text"), *sections])
        yield table.getvalue()
    else:
        yield f"{title}\n\n"
        yield from (f"{heading}\n\n{text}\n\n" for heading, text in sections)


def _docx(title: str, sections: Sequence[tuple[str, str]], path: Path) -> None:
    from docx import Document

    document = Document()
    document.add_heading(title, level=1)
    for heading, text in sections:
        document.add_heading(heading, level=2)
        document.add_paragraph(text)
    document.save(str(path))


def _pdf(title: str, sections: Sequence[tuple[str, str]], path: Path) -> None:
    from reportlab.lib.styles import ParagraphStyle
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.platypus import Paragraph, SimpleDocTemplate

    for name, font in zip(("Body", "Body-Bold"), _FONTS, strict=True):
        pdfmetrics.registerFont(TTFont(name, str(font)))
    body = ParagraphStyle("body", fontName="Body", fontSize=10, leading=13, spaceAfter=8)
    second = ParagraphStyle("h2", fontName="Body-Bold", fontSize=13, leading=17, spaceBefore=8)
    first = ParagraphStyle("h1", fontName="Body-Bold", fontSize=18, leading=24, spaceAfter=12)
    flow = [Paragraph(html.escape(title), first)]
    for heading, text in sections:
        flow += [Paragraph(html.escape(heading), second), Paragraph(html.escape(text), body)]
    SimpleDocTemplate(str(path), title=title).build(flow)
