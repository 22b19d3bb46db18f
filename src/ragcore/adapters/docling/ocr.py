"""Recognising scanned pages: Docling's Tesseract model, told which pages, and answering in lines.

Docling's model reads every page or none, and hands on single words, which no layout rule can put in
order. Imported in conversion children only.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from docling.datamodel.accelerator_options import AcceleratorOptions
from docling.datamodel.base_models import Page
from docling.datamodel.pipeline_options import OcrMode, TesseractCliOcrOptions
from docling.models.stages.ocr.tesseract_ocr_cli_model import TesseractOcrCliModel
from docling_core.types.doc import BoundingBox
from PIL import Image

from ragcore.adapters.docling.layouts import size_of
from ragcore.adapters.docling.tesseract import read_word

SCALE = 3.0
"""Pages are drawn with 216 dots an inch, Docling's own choice."""

_GARBAGE = 10.0
"""Words of less confidence, of 100, are specks and parts of pictures."""


class PageOcr(TesseractOcrCliModel):
    """Docling's Tesseract model for chosen pages, one text cell per line and column."""

    def __init__(self, languages: Collection[str], *, replace_text: bool) -> None:
        """`replace_text`: a page's own text layer is dropped, not only where a line covers it."""
        mode = OcrMode.FULL_PAGE if replace_text else OcrMode.LAYOUT_REGIONS
        super().__init__(
            enabled=True,
            artifacts_path=None,
            options=TesseractCliOcrOptions(lang=list(languages), mode=mode, scale=SCALE),
            accelerator_options=AcceleratorOptions(num_threads=1),
        )
        self.pages: frozenset[int] = frozenset()
        """Numbers of the pages to recognise; the others keep their own text."""
        self.recognised: set[int] = set()
        self.confidences: list[float] = []
        """Of every word so far, 0…1."""

    @property
    def confidence(self) -> float | None:
        return round(fmean(self.confidences), 4) if self.confidences else None

    def get_ocr_rects(self, page: Page) -> list[BoundingBox]:
        if page.page_no not in self.pages:
            return []
        self.recognised.add(page.page_no)
        size = size_of(page)
        return [BoundingBox(l=0, t=0, r=size.width, b=size.height)]

    def _perform_osd(self, ifilename: str) -> pd.DataFrame:
        """Answer that the page is upright: it was turned before (`tesseract.py`)."""
        return pd.DataFrame({"key": ["Orientation in degrees"], "value": [" 0"]})

    def _run_tesseract(self, ifilename: str, osd: Any) -> pd.DataFrame:
        words = super()._run_tesseract(ifilename, osd)
        words = words[words["conf"] >= _GARBAGE].copy()
        if {"rus", "eng"} <= set(self._native_codes):
            _settle_mixed_scripts(words, Path(ifilename))
        self.confidences.extend(float(confidence) / 100 for confidence in words["conf"])
        return pd.DataFrame(
            list(lines_of(words)), columns=["text", "conf", "left", "top", "width", "height"]
        )


# --- one word, two alphabets ---------------------------------------------------------------

_AMBIGUOUS = re.compile(r"[АВЕЗКМНОРСТУХІ]+[!|1Il]\W*")
_LATIN = re.compile(r"[A-Za-z0-9]{2,}\W*")
_MOST_OPINIONS = 40
"""Words of a page that are read twice more: each takes a few tenths of a second."""


def _settle_mixed_scripts(words: pd.DataFrame, page: Path) -> None:
    """Let each language alone read the words of letters that both alphabets have.

    Reading Russian and English at once, Tesseract takes "API" for "АР!" and is sure of it; alone,
    one language reads the word surely and the other does not.
    """
    ambiguous = [index for index, text in words["text"].items() if _AMBIGUOUS.fullmatch(str(text))]
    if not ambiguous:
        return
    with Image.open(page) as image, TemporaryDirectory(prefix="ragcore-words-") as scratch:
        for index in ambiguous[:_MOST_OPINIONS]:
            crop = image.crop(_with_margin(words.loc[index]))
            latin = read_word(crop, Path(scratch), "eng")
            cyrillic = read_word(crop, Path(scratch), "rus")
            if _LATIN.fullmatch(latin.text) and latin.confidence > cyrillic.confidence:
                words.loc[index, ["text", "conf"]] = [latin.text, latin.confidence]


def _with_margin(word: Any) -> tuple[int, int, int, int]:
    margin = max(3, int(word["height"]) // 4)
    left, top = int(word["left"]), int(word["top"])
    right, bottom = left + int(word["width"]), top + int(word["height"])
    return left - margin, top - margin, right + margin, bottom + margin


# --- words → lines -------------------------------------------------------------------------


def lines_of(words: pd.DataFrame) -> Iterator[tuple[str, float, float, float, float, float]]:
    """Yield text, confidence, left, top, width and height of each line; wide gaps divide a line."""
    for _, line in words.groupby(["block_num", "par_num", "line_num"], sort=False):
        part: list[Any] = []
        for word in line.itertuples():
            if part and word.left - (part[-1].left + part[-1].width) > 1.5 * _height(part):
                yield _line(part)
                part = []
            part.append(word)
        yield _line(part)


def _height(words: list[Any]) -> float:
    return float(max(word.height for word in words))


def _line(words: list[Any]) -> tuple[str, float, float, float, float, float]:
    text = " ".join(str(word.text) for word in words)
    left, right = min(w.left for w in words), max(w.left + w.width for w in words)
    top, bottom = min(w.top for w in words), max(w.top + w.height for w in words)
    top, bottom = font_box(text, float(top), float(bottom))
    return text, fmean(w.conf for w in words), left, top, right - left, bottom - top


_RISING = frozenset("bdfhklijtбёйф0123456789!?%&/|\"'«»“”")
_FALLING = frozenset("gjpqyдруфцщ,;()[]{}|/")


def font_box(text: str, top: float, bottom: float) -> tuple[float, float]:
    """Return top and bottom as the font has them, from those of the ink.

    "осень" and "Шифр" in one font have ink of different height; sizes of headings are told by the
    font's. Shares of the letter size: a quarter above the small letters, a fifth below the line.
    """
    rises = any(character in _RISING or character.isupper() for character in text)
    falls = any(character in _FALLING for character in text)
    size = (bottom - top) / (0.5 + 0.25 * rises + 0.2 * falls)
    return top - (0 if rises else 0.25 * size), bottom + (0 if falls else 0.2 * size)
