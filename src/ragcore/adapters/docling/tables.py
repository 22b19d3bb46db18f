"""Rows and columns of a table, from where its text stands and from its rulings."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ragcore.adapters.docling.rules import Span, rows_of
from ragcore.model import Box


@dataclass(slots=True)
class Cell:
    """One cell of a grid, spanning `columns` columns; rows and columns count from 0."""

    row: int
    column: int
    spans: list[Span]
    columns: int = 1

    @property
    def text(self) -> str:
        return " ".join(span.text.strip() for span in self.spans if span.text.strip())


@dataclass(slots=True)
class Grid:
    """A table as rows and columns."""

    rows: int
    columns: int
    cells: list[Cell]


def grid_of(spans: Sequence[Span], rulings: Sequence[Box] = (), *, body: float) -> Grid:
    """Arrange spans into a grid. Every span ends in exactly one cell, in reading order."""
    row_edges = _edges(rulings, is_horizontal=True)
    bands = _bands(spans, row_edges) if len(row_edges) >= 3 else rows_of(spans)
    columns = _columns(bands, _edges(rulings, is_horizontal=False), body=body)
    cells: dict[tuple[int, int], Cell] = {}
    for row, band in enumerate(bands):
        for line in rows_of(band):
            for span in line:
                first, last = _columns_of(span, columns)
                cell = cells.setdefault((row, first), Cell(row, first, []))
                cell.spans.append(span)
                cell.columns = max(cell.columns, last - first + 1)
    _cut_overlaps(cells)
    return Grid(len(bands), len(columns), [cells[key] for key in sorted(cells)])


def _edges(rulings: Sequence[Box], *, is_horizontal: bool, slack: float = 3.0) -> list[float]:
    """Return where rulings of one direction stand, neighbours merged, in order."""
    positions = sorted(
        (box[1] + box[3]) / 2 if is_horizontal else (box[0] + box[2]) / 2
        for box in rulings
        if (box[2] - box[0] >= box[3] - box[1]) == is_horizontal
    )
    edges: list[float] = []
    for position in positions:
        if not edges or position - edges[-1] > slack:
            edges.append(position)
    return edges


def _bands(spans: Sequence[Span], edges: Sequence[float]) -> list[list[Span]]:
    """Put spans between horizontal rulings; empty bands vanish."""
    bands: dict[int, list[Span]] = {}
    for span in spans:
        bands.setdefault(sum(edge < span.middle for edge in edges), []).append(span)
    return [bands[key] for key in sorted(bands)]


def _columns(
    bands: Sequence[Sequence[Span]], edges: Sequence[float], *, body: float
) -> list[tuple[float, float]]:
    """Return the columns as intervals from left to right: between rulings, or by gaps."""
    spans = [span for band in bands for span in band]
    if len(edges) >= 3:
        bounds = [min(edges[0], min(s.left for s in spans)), *edges[1:-1]]
        bounds.append(max(edges[-1], max(s.right for s in spans)))
        return list(pairwise(bounds))
    most = max(len(rows_of(band)[0]) for band in bands)
    full = [span for band in bands if len(band) >= max(2, most - 1) for span in band]
    return _intervals(full or spans, body=body)


def _intervals(spans: Sequence[Span], *, body: float) -> list[tuple[float, float]]:
    """Merge overlapping stretches of the x axis; a span over most of the width counts for none."""
    left, right = min(span.left for span in spans), max(span.right for span in spans)
    narrow = [span for span in spans if span.right - span.left < 0.6 * (right - left)]
    intervals: list[tuple[float, float]] = []
    for span in sorted(narrow or spans, key=lambda span: span.left):
        if intervals and span.left < intervals[-1][1] + 0.2 * body:
            intervals[-1] = (intervals[-1][0], max(intervals[-1][1], span.right))
        else:
            intervals.append((span.left, span.right))
    return intervals


def _columns_of(span: Span, columns: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """Return the first and last column that a span lies in, by a third of the column's width."""

    def overlap(column: tuple[float, float]) -> float:
        return min(span.right, column[1]) - max(span.left, column[0])

    best = max(range(len(columns)), key=lambda index: overlap(columns[index]))
    covered = [
        index
        for index, column in enumerate(columns)
        if overlap(column) > 0.34 * max(column[1] - column[0], 1.0)
    ]
    if len(covered) < 2:
        return best, best
    return covered[0], covered[-1]


def _cut_overlaps(cells: dict[tuple[int, int], Cell]) -> None:
    """Shorten a spanning cell where the next column of its row has a cell of its own."""
    for (row, column), cell in cells.items():
        for reach in range(1, cell.columns):
            if (row, column + reach) in cells:
                cell.columns = reach
                break
