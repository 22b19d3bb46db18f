"""Text and tables cut to a number of tokens, at the best place there is; nothing is lost.

Pure functions. A counter may be slow and is not additive, so texts are counted in small units, once
each, and a piece that was put together is counted once more as a whole. The cost stays linear in
the length of the text, also for one line of megabytes or one word of 300,000 letters.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

Count = Callable[[str], int]
"""Tokens of a text on its own, without what the model adds around it."""

Span = tuple[int, int]
"""Start and end of a piece in its text."""

_LEVELS = (
    re.compile(r"\n\s*\n"),  # paragraphs
    re.compile(r"\n"),
    re.compile(r"(?<=[.!?…])[\"»”’)\]]*\s+|(?<=[。！？])"),  # sentences
    re.compile(r"(?<=[;:,])\s+"),
    re.compile(r"\s+"),
)
_CHARACTERS_OF_A_TOKEN = 12
"""A unit that is longer than so many characters per token is cut before it is counted."""


def split_text(text: str, *, room: int, count: Count) -> list[Span]:
    """Return spans of at most `room` tokens that together hold every word of `text`, in order.

    Cuts fall between paragraphs, else lines, sentences, clauses, words; inside a word only where
    it is too long on its own. Spans carry no white space at their ends.
    """
    spans: list[Span] = []
    current: list[_Unit] = []
    total = 0
    for unit in _units(text, 0, len(text), 0, room=room, count=count):
        if current and total + unit.tokens > room:
            spans.extend(_whole_spans(text, current, room=room, count=count))
            current, total = [], 0
        current.append(unit)
        total += unit.tokens
    spans.extend(_whole_spans(text, current, room=room, count=count))
    return spans


@dataclass(frozen=True, slots=True)
class _Unit:
    start: int
    end: int
    tokens: int


def _whole_spans(text: str, units: Sequence[_Unit], *, room: int, count: Count) -> list[Span]:
    """Join units to one span, or to two where together they count more than each by itself."""
    if not units:
        return []
    start, end = _trimmed(text, units[0].start, units[-1].end)
    if start >= end:
        return []
    if len(units) == 1 or count(text[start:end]) <= room:
        return [(start, end)]
    middle = len(units) // 2
    return [
        *_whole_spans(text, units[:middle], room=room, count=count),
        *_whole_spans(text, units[middle:], room=room, count=count),
    ]


def _units(
    text: str, start: int, end: int, level: int, *, room: int, count: Count
) -> Iterator[_Unit]:
    """Yield units that fit, as large as they come: paragraphs before sentences before words."""
    if end - start <= room * _CHARACTERS_OF_A_TOKEN:
        tokens = count(text[start:end])
        if tokens <= room:
            yield _Unit(start, end, tokens)
            return
    if level == len(_LEVELS):
        yield from _slices(text, start, end, room=room, count=count)
        return
    for part_start, part_end in _parts(text, start, end, _LEVELS[level]):
        yield from _units(text, part_start, part_end, level + 1, room=room, count=count)


def _parts(text: str, start: int, end: int, boundary: re.Pattern[str]) -> Iterator[Span]:
    """Yield the stretches between boundaries; each keeps the boundary that follows it."""
    position = start
    for found in boundary.finditer(text, start, end):
        if found.end() > position:
            yield position, found.end()
            position = found.end()
    if position < end:
        yield position, end


def _slices(text: str, start: int, end: int, *, room: int, count: Count) -> Iterator[_Unit]:
    """Cut one overlong word. A single character is yielded whatever it counts."""
    length = 2 * room
    while start < end:
        stop = min(start + length, end)
        tokens = count(text[start:stop])
        while tokens > room and stop - start > 1:
            stop = start + max(1, (stop - start) * room // tokens)
            tokens = count(text[start:stop])
        yield _Unit(start, stop, tokens)
        start = stop


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - (len(piece) - len(piece.rstrip()))


# --- tables --------------------------------------------------------------------------------

_SEPARATOR = re.compile(r"^\s*\|(\s*:?-+:?\s*\|)+\s*$")


def split_table(text: str, *, room: int, count: Count) -> list[str]:
    """Cut a Markdown table between rows and repeat its header over every piece.

    A row that does not fit under the header is written as `column: value` pairs instead, so that
    a very wide table stays readable in pieces. What stands above the table goes before it.
    """
    lines = text.splitlines()
    separator = next((n for n, line in enumerate(lines) if n and _SEPARATOR.match(line)), None)
    if separator is None:
        return [text[start:end] for start, end in split_text(text, room=room, count=count)]
    above = "\n".join(lines[: separator - 1]).strip()
    pieces = [above[start:end] for start, end in split_text(above, room=room, count=count)]
    header, rows = lines[separator - 1 : separator + 1], lines[separator + 1 :]
    return pieces + _table_pieces(header, [row for row in rows if row.strip()], room, count)


def _table_pieces(header: Sequence[str], rows: Sequence[str], room: int, count: Count) -> list[str]:
    """Pack rows under the header; a header without rows is a piece of its own."""
    head = "\n".join(header) + "\n"
    head_tokens = count(head)
    pieces: list[str] = []
    current: list[str] = []
    total = head_tokens

    def flush() -> None:
        if current:
            pieces.extend(_checked(head, current, room, count))
            current.clear()

    for row in rows:
        tokens = count(row + "\n")
        if head_tokens + tokens > room:
            flush()
            pieces.extend(_pairs(header[0], row, room, count))
            total = head_tokens
            continue
        if total + tokens > room:
            flush()
            total = head_tokens
        current.append(row)
        total += tokens
    flush()
    if not rows:
        pieces.extend(_texts(head, room, count))
    return pieces


def _checked(head: str, rows: Sequence[str], room: int, count: Count) -> list[str]:
    """Return header and rows as one piece, or halved as long as it counts too much as a whole."""
    piece = head + "\n".join(rows)
    if count(piece) <= room:
        return [piece]
    if len(rows) == 1:
        return _pairs(head.splitlines()[0], rows[0], room, count)
    middle = len(rows) // 2
    return [
        *_checked(head, rows[:middle], room, count),
        *_checked(head, rows[middle:], room, count),
    ]


def _pairs(header: str, row: str, room: int, count: Count) -> list[str]:
    """Write one row as `column: value` pairs, one a line, packed into pieces."""
    names, values = cells_of(header), cells_of(row)
    names += [""] * (len(values) - len(names))
    lines = [
        f"{name}: {value}" if name and value else name or value
        for name, value in zip(names, values + [""] * (len(names) - len(values)), strict=True)
    ]
    return _texts("\n".join(line for line in lines if line), room, count)


def _texts(text: str, room: int, count: Count) -> list[str]:
    return [text[start:end] for start, end in split_text(text, room=room, count=count)]


def cells_of(row: str) -> list[str]:
    """Return the cells of one row of a Markdown table."""
    inner = row.strip().removeprefix("|").removesuffix("|")
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", inner)]
