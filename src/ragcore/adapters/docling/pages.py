"""A first look at a PDF through PDFium: pages, text layer, outline. Cheap, and parses nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ragcore.errors import ConversionFailed, PasswordRequired

if TYPE_CHECKING:
    from PIL.Image import Image
    from pypdfium2 import PdfDocument, PdfPage


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """A bookmark: its title, and its depth from 1."""

    title: str
    level: int


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the file says about its pages before any is parsed."""

    count: int
    outline: tuple[OutlineEntry, ...] = ()
    scanned: tuple[int, ...] = ()
    """Numbers of the pages that show something and have no text to speak of."""


_MOST_BOOKMARKS = 5000
_MOST_OBJECTS = 2000
_IMAGE_OBJECT = 3  # FPDF_PAGEOBJ_IMAGE
_FEWEST_CHARACTERS = 20
"""A scan often carries a stamped number or a scanner's line: that is no text layer."""
_SCAN_COVER = 0.4
"""Share of the page that a picture covers, from which little text means a scan."""


def survey(path: Path, password: str | None = None) -> PageFacts:
    """Look at every page. Raises PasswordRequired, or ConversionFailed for a damaged file."""
    with opened(path, password) as document:
        count = len(document)
        if count == 0:
            raise ConversionFailed(f"{path.name!r} has no pages that can be read")
        scanned = tuple(n + 1 for n in range(count) if _shows_no_text(document, n))
        return PageFacts(count, _outline(document), scanned)


@contextmanager
def opened(path: Path, password: str | None = None) -> Iterator["PdfDocument"]:
    """Open a PDF in PDFium for a while."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path, password=password)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            raise PasswordRequired(
                f"{path.name!r} is encrypted; give its password with the upload"
            ) from error
        raise ConversionFailed(f"{path.name!r} is damaged or no PDF: {error}") from error
    try:
        yield document
    finally:
        document.close()


def render(document: "PdfDocument", number: int, *, dots_per_inch: int) -> "Image":
    """Draw a page, counted from 1, in shades of grey."""
    page = document[number - 1]
    try:
        image: Image = page.render(scale=dots_per_inch / 72, grayscale=True).to_pil()
    finally:
        page.close()
    return image


def turned_copy(path: Path, password: str | None, turns: dict[int, int], target: Path) -> None:
    """Write a copy in which pages, counted from 1, are turned clockwise by their degrees."""
    with opened(path, password) as document:
        for number, degrees in turns.items():
            page = document[number - 1]
            page.set_rotation((page.get_rotation() + degrees) % 360)
            page.close()
        document.save(target)


def pdf_of_image(path: Path, target: Path) -> None:
    """Write the frames of a picture as the pages of a PDF, upright, in their own resolution."""
    from PIL import Image, ImageOps, ImageSequence

    with Image.open(path) as image:
        dots_per_inch = resolution(image)
        frames = [ImageOps.exif_transpose(f).convert("RGB") for f in ImageSequence.Iterator(image)]
    frames[0].save(
        target,
        format="PDF",
        save_all=True,
        append_images=frames[1:],
        resolution=dots_per_inch,
        quality=95,
    )


def resolution(image: "Image") -> float:
    """Return the dots per inch that the picture claims, or that would make it a page's width."""
    claimed = float(image.info.get("dpi", (0, 0))[0])
    return claimed if 72 < claimed <= 1200 else max(72.0, image.width / _PAGE_WIDTH_INCHES)


_PAGE_WIDTH_INCHES = 8.27


def _shows_no_text(document: "PdfDocument", index: int) -> bool:
    """Look at one page; one that PDFium can't open is left to the parser to complain about."""
    import pypdfium2

    try:
        page = document[index]
    except pypdfium2.PdfiumError:
        return False
    try:
        return _is_scan(page)
    finally:
        page.close()


def _outline(document: "PdfDocument") -> tuple[OutlineEntry, ...]:
    return tuple(
        OutlineEntry(title, bookmark.level + 1)
        for bookmark in islice(document.get_toc(max_depth=6), _MOST_BOOKMARKS)
        if (title := (bookmark.get_title() or "").strip())
    )


def _is_scan(page: "PdfPage") -> bool:
    """Tell a page that shows a picture, or drawn letters, and has no text to speak of."""
    characters = len("".join(page.get_textpage().get_text_bounded().split()))
    if characters >= _FEWEST_CHARACTERS:
        return False
    objects = list(islice(page.get_objects(max_depth=3), _MOST_OBJECTS))
    if characters == 0:
        return bool(objects)
    width, height = page.get_size()
    pictures = [thing.get_bounds() for thing in objects if thing.type == _IMAGE_OBJECT]
    covered = sum((right - left) * (top - bottom) for left, bottom, right, top in pictures)
    return bool(covered >= _SCAN_COVER * width * height)
