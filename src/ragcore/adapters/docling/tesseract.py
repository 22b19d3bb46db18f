"""Asking Tesseract itself: is it there, which languages, and which way up is this page.

Recognition runs through Docling (`ocr.py`). Here is what has to be known before: Docling turns a
sideways page for reading and keeps its boxes sideways, so lines come out in the wrong order; pages
are therefore turned upright first.
"""

import csv
import io
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

COMMAND = "tesseract"

_ROTATE = re.compile(r"^Rotate:\s*(\d+)", re.MULTILINE)
_CONFIDENCE = re.compile(r"^Orientation confidence:\s*([\d.]+)", re.MULTILINE)
_SURE = 2.0
"""Orientation confidence from which Tesseract was never seen to be wrong."""
_CERTAIN = 90.0
_ENOUGH_WORDS = 5
"""So many words of three letters, each read with certainty, don't come from a page on its side."""


@cache
def installed_languages() -> frozenset[str]:
    """Return the installed language packs; none where Tesseract is not installed."""
    if shutil.which(COMMAND) is None:
        return frozenset()
    listed = subprocess.run(
        [COMMAND, "--list-langs"], capture_output=True, text=True, check=False
    ).stdout
    return frozenset(listed.splitlines()[1:])


@dataclass(frozen=True, slots=True)
class Languages:
    """Which of the wished language packs can be used, and what to say about the others."""

    usable: tuple[str, ...]
    advice: str | None


def choose_languages(wished: Sequence[str]) -> Languages:
    """Return the installed ones of `wished`, with the advice to install what is missing."""
    installed = installed_languages()
    usable = tuple(language for language in wished if language in installed)
    missing = [language for language in wished if language not in installed]
    if not installed:
        packs = " ".join(f"tesseract-ocr-{language}" for language in wished)
        return Languages((), f"Tesseract is not installed: apt-get install tesseract-ocr {packs}")
    if missing:
        packs = " ".join(f"tesseract-ocr-{language}" for language in missing)
        return Languages(usable, f"OCR without {', '.join(missing)}: apt-get install {packs}")
    return Languages(usable, None)


def rotation_to_upright(image: "Image", directory: Path, languages: Sequence[str]) -> int:
    """Return by how many degrees clockwise a page has to be turned to stand upright.

    Tesseract's orientation detection decides where it is sure. Where it has too little text for
    that, the page is recognised in one direction after another, and the surest reading wins.
    """
    path = directory / "orientation.png"
    image.save(path)
    detected, confidence = _detected_rotation(path)
    if confidence >= _SURE:
        return detected
    readings: dict[int, float] = {}
    for degrees in (0, 90, 270, 180):
        image.rotate(-degrees, expand=True).save(path)
        certain, readings[degrees] = _read_words(path, languages)
        if certain >= _ENOUGH_WORDS:
            break
    return max(readings, key=lambda degrees: readings[degrees])


def _detected_rotation(path: Path) -> tuple[int, float]:
    found = subprocess.run(
        [COMMAND, str(path), "stdout", "--psm", "0", "-l", "osd"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    rotate, confidence = _ROTATE.search(found.stdout), _CONFIDENCE.search(found.stdout)
    if found.returncode or rotate is None or confidence is None:
        return 0, 0.0
    return int(rotate.group(1)) % 360, float(confidence.group(1))


@dataclass(frozen=True, slots=True)
class Word:
    """A word as one language reads it; confidence 0…100."""

    text: str
    confidence: float


def read_word(image: "Image", directory: Path, language: str) -> Word:
    """Return the one word in a picture; empty where nothing is read."""
    path = directory / "word.png"
    image.save(path)
    rows = _table(path, [language], page_segmentation=8)
    text = " ".join(row["text"] for row in rows)
    return Word(text, max((float(row["conf"]) for row in rows), default=0.0))


def _read_words(path: Path, languages: Sequence[str]) -> tuple[int, float]:
    """Return how many words are read with certainty, and a measure of how well all are read."""
    rows = _table(path, languages)
    words = [float(row["conf"]) for row in rows if re.search(r"\w{3}", row["text"])]
    certain = sum(confidence >= _CERTAIN for confidence in words)
    return certain, sum(max(0.0, confidence - 50) for confidence in words)


def _table(
    path: Path, languages: Sequence[str], *, page_segmentation: int = 3
) -> list[dict[str, str]]:
    """Return the rows of Tesseract's table that hold a word."""
    command = [COMMAND, str(path), "stdout", "-l", "+".join(languages)]
    found = subprocess.run(
        [*command, "--psm", str(page_segmentation), "tsv"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    rows = csv.DictReader(io.StringIO(found.stdout), delimiter="\t", quoting=csv.QUOTE_NONE)
    return [row for row in rows if (row["text"] or "").strip()]
