"""Answer text → answer with checked citations.

A citation is a promise: the marker points at a passage, the quote stands there letter for letter,
and the sentence says nothing the passage does not. What can't be promised is taken out or flagged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from ragcore.model import Citation, Part, Passage, Place
from ragcore.steps.fusing import is_foreign
from ragcore.steps.languages import detect
from ragcore.steps.sentences import Span, sentence_spans
from ragcore.steps.words import names, numbers, roots

_MARKER = re.compile(r"\s?[\[【]\^?\s*(\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*)\s*[\]】]")
"""`[1]`, `[1, 2]`, `[1-3]`, `[^1]` and `【1】`: what language models write."""

_LOOKS_LIKE_MARKER = re.compile(r"[\[【［]\^?\s*(\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*)\s*[\]】］]")

_PARTIAL = re.compile(r"[\[【](?:\^?\s*(?:\d{1,3}\s*[,;–-]\s*)*(?:\d{1,3}\s*)?)?")
"""What may yet become a marker, when more of the text comes."""

_DECLINES = re.compile(
    r"""\b(?:passages?|documents?|sources?|context|texts?|excerpts?|information)\b
            [^.!?]{0,60}
            \b(?:not|no|don['’]t|doesn['’]t|cannot|can['’]t|isn['’]t|aren['’]t)\b
            [^.!?]{0,40}
            \b(?:say|state|hold|contain|mention|tell|provide|include|give|specif|answer|
               available|found)
      | \b(?:i|we)\s+(?:do\s+not|don['’]t|cannot|can['’]t)\s+(?:know|find|answer|tell)\b
      | \bthere\s+is\s+no\s+(?:information|mention|answer)\b
      | \b(?:is|are)\s+not\s+(?:mentioned|stated|given|specified|provided)\b
      | \b(?:фрагмент|документ|текст|источник|контекст)\w*
            [^.!?]{0,60}
            \bне(?:т\b|\s+(?:содерж|указ|сказ|говор|упомина|наход|сообща|привод|опис))
      | \bнет\s+(?:ответа|информации|сведений|данных|упоминани)
      | \bне\s+(?:указан|сказано|упомина|содержит|знаю|могу\s+(?:ответить|найти))
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""How language models say that the passages don't hold the answer."""

_LEAST_COVERAGE: Final = 0.5
"""Share of a sentence's roots that its passage must hold."""


@dataclass(frozen=True, slots=True)
class CheckedText:
    """An answer in which every marker points at a passage."""

    text: str
    citations: tuple[Citation, ...]
    removed: tuple[str, ...]
    """Markers that pointed nowhere, as they stood."""


def check_citations(text: str, passages: Sequence[Passage]) -> CheckedText:
    """Check the markers of a generated answer; `[n]` means the n-th passage, from 1.

    Markers of passages that don't exist are removed, others are written as `[n]`. A marker has a
    citation for each different quote it stands for; `supported` is the verdict on the sentence.
    """
    markers = Markers(len(passages))
    clean = markers.feed(text) + markers.end()
    return CheckedText(clean, citations_of(clean, passages), tuple(markers.removed))


class Markers:
    """Puts the markers of a text in order while the text is being written.

    What `feed` and `end` return, joined, is the same however the text is cut into pieces: without
    white space at its ends, markers of passages that don't exist and a marker that breaks off. What
    may yet become a marker is held back, so no reader sees half of one.
    """

    def __init__(self, count: int) -> None:
        """`count`: how many passages there are."""
        self.removed: list[str] = []
        """Markers that pointed nowhere, as they stood."""
        self._count = count
        self._pending = ""
        self._space = ""
        self._has_text = False

    def feed(self, piece: str) -> str:
        """Take the next piece and return what of the text is settled by it, perhaps nothing."""
        raw = self._pending + piece
        settled = _settled(raw)
        self._pending = raw[settled:]
        return self._in_order(raw[:settled])

    def end(self) -> str:
        """Return what was held back, unless it is white space or the beginning of a marker."""
        raw, self._pending = self._pending, ""
        begun = raw.strip()
        if any(character.isdigit() for character in begun):
            self.removed.append(begun)
            return ""
        return self._in_order(raw)

    def _in_order(self, raw: str) -> str:
        clean = self._space + _MARKER.sub(self._kept, raw)
        if not self._has_text:
            clean = clean.lstrip()
        told = clean.rstrip()
        self._space = clean[len(told) :]
        self._has_text = self._has_text or bool(told)
        return told

    def _kept(self, found: re.Match[str]) -> str:
        kept = []
        for marker in _numbers_meant(found.group(1)):
            if 1 <= marker <= self._count:
                kept.append(f"[{marker}]")
            else:
                self.removed.append(f"[{marker}]")
        return " " + "".join(kept) if kept else ""


def without_markers(text: str) -> str:
    """Return the text without what looks like a marker."""
    return _MARKER.sub("", text)


def with_round_markers(text: str) -> str:
    """Return the text of a document with `(3)` for `[3]` and what else looks like a marker.

    Copied into an answer, a document's own `[3]` would cite the third passage.
    """
    return _LOOKS_LIKE_MARKER.sub(r"(\1)", text)


def citations_of(text: str, passages: Sequence[Passage]) -> tuple[Citation, ...]:
    """Return the citations of a text whose markers are in order."""
    citations: dict[tuple[int, Span], Citation] = {}
    for sentence, marker in _cited_sentences(text):
        citation = _checked(sentence, marker, passages[marker - 1])
        citations.setdefault((marker, (citation.start, citation.end)), citation)
    return tuple(citations.values())


@dataclass(frozen=True, slots=True)
class JudgedSentence:
    """A sentence of an answer, and whether it may be believed."""

    text: str
    """Without its markers."""
    start: int
    """Where it starts in the answer."""
    markers: tuple[int, ...]
    is_supported: bool
    """By one of the passages it cites, or by any when it cites none."""
    is_declining: bool
    """It says that the passages don't hold the answer, and none of them says so itself."""


def judged_sentences(text: str, passages: Sequence[Passage]) -> list[JudgedSentence]:
    """Judge every sentence of a text whose markers are in order."""
    return [_judged(start, text[start:end], passages) for start, end in _joined_to_markers(text)]


def believed_text(text: str, judged: Sequence[JudgedSentence]) -> str:
    """Return a text without its sentences that no passage bears out."""
    ends = [*(one.start for one in judged[1:]), len(text)]
    kept = [
        text[one.start : end]
        for one, end in zip(judged, ends, strict=False)
        if one.is_supported or one.is_declining
    ]
    return "".join(kept).strip()


def _judged(start: int, sentence: str, passages: Sequence[Passage]) -> JudgedSentence:
    bare = without_markers(sentence).strip()
    markers = tuple(int(found.group(1)) for found in _MARKER.finditer(sentence))
    sources = [passages[marker - 1] for marker in markers] or passages
    holding = [passage for passage in sources if is_supported(bare, passage)]
    declines = _DECLINES.search(bare) is not None
    return JudgedSentence(
        text=bare,
        start=start,
        markers=markers,
        is_supported=bool(holding),
        is_declining=declines and not any(_DECLINES.search(one.text) for one in holding),
    )


def cite(
    passage: Passage, *, marker: int, start: int, end: int, supported: bool = True
) -> Citation:
    """Return the citation of `passage.text[start:end]`.

    Of a passage that was joined of several chunks it points into the one that holds the quote. A
    chunk that goes on over a page knows where it stands on each, not which word stands where: page
    and box are those that the middle of the quote falls on, the text spread evenly.
    """
    part = _part_at(passage, start, end)
    place = _place_at(part, (start + end) / 2 - part.start)
    return Citation(
        marker=marker,
        chunk_id=part.chunk_id,
        document_id=passage.document_id,
        collection=passage.collection,
        quote=passage.text[start:end],
        start=start - part.start,
        end=end - part.start,
        score=passage.score,
        supported=supported,
        title=passage.title,
        uri=passage.uri,
        headings=passage.headings,
        page=place.page if place else None,
        bbox=place.box if place else None,
    )


def _part_at(passage: Passage, start: int, end: int) -> Part:
    """Return the chunk that holds all of the quote; the whole passage where none does."""
    for part in passage.parts:
        if part.start <= start and end <= part.end:
            return part
    return Part(passage.chunk_id, 0, len(passage.text), passage.places)


def _place_at(part: Part, offset: float) -> Place | None:
    reach = offset * sum(map(_area, part.places))
    for place in part.places:
        reach -= _area(place) * (part.end - part.start)
        if reach <= 0:
            return place
    return part.places[-1] if part.places else None


def _area(place: Place) -> float:
    if place.box is None:
        return 1.0
    left, top, right, bottom = place.box
    return max((right - left) * (bottom - top), 1.0)


def is_supported(sentence: str, passage: Passage) -> bool:
    """Say whether a passage bears out a sentence, as far as words can tell.

    Every number and every name must stand in the passage, and so must half of the other words.
    Between two languages words can't be compared, and the sentence must hold numbers or names
    written alike; otherwise it counts as not supported.
    """
    source = " ".join((passage.title or "", *passage.headings, passage.text))
    if not numbers(sentence) <= numbers(source):
        return False
    known, said = roots(source), roots(sentence)
    if is_foreign(passage.language, detect(sentence)):
        return bool(said & known)
    if not names(sentence) <= known:
        return False
    return bool(said) and len(said & known) >= _LEAST_COVERAGE * len(said)


def _settled(raw: str) -> int:
    """Return how much of `raw` no marker can reach into, whatever follows.

    A marker takes the white space before it along, and only the last bracket can still open one.
    """
    opened = max(raw.rfind("["), raw.rfind("【"))
    end = opened if opened >= 0 and _PARTIAL.fullmatch(raw, opened) else len(raw)
    return len(raw[:end].rstrip())


def _numbers_meant(listed: str) -> Iterator[int]:
    for part in re.split(r"\s*[,;]\s*", listed):
        first, *last = (int(number) for number in re.split(r"\s*[–-]\s*", part))
        yield from range(first, min(last[0], first + 20) + 1) if last else (first,)


def _cited_sentences(text: str) -> Iterator[tuple[str, int]]:
    """Yield every sentence that has a marker, without its markers, and the marker.

    Markers may stand before the full stop or after it: those after it belong to the sentence
    before them.
    """
    for start, end in _joined_to_markers(text):
        sentence = text[start:end]
        for found in _MARKER.finditer(sentence):
            yield _MARKER.sub("", sentence).strip(), int(found.group(1))


def _joined_to_markers(text: str) -> Iterator[Span]:
    spans = sentence_spans(text)
    position = 0
    while position < len(spans):
        start, end = spans[position]
        position += 1
        while position < len(spans):
            found = re.match(rf"(?:{_MARKER.pattern})+", text[end : spans[position][1]])
            if found is None:
                break
            end += found.end()
            if text[end : spans[position][1]].strip():
                spans[position] = end, spans[position][1]
            else:
                position += 1
        yield start, end


def _checked(sentence: str, marker: int, passage: Passage) -> Citation:
    start, end = quote_span(sentence, passage.text)
    supported = is_supported(sentence, passage)
    return cite(passage, marker=marker, start=start, end=end, supported=supported)


def quote_span(sentence: str, text: str) -> Span:
    """Return the span of the sentence of `text` that says most of what `sentence` says.

    The whole text, without white space at its ends, when it has no sentences to choose from.
    """
    said = roots(sentence)
    spans = sentence_spans(text)
    if not spans:
        return 0, len(text)
    return max(spans, key=lambda span: _overlap(said, text[span[0] : span[1]]))


def _overlap(said: frozenset[str], candidate: str) -> float:
    found = roots(candidate)
    return len(said & found) / sqrt(len(found) + 5)
