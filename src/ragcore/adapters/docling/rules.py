"""Page layout by rules, without weights: text lines and ruling lines in, labelled blocks out.

Pure functions over small values. Coordinates are PDF points from the top-left corner of the page;
`layouts.py` translates from and to Docling. What the rules know: size and weight of the font, gaps
between lines, bullets and numbering, dot leaders, columns that several rows share, ruled boxes.
"""

import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Literal

from ragcore.model import Box

Label = Literal["heading", "list", "text", "caption", "code", "furniture", "table", "contents"]


@dataclass(slots=True, eq=False)
class Span:
    """A stretch of text on one line in one font, as the PDF parser reports it."""

    left: float
    top: float
    right: float
    bottom: float
    text: str
    is_bold: bool = False
    is_italic: bool = False
    is_mono: bool = False
    index: int = 0
    """Position in the parser's own list, to find the way back."""

    @property
    def height(self) -> float:
        return self.bottom - self.top

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2


@dataclass(slots=True, eq=False)
class Line:
    """Spans that continue one another on the same baseline."""

    spans: list[Span]
    left: float = field(init=False)
    top: float = field(init=False)
    right: float = field(init=False)
    bottom: float = field(init=False)

    def __post_init__(self) -> None:
        self.left, self.top, self.right, self.bottom = enclosing(self.spans)

    @property
    def text(self) -> str:
        return " ".join(span.text for span in self.spans)

    @property
    def height(self) -> float:
        return max(span.height for span in self.spans)

    @property
    def is_bold(self) -> bool:
        return _mostly(self.spans, "is_bold")

    @property
    def is_italic(self) -> bool:
        return _mostly(self.spans, "is_italic")

    @property
    def is_mono(self) -> bool:
        return _mostly(self.spans, "is_mono")


@dataclass(slots=True, eq=False)
class Block:
    """Lines that belong together, and what they are."""

    label: Label
    lines: list[Line]
    box: Box
    style: float = 0.0
    """Of a heading: the size of its letters in points, half a point more where they are bold."""

    @property
    def spans(self) -> list[Span]:
        return [span for line in self.lines for span in line.spans]


def lay_out(spans: Iterable[Span], rulings: Sequence[Box], *, page_height: float) -> list[Block]:
    """Return the blocks of one page, tables first, otherwise from top to bottom.

    Every span ends in exactly one block. Reading order across columns is not decided here.
    """
    visible = [span for span in spans if span.text.strip()]
    if not visible:
        return []
    body = body_height(visible)
    tables = find_tables(visible, rulings, body=body)
    taken = {id(span) for table in tables for span in table.spans}
    lines = join_lines([span for span in visible if id(span) not in taken], body=body)
    paragraphs = group_lines(lines, body=body)
    context = _Page(
        height=page_height,
        body=body,
        lowest=max(span.top for span in visible),
        is_bold=_bold_share(visible) > 0.5,
    )
    return tables + [_labelled(paragraph, context) for paragraph in paragraphs]


# --- lines ---------------------------------------------------------------------------------


def body_height(spans: Sequence[Span]) -> float:
    """Return the height of the letters that most of the page's text is set in."""
    characters: Counter[float] = Counter()
    for span in spans:
        characters[round(span.height * 2) / 2] += len(span.text)
    return max(characters.most_common(1)[0][0], 1.0)


def rows_of(spans: Iterable[Span]) -> list[list[Span]]:
    """Group spans that stand beside one another, rows from top to bottom, spans from the left."""
    rows: list[list[Span]] = []
    for span in sorted(spans, key=lambda span: span.middle):
        last = rows[-1][-1] if rows else None
        if last is not None and last.top <= span.middle <= last.bottom:
            rows[-1].append(span)
        else:
            rows.append([span])
    return [sorted(row, key=lambda span: span.left) for row in rows]


def join_lines(spans: Iterable[Span], *, body: float) -> list[Line]:
    """Join the spans of a row that are at most a wide space apart; columns stay separate."""
    lines: list[Line] = []
    for row in rows_of(spans):
        current = [row[0]]
        for span in row[1:]:
            if span.left - current[-1].right < 1.2 * max(body, span.height):
                current.append(span)
            else:
                lines.append(Line(current))
                current = [span]
        lines.append(Line(current))
    return lines


# --- paragraphs ----------------------------------------------------------------------------

_BULLET = re.compile(
    r"^\s*([•▪▫◦‣●○■□➢➤✓∞∙·–—\-\*]|\(?\d{1,3}[.)]|\(?[a-zа-я][.)])\s+\S", re.IGNORECASE
)
_MARKER = re.compile(r"\s*([•▪▫◦‣●○■□➢➤✓∞∙·–—\-\*]|\(?(\d{1,3}|[a-zа-я])[.)])\s*", re.IGNORECASE)
"""A bullet or a number with nothing after it: the rest of its line stands apart."""
BULLETS = re.compile(r"^\s*[▪▫◦‣●○■□➢➤✓∞∙]\s+")
"""Bullets as symbol fonts give them; `•` is the one that everybody knows."""
_NUMBERED = re.compile(r"^\s*(\d+(\.\d+)*\.?|[IVXLC]+\.)\s+\S")
_LEADERS = re.compile(r"(\.\s?){5,}\s*\S{0,6}\s*$|…{2,}\s*\S{0,6}\s*$")


def group_lines(lines: Sequence[Line], *, body: float) -> list[list[Line]]:
    """Group lines into paragraphs: near, overlapping, alike, and no new list item.

    A line is compared with the last paragraphs only, so the cost stays linear.
    """
    spacing = _Spacing.of(lines, body=body)
    groups: list[list[Line]] = []
    for line in sorted(lines, key=lambda line: (line.top, line.left)):
        for group in reversed(groups[-12:]):
            if _continues(group, line, spacing):
                group.append(line)
                break
        else:
            groups.append([line])
    return groups


@dataclass(frozen=True, slots=True)
class _Spacing:
    """How far apart the lines of a page's paragraphs stand."""

    body: float
    leading: float
    """Gap between lines of one paragraph, as far as the page tells."""
    measure: float
    """Width of a full line."""

    @classmethod
    def of(cls, lines: Sequence[Line], *, body: float) -> "_Spacing":
        ordered = sorted(lines, key=lambda line: (line.top, line.left))
        gaps = sorted(
            below.top - above.bottom
            for above, below in pairwise(ordered)
            if _overlap(above, below) and 0 < below.top - above.bottom < 2 * body
        )
        widths = sorted(line.right - line.left for line in lines)
        return cls(
            body=body,
            leading=gaps[len(gaps) // 4] if gaps else 0.0,
            measure=widths[len(widths) * 3 // 4] if widths else 0.0,
        )


def _overlap(one: Line, other: Line) -> bool:
    return min(one.right, other.right) > max(one.left, other.left)


def _continues(group: Sequence[Line], line: Line, spacing: _Spacing) -> bool:
    last = group[-1]
    gap = line.top - last.bottom
    if not -0.4 * spacing.body < gap < _widest_gap(group, spacing) or not _overlap(last, line):
        return False
    if last.is_mono and line.is_mono:
        return True
    is_alike = abs(last.height - line.height) < 0.13 * max(last.height, line.height)
    looks = (last.is_bold, last.is_mono, last.is_italic)
    if not is_alike or looks != (line.is_bold, line.is_mono, line.is_italic):
        return False
    return not (_BULLET.match(line.text) or _LEADERS.search(last.text))


def _widest_gap(group: Sequence[Line], spacing: _Spacing) -> float:
    """Return the largest gap to a next line: the paragraph's own leading, where it has one.

    Lines that stand wide apart all over the page still belong together when the last one is full.
    """
    if len(group) > 1:
        return max(group[-1].top - group[-2].bottom, 0.0) + 0.35 * spacing.body
    last = group[-1]
    is_full = last.right - last.left > 0.75 * spacing.measure
    usual = 0.8 * max(spacing.body, last.height)
    return max(usual, min(1.6 * spacing.body, 1.3 * spacing.leading)) if is_full else usual


# --- labels --------------------------------------------------------------------------------

PAGE_NUMBER = re.compile(
    r"^\W*((page|p\.|стр\.?|страница)\s*)?(\d{1,4}|[ivxlc]{1,6})(\s*(of|из|/)\s*\d{1,4})?\W*$",
    re.IGNORECASE,
)
_MARGIN = 0.12
"""Share of the page's height, at its top and bottom, in which page numbers stand."""


_CAPTION = re.compile(
    r"^\s*(figure|fig\.|table|рис\.|рисунок|табл\.|таблица)\s*\d+([.-]\d+)*\s*[.:–—-]?\s",
    re.IGNORECASE,
)
_LONGEST_CAPTION = 400


@dataclass(frozen=True, slots=True)
class _Page:
    height: float
    body: float
    lowest: float
    """Top of the last line."""
    is_bold: bool
    """Most of the text is bold, so that bold says nothing."""


def _labelled(lines: list[Line], page: _Page) -> Block:
    box = enclosing(lines)
    text = " ".join(line.text for line in lines)
    size = median(line.height for line in lines)
    is_bold = all(line.is_bold for line in lines) and not page.is_bold
    label: Label = "text"
    if _is_page_number(text, box, page):
        label = "furniture"
    elif _LEADERS.search(text):
        label = "contents"
    elif _CAPTION.match(text) and len(text) < _LONGEST_CAPTION:
        label = "caption"
    elif all(line.is_mono for line in lines):
        label = "code"
    elif _is_heading(lines, text, size=size, is_bold=is_bold, page=page):
        label = "heading"
    elif _BULLET.match(text):
        label = "list"
    return Block(label, lines, box, style=round(size * 2) / 2 + (0.5 if is_bold else 0.0))


def _is_page_number(text: str, box: Box, page: _Page) -> bool:
    in_margin = box[3] < _MARGIN * page.height or box[1] > (1 - _MARGIN) * page.height
    is_last = box[1] >= page.lowest and box[1] > 0.7 * page.height
    return (in_margin or is_last) and bool(PAGE_NUMBER.match(text))


def _is_heading(
    lines: Sequence[Line], text: str, *, size: float, is_bold: bool, page: _Page
) -> bool:
    """Tell a heading: short, set off by size or weight, and not a sentence."""
    if len(lines) > 3 or len(text) > 160 or not re.search(r"[^\W\d_]{2}", text):
        return False
    if text.rstrip().endswith((",", ";")):
        return False
    is_large = size > 1.17 * page.body
    if text.rstrip().endswith((".", ":")) and not (is_large and len(text) < 80):
        return False
    if is_large or is_bold:
        return not (_BULLET.match(text) and not _NUMBERED.match(text))
    is_italic = all(line.is_italic for line in lines)
    return is_italic and len(lines) == 1 and len(text) < 70 and text[:1].isupper()


# --- tables --------------------------------------------------------------------------------

_MIN_ROWS = 3
_MAX_CELL = 80
"""Longest text of a cell that the gap rule believes in: beyond it, these are columns of prose."""


def find_tables(spans: Sequence[Span], rulings: Sequence[Box], *, body: float) -> list[Block]:
    """Find tables: boxes of crossing rulings first, then rows whose gaps line up."""
    tables: list[Block] = []
    rest = list(spans)
    for area in ruled_areas(rulings):
        inside = [span for span in rest if _is_inside(span, area)]
        if _fills_a_grid(inside, body=body):
            tables.append(_table(inside, area))
            chosen = {id(span) for span in inside}
            rest = [span for span in rest if id(span) not in chosen]
    unruled = [
        _table(run, enclosing(run))
        for column in columns_of(rest, body=body)
        for run in _aligned_runs(column, body=body)
    ]
    return tables + unruled


_FEWEST_LINES = 5
_GUTTER = 8.0


def columns_of(spans: Sequence[Span], *, body: float) -> list[list[Span]]:
    """Divide spans by the columns that the page's prose is set in; what spans them comes last.

    Prose tells the columns, not gaps: the columns of a table have gaps too. A column holds at least
    five lines of twelve letters' width, none of which crosses the gutter.
    """
    lines = join_lines(spans, body=body)
    width = max((line.right for line in lines), default=0) - min(
        (line.left for line in lines), default=0
    )
    prose = [ln for ln in lines if 12 * body < ln.right - ln.left < 0.6 * width]
    groups: list[list[Line]] = []
    for line in sorted(prose, key=lambda line: line.left):
        if groups and line.left < max(other.right for other in groups[-1]) + _GUTTER:
            groups[-1].append(line)
        else:
            groups.append([line])
    if len(groups) < 2 or min(len(group) for group in groups) < _FEWEST_LINES:
        return [list(spans)]
    edges = [min(line.left for line in group) - _GUTTER / 2 for group in groups[1:]]
    columns: dict[tuple[int, int], list[Span]] = {}
    for span in spans:
        place = (bisect(edges, span.left), bisect(edges, span.right))
        columns.setdefault(place, []).append(span)
    return [columns[place] for place in sorted(columns, key=lambda place: place[0] != place[1])]


def ruled_areas(rulings: Sequence[Box]) -> list[Box]:
    """Return the boxes in which horizontal and vertical rulings cross: at least two of each."""
    horizontal = [box for box in rulings if box[2] - box[0] >= box[3] - box[1]]
    vertical = [box for box in rulings if box[2] - box[0] < box[3] - box[1]]
    if len(horizontal) < 2 or len(vertical) < 2 or len(rulings) > _MAX_RULINGS:
        return []
    groups = _connected(horizontal, vertical)
    return [enclosing_boxes(group) for group in groups]


_MAX_RULINGS = 4000
"""Beyond this a page is a drawing, and pairing its lines would take quadratic time."""


def _connected(horizontal: Sequence[Box], vertical: Sequence[Box]) -> list[list[Box]]:
    parent = list(range(len(horizontal) + len(vertical)))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for i, bar in enumerate(horizontal):
        for j, post in enumerate(vertical, start=len(horizontal)):
            if _touches(bar, post):
                parent[root(i)] = root(j)
    groups: dict[int, list[int]] = {}
    for node in range(len(parent)):
        groups.setdefault(root(node), []).append(node)
    everything = [*horizontal, *vertical]
    return [
        [everything[node] for node in nodes]
        for nodes in groups.values()
        if sum(node < len(horizontal) for node in nodes) >= 2
        and sum(node >= len(horizontal) for node in nodes) >= 2
    ]


def _touches(bar: Box, post: Box, slack: float = 2.0) -> bool:
    return (
        bar[0] - slack <= post[2]
        and post[0] <= bar[2] + slack
        and post[1] - slack <= bar[3]
        and bar[1] <= post[3] + slack
    )


def _fills_a_grid(spans: Sequence[Span], *, body: float) -> bool:
    """Tell a table from a framed paragraph: two rows or more, one of them with two cells."""
    rows = [_cells(row, body=body) for row in rows_of(spans)]
    return len(rows) >= 2 and sum(len(row) >= 2 for row in rows) >= max(1, len(rows) // 3)


def _cells(row: Sequence[Span], *, body: float) -> list[list[Span]]:
    """Split a row where the gap is wider than a space; a bullet stays with its item."""
    cells = [[row[0]]]
    for span in row[1:]:
        is_marker = len(cells[-1]) == 1 and _MARKER.fullmatch(cells[-1][0].text)
        if span.left - cells[-1][-1].right > 0.7 * body and not is_marker:
            cells.append([span])
        else:
            cells[-1].append(span)
    return cells


def _aligned_runs(spans: Sequence[Span], *, body: float) -> list[list[Span]]:
    """Find runs of rows that have gaps at the same places: tables without rulings."""
    runs: list[list[Span]] = []
    run: list[list[list[Span]]] = []
    for row in [*rows_of(spans), []]:
        cells = _cells(row, body=body) if row else []
        if _is_tabular(cells) and (not run or _follows(run[-1], cells, body=body)):
            run.append(cells)
            continue
        if len(run) >= _MIN_ROWS and _has_columns(run):
            runs.append([span for cells in run for cell in cells for span in cell])
        run = [cells] if _is_tabular(cells) else []
    return runs


def _is_tabular(cells: Sequence[Sequence[Span]]) -> bool:
    """Three short cells, or two of which one is a mere word or number."""
    if len(cells) < 2:
        return False
    lengths = [sum(len(span.text) + 1 for span in cell) for cell in cells]
    return max(lengths) < _MAX_CELL and (len(cells) >= 3 or min(lengths) < 25)


def _follows(
    previous: Sequence[Sequence[Span]], cells: Sequence[Sequence[Span]], *, body: float
) -> bool:
    """Tell whether a row stands close under the last one and shares a column edge with it."""
    gap = min(cell[0].top for cell in cells) - max(cell[0].bottom for cell in previous)
    if gap > 2.0 * body:
        return False
    return _shared_edges(previous, cells) >= min(2, len(cells), len(previous))


def _shared_edges(one: Sequence[Sequence[Span]], other: Sequence[Sequence[Span]]) -> int:
    return sum(any(_same_edge(cell, candidate) for candidate in other) for cell in one)


def _same_edge(one: Sequence[Span], other: Sequence[Span], slack: float = 4.0) -> bool:
    left, right = one[0].left, one[-1].right
    other_left, other_right = other[0].left, other[-1].right
    return (
        abs(left - other_left) < slack
        or abs(right - other_right) < slack
        or abs((left + right) - (other_left + other_right)) < 2 * slack
    )


def _has_columns(run: Sequence[Sequence[Sequence[Span]]]) -> bool:
    """Two columns of long cells are prose set in columns, not a table."""
    lengths = [sum(len(span.text) for span in cell) for cells in run for cell in cells]
    columns = Counter(len(cells) for cells in run).most_common(1)[0][0]
    return columns >= 3 or median(lengths) < 30


def _table(spans: Sequence[Span], box: Box) -> Block:
    inner = enclosing(spans)
    outer = (
        min(box[0], inner[0]),
        min(box[1], inner[1]),
        max(box[2], inner[2]),
        max(box[3], inner[3]),
    )
    return Block("table", [Line(row) for row in rows_of(spans)], outer)


# --- geometry ------------------------------------------------------------------------------


def enclosing(parts: Iterable[Span | Line]) -> Box:
    """Return the smallest box around spans or lines."""
    return enclosing_boxes([(part.left, part.top, part.right, part.bottom) for part in parts])


def enclosing_boxes(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around boxes."""
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _is_inside(span: Span, area: Box, slack: float = 2.0) -> bool:
    middle = (span.left + span.right) / 2
    return (
        area[0] - slack <= middle <= area[2] + slack
        and area[1] - slack <= span.middle <= area[3] + slack
    )


def _mostly(spans: Sequence[Span], trait: str) -> bool:
    total = sum(len(span.text) for span in spans)
    return sum(len(span.text) for span in spans if getattr(span, trait)) * 2 > total


def _bold_share(spans: Sequence[Span]) -> float:
    total = sum(len(span.text) for span in spans)
    return sum(len(span.text) for span in spans if span.is_bold) / total
