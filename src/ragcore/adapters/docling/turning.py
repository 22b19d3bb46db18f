"""Boxes of pages that were turned for reading, put back on the page as it is in the file."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ragcore.model import Box

if TYPE_CHECKING:
    from docling_core.types.doc import DoclingDocument


def turn_back(document: "DoclingDocument", turns: Mapping[int, int]) -> None:
    """Turn the boxes of all items on turned pages back, and the pages' sizes with them."""
    from docling_core.types.doc import BoundingBox, Size

    sizes = {number: document.pages[number].size for number in turns if number in document.pages}
    for item in (*document.texts, *document.tables, *document.pictures):
        for prov in item.prov:
            if (size := sizes.get(prov.page_no)) is None:
                continue
            box = prov.bbox.to_top_left_origin(size.height)
            left, top, right, bottom = turned_back(
                (box.l, box.t, box.r, box.b), turns[prov.page_no], size.width, size.height
            )
            prov.bbox = BoundingBox(l=left, t=top, r=right, b=bottom)
    for number, size in sizes.items():
        if turns[number] in (90, 270):
            document.pages[number].size = Size(width=size.height, height=size.width)


def turned_back(box: Box, degrees: int, width: float, height: float) -> Box:
    """Return a box of an upright page where it was before the page was turned clockwise.

    `width` and `height` are the upright page's; both boxes count from the top-left corner.
    """
    left, top, right, bottom = box
    if degrees == 90:
        return top, width - right, bottom, width - left
    if degrees == 180:
        return width - right, height - bottom, width - left, height - top
    if degrees == 270:
        return height - bottom, left, height - top, right
    return box
