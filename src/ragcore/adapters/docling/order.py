"""Reading order of the boxes on one page: bands from top to bottom, columns inside them.

Docling's own predictor links each box to the one below it; a centred title above a short heading is
below and above nothing, and lands at the end of the page.
"""

from collections.abc import Sequence

from ragcore.model import Box

_MOST_BOXES = 800
"""Beyond this a page is a map or a drawing, and its labels have no order worth the time."""
_COLUMN_GAP = 4.0
"""Points between columns, at least."""
_SIDE_BY_SIDE = 0.5
"""Share of the lower side's height that columns stand beside each other; less is a coincidence."""


def reading_order(boxes: Sequence[Box], *, right_to_left: bool = False) -> list[int]:
    """Return the positions of `boxes` in the order of reading."""
    everything = list(range(len(boxes)))
    if len(boxes) > _MOST_BOXES:
        return _from_the_top(everything, boxes)
    return _ordered(everything, boxes, right_to_left)


def _ordered(items: list[int], boxes: Sequence[Box], right_to_left: bool) -> list[int]:
    if len(items) < 2:
        return items
    if columns := _columns(items, boxes):
        columns = columns[::-1] if right_to_left else columns
        return [item for column in columns for item in _ordered(column, boxes, right_to_left)]
    bands = _bands(items, boxes)
    if len(bands) > 1:
        regions = _regions(bands, boxes)
        return [item for region in regions for item in _ordered(region, boxes, right_to_left)]
    return _from_the_top(items, boxes)


def _from_the_top(items: Sequence[int], boxes: Sequence[Box]) -> list[int]:
    return sorted(items, key=lambda item: (boxes[item][1], boxes[item][0]))


def _columns(items: Sequence[int], boxes: Sequence[Box]) -> list[list[int]]:
    """Return the two sides of a gap that runs from top to bottom, if they stand side by side."""
    groups = _separated(items, boxes, axis=0, gap=_COLUMN_GAP)
    for cut in range(1, len(groups)):
        left = [item for group in groups[:cut] for item in group]
        right = [item for group in groups[cut:] for item in group]
        if _are_side_by_side(left, right, boxes):
            return [left, right]
    return []


def _are_side_by_side(left: Sequence[int], right: Sequence[int], boxes: Sequence[Box]) -> bool:
    left_top, left_bottom = _extent(left, boxes)
    right_top, right_bottom = _extent(right, boxes)
    shared = min(left_bottom, right_bottom) - max(left_top, right_top)
    return shared > _SIDE_BY_SIDE * min(left_bottom - left_top, right_bottom - right_top)


def _extent(items: Sequence[int], boxes: Sequence[Box]) -> tuple[float, float]:
    return min(boxes[item][1] for item in items), max(boxes[item][3] for item in items)


def _bands(items: Sequence[int], boxes: Sequence[Box]) -> list[list[int]]:
    return _separated(items, boxes, axis=1, gap=0.0)


def _regions(bands: Sequence[list[int]], boxes: Sequence[Box]) -> list[list[int]]:
    """Join bands that are parts of the same columns, whose paragraphs happen to end together."""
    regions: list[list[int]] = []
    for band in bands:
        if regions and _is_columned(regions[-1], boxes) and _columns([*regions[-1], *band], boxes):
            regions[-1] = [*regions[-1], *band]
        else:
            regions.append(band)
    return regions if len(regions) > 1 else list(bands)


def _is_columned(items: Sequence[int], boxes: Sequence[Box]) -> bool:
    return bool(_columns(items, boxes))


def _separated(
    items: Sequence[int], boxes: Sequence[Box], *, axis: int, gap: float
) -> list[list[int]]:
    """Group items whose stretches of an axis touch; groups in the order of the axis."""
    groups: list[list[int]] = []
    reach = 0.0
    for item in sorted(items, key=lambda item: boxes[item][axis]):
        start, end = boxes[item][axis], boxes[item][axis + 2]
        if groups and start < reach + gap:
            groups[-1].append(item)
            reach = max(reach, end)
        else:
            groups.append([item])
            reach = end
    return groups
