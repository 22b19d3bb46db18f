"""What only the whole document tells: levels of headings, and lines repeated on every page.

Levels come from the bookmarks where a title matches one, otherwise from the size of the letters and
the numbering: among headings of one size, `2.1` is deeper than `2`.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from ragcore.adapters.docling.pages import OutlineEntry

if TYPE_CHECKING:
    from docling_core.types.doc import DoclingDocument, SectionHeaderItem, TextItem

StyleKey = tuple[int, int, int]

DEEPEST_LEVEL = 6
_SAME_SIZE = 0.06
"""Relative difference up to which two sizes are one: letters are measured, not declared."""


def set_levels(
    document: "DoclingDocument",
    styles: Mapping[StyleKey, float],
    outline: Sequence[OutlineEntry] = (),
) -> None:
    """Give every heading of a paged document its level, 1…6."""
    from docling_core.types.doc import SectionHeaderItem

    headings = [item for item in document.texts if isinstance(item, SectionHeaderItem)]
    sizes = [styles.get(_style_key(item, document), 0.0) for item in headings]
    bookmarks = {_normalised(entry.title): entry.level for entry in outline}
    ranked = levels([item.text for item in headings], sizes)
    for item, level in zip(headings, ranked, strict=True):
        item.level = min(bookmarks.get(_normalised(item.text), level), DEEPEST_LEVEL)


def levels(texts: Sequence[str], sizes: Sequence[float]) -> list[int]:
    """Return a level, 1…6, for each heading: larger letters first, then shallower numbering."""
    grouped = _size_groups(sizes)
    keys = [(grouped[size], numbering_depth(text)) for text, size in zip(texts, sizes, strict=True)]
    if texts and _is_title_of_numbered(texts, keys):
        keys[0] = (keys[0][0], 0)
    rank = {key: position for position, key in enumerate(sorted(set(keys)), start=1)}
    return [min(rank[key], DEEPEST_LEVEL) for key in keys]


def _is_title_of_numbered(texts: Sequence[str], keys: Sequence[tuple[int, int]]) -> bool:
    """Tell whether the first heading stands above numbered ones that are set like it."""
    is_numbered = [bool(_NUMBER.match(text)) for text in texts]
    alike = [number for number, key in zip(is_numbered, keys, strict=True) if key[0] == keys[0][0]]
    return not alike[0] and len(alike) > 1 and all(alike[1:])


_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)*)\.?\s")


def numbering_depth(text: str) -> int:
    """Return the depth of a leading number: `2.1 Scope` → 2; unnumbered text counts as 1."""
    found = _NUMBER.match(text)
    return found.group(1).count(".") + 1 if found else 1


def _size_groups(sizes: Iterable[float]) -> dict[float, int]:
    """Return for each size the position of its group, 0 for the largest."""
    groups: dict[float, int] = {}
    group, largest = -1, 0.0
    for size in sorted(set(sizes), reverse=True):
        if group < 0 or size < largest * (1 - _SAME_SIZE):
            group, largest = group + 1, size
        groups[size] = group
    return groups


def _style_key(item: "SectionHeaderItem", document: "DoclingDocument") -> StyleKey:
    if not item.prov:
        return (0, 0, 0)
    prov = item.prov[0]
    box = prov.bbox.to_top_left_origin(document.pages[prov.page_no].size.height)
    return prov.page_no, round(box.l), round(box.t)


def _normalised(title: str) -> str:
    return re.sub(r"[\W_]+", "", title).lower()


# --- page headers and footers --------------------------------------------------------------

_MARGIN = 0.1
"""Share of the page's height, at its top and bottom, where headers and footers stand."""


def drop_repeated_margins(document: "DoclingDocument") -> None:
    """Take running heads and feet out of the body: the same words at the same height again.

    Digits count as equal (page numbers). A line must recur on three pages, or on both of two; what
    stands on one page only stays in the body, wherever it stands.
    """
    from docling_core.types.doc import ContentLayer

    needed = 3 if len(document.pages) > 2 else 2
    candidates: dict[tuple[str, int], list[TextItem]] = defaultdict(list)
    for item in document.texts:
        if (height := _margin_height(item, document)) is not None:
            candidates[re.sub(r"\d+", "0", item.text.strip()), height].append(item)
    for items in candidates.values():
        if len({item.prov[0].page_no for item in items}) >= needed:
            for item in items:
                item.content_layer = ContentLayer.FURNITURE


def _margin_height(item: "TextItem", document: "DoclingDocument") -> int | None:
    """Return where an item stands, in steps of six points, if it is a short one in a margin."""
    if len(item.prov) != 1 or len(item.text) > 150:
        return None
    prov = item.prov[0]
    height = document.pages[prov.page_no].size.height
    box = prov.bbox.to_top_left_origin(height)
    if box.b < _MARGIN * height or box.t > (1 - _MARGIN) * height:
        return round(box.t / 6)
    return None
