"""Text → spans of its sentences, in Russian and English, prose, lists and tables.

Rules only: no model, no dependency. A heading, a list item and a row of a Markdown table are
sentences of their own; a line break inside a wrapped paragraph is not a boundary.
"""

import re
from collections.abc import Iterator
from typing import Final

Span = tuple[int, int]
"""Start and end offset, end exclusive."""

_LONGEST: Final = 600
"""Characters; longer stretches without a boundary are cut at white space, to stay quotable."""

_WRAPPED_LINE: Final = 60
"""A line at least so long that ends without punctuation goes on in the next one."""

_BOUNDARY = re.compile(
    r"""
    (?<![.!?…])(?P<stop>[.!?…]++)        # whole runs only, or a row of dots costs their square
    (?P<close>[»”’"')\]*_]*+)
    (?P<note>(?:\[\d{1,3}\])*+)         # a reference mark after the full stop
    (?=\s+(?P<opening>[-—–«„“‘"'(\[*_]*\s?)(?P<next>\w))
    | [。！？]+[」』）]*
    """,
    re.VERBOSE,
)
_LONGEST_WORDS: Final = 80
"""Characters before a full stop that are looked at; a longer word is no abbreviation."""
_INITIALS = re.compile(r"(?:[A-ZА-ЯЁ]\.)*[A-ZА-ЯЁ]")
_ITEM = re.compile(r"\s*(?:[-*+•·▪◦‣–—]\s|\d{1,3}[.)]\s|[a-zа-я]\)\s|#{1,6}\s|\|)")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_NEVER_LAST: Final = _words("""
    mr mrs ms dr prof st v rev hon gen col maj capt lt sgt sen rep gov pres messrs mt ft
    e.g i.e cf viz vs fig figs eq eqs vol pp ch sec ed eds al approx ca resp
    т.е т.н т.к т.ч т.о т см ср напр рис табл илл им ул пр-т пер пл просп наб бул обл респ
    гр проф акад доц инж канд д-р г-н г-жа св кн гл ст п пп стр с кв корп пос дер р-н тел
    др.-греч лат англ нем фр итал греч букв яз
    """)
"""Abbreviations that something always follows."""

_BEFORE_NUMBER: Final = _words("no nos p д jan feb mar apr jun jul aug sep sept oct nov dec")
"""Abbreviations that a number follows, and words or initials of their own otherwise."""

_AFTER_NUMBER: Final = _words("г гг в вв тыс млн млрд руб коп р м км кг мин сек ч")
"""End a sentence after a number (`в 1874 г.`), open a name otherwise (`г. Москва`)."""


def sentence_spans(text: str) -> list[Span]:
    """Return the spans of the sentences, in order, without white space at their ends.

    They don't overlap, and every character that is not white space is in one of them.
    """
    return [
        span
        for block in _blocks(text)
        for sentence in _sentences(text, *block)
        for span in _quotable(text, *sentence)
    ]


def _blocks(text: str) -> Iterator[Span]:
    """Yield stretches that no sentence crosses: paragraphs, list items, headings, table rows."""
    start = position = 0
    before = ""
    for line in text.splitlines(keepends=True):
        if position > start and _starts_block(before.strip(), line):
            yield start, position
            start = position
        position += len(line)
        before = line
    yield start, len(text)


def _starts_block(last: str, line: str) -> bool:
    here = line.strip()
    if not last or not here or _ITEM.match(line) or last.startswith(("|", "#", "```")):
        return True
    if last[-1] in ".!?…:;。！？":
        return True
    is_wrapped = len(last) >= _WRAPPED_LINE or last.endswith((",", "-", "—", "–"))
    return not (is_wrapped or here[0].islower())


def _sentences(text: str, start: int, end: int) -> Iterator[Span]:
    if text[start:end].lstrip().startswith("|"):
        yield start, end
        return
    first = start
    for boundary in _BOUNDARY.finditer(text, start, end):
        if _ends_sentence(text, first, boundary):
            yield first, boundary.end()
            first = boundary.end()
    yield first, end


def _ends_sentence(text: str, first: int, boundary: re.Match[str]) -> bool:
    if boundary["stop"] is None:
        return True
    following, opening = boundary["next"], boundary["opening"].strip(" -—–")
    if not (following.isupper() or following.isdigit() or opening):
        return False
    if boundary["stop"] != "." or boundary["close"]:
        return True
    head = text[max(first, boundary.start() - _LONGEST_WORDS) : boundary.start()]
    return not _is_abbreviation(head, before_number=following.isdigit())


def _is_abbreviation(head: str, *, before_number: bool) -> bool:
    words = head.split()
    if not words or head[-1].isspace():
        return False
    word = words[-1].lstrip("«„“\"'([")
    before = words[-2] if len(words) > 1 else ""
    bare = word.casefold()
    if bare in _AFTER_NUMBER:
        return not (before[-1:].isdigit() or _is_roman(before))
    if bare in _NEVER_LAST or (before_number and bare in _BEFORE_NUMBER):
        return True
    is_item_number = not before and word.isdigit() and len(word) <= 3
    return is_item_number or _INITIALS.fullmatch(word) is not None


def _is_roman(word: str) -> bool:
    return bool(word) and all(letter in "IVXLCХ–-" for letter in word)


def _quotable(text: str, start: int, end: int) -> Iterator[Span]:
    """Yield the span without white space at its ends, in pieces when it is too long to quote."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    while end - start > _LONGEST:
        cut = _last_space(text, start, start + _LONGEST)
        yield start, cut
        start = cut
        while text[start].isspace():
            start += 1
    if start < end:
        yield start, end


def _last_space(text: str, start: int, limit: int) -> int:
    for position in range(limit, start + _LONGEST // 2, -1):
        if text[position].isspace():
            cut = position
            while text[cut - 1].isspace():
                cut -= 1
            return cut
    return limit
