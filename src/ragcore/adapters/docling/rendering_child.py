"""The drawing child: `python -m ragcore.adapters.docling.rendering_child LIFELINE MEMORY_MB …`.

Draws one page of one file and ends. Started by `rendering.PageRenderer` and of no use by hand. It
is expendable: the drawing lies where it was told, and its last words are one line of JSON. It
imports nothing but what it draws with, so that it starts in a tenth of a second.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ragcore.adapters.docling import formats, guards, pages, sandbox
from ragcore.adapters.docling.formats import SourceFormat
from ragcore.errors import ConversionFailed, PageNotFound, RagError

if TYPE_CHECKING:
    from PIL.Image import Image

_POINTS_PER_INCH = 72
_MOST_PIXELS = 25_000_000
"""Of a drawing: a page may claim to be 200 inches wide."""


def main() -> None:
    lifeline, memory_mb, megapixels = map(int, sys.argv[1:4])
    source, target = Path(sys.argv[4]), Path(sys.argv[5])
    page, dots_per_inch = map(int, sys.argv[6:8])
    sandbox.die_with(lifeline)
    sandbox.limit_resources(memory_mb)
    sandbox.forgo_privileges()
    sandbox.leave_network()
    guards.limit_pictures(megapixels)
    try:
        width, height = draw(source, target, page, dots_per_inch)
    except Exception as error:  # noqa: BLE001 - the edge: whatever it is, the owner is told
        known = error if isinstance(error, RagError) else _failure(error)
        told: dict[str, str | float] = {"error": type(known).__name__, "message": str(known)[:500]}
    else:
        told = {"width": width, "height": height}
    sys.stdout.write(json.dumps(told))


def draw(source: Path, target: Path, page: int, dots_per_inch: int) -> tuple[float, float]:
    """Write a page, counted from 1, as PNG; return its width and height in points.

    The page lies as it lies in the file, where the boxes of chunks are measured. Drawn smaller
    than asked where it would be too large. Raises PageNotFound and ConversionError.
    """
    source_format = formats.binary_format(source)
    if source_format is SourceFormat.PDF:
        image, size = _drawn_pdf(source, page, dots_per_inch)
    elif source_format is SourceFormat.IMAGE:
        image, size = _drawn_picture(source, page, dots_per_inch)
    else:
        raise PageNotFound("only pages of PDF files and pictures can be drawn; this is neither")
    image.save(target, format="PNG", compress_level=4)
    return size


def _drawn_pdf(
    source: Path, number: int, dots_per_inch: int
) -> tuple["Image", tuple[float, float]]:
    with pages.opened(source) as document:
        _require(number, len(document))
        page = document[number - 1]
        width, height = page.get_size()
        scale = _scale(width, height, dots_per_inch)
        image: Image = page.render(scale=scale).to_pil()
        page.close()
    return image, (width, height)


def _drawn_picture(
    source: Path, number: int, dots_per_inch: int
) -> tuple["Image", tuple[float, float]]:
    from PIL import Image, ImageOps

    with Image.open(source) as picture:
        _require(number, getattr(picture, "n_frames", 1))
        resolution = pages.resolution(picture)
        picture.seek(number - 1)
        frame = ImageOps.exif_transpose(picture).convert("RGB")
    width, height = (side * _POINTS_PER_INCH / resolution for side in frame.size)
    scale = min(_scale(width, height, dots_per_inch), resolution / _POINTS_PER_INCH)
    frame.thumbnail((max(1, round(width * scale)), max(1, round(height * scale))))
    return frame, (width, height)


def _require(number: int, count: int) -> None:
    if not 1 <= number <= count:
        raise PageNotFound(f"there is no page {number}: the document has {count}")


def _scale(width: float, height: float, dots_per_inch: int) -> float:
    """Return pixels per point, as asked, or as many as a drawing may have."""
    largest: float = (_MOST_PIXELS / max(1.0, width * height)) ** 0.5
    return min(dots_per_inch / _POINTS_PER_INCH, largest)


def _failure(error: Exception) -> ConversionFailed:
    return ConversionFailed(f"the page could not be drawn: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
