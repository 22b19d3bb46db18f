"""Answer text → answer with checked citations.

A citation is a promise: the marker points at a passage, the quote stands there letter for letter,
and the sentence says nothing the passage does not. What can't be promised is taken out or flagged.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from ragcore.model import Citation, Passage, Place
from ragcore.steps.fusing import is_foreign
from ragcore.steps.languages import detect
from ragcore.steps.sentences import Span, sentence_spans
from ragcore.steps.words import names, numbers, roots

_MARKER = re.compile(r"\s?[\[【]\^?\s*(\d{1,3}(?:\s*[,;–-]\s*\d{1,3})*)\s*[\]】]")
"""`[1]`, `[1, 2]`, `[1-3]`, `[^1]` and `【1】`: what language models write."""

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
    removed: list[str] = []
    clean = _MARKER.sub(lambda found: _kept_markers(found, len(passages), removed), text)
    citations: dict[tuple[int, Span], Citation] = {}
    for sentence, marker in _cited_sentences(clean):
        citation = _checked(sentence, marker, passages[marker - 1])
        citations.setdefault((marker, (citation.start, citation.end)), citation)
    return CheckedText(clean, tuple(citations.values()), tuple(removed))


def cite(
    passage: Passage, *, marker: int, start: int, end: int, supported: bool = True
) -> Citation:
    """Return the citation of `passage.text[start:end]`.

    A passage that goes on over a page knows where it stands on each, not which word stands where:
    page and box are those that the middle of the quote falls on, the text spread evenly.
    """
    place = _place_at(passage, (start + end) / 2)
    return Citation(
        marker=marker,
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        collection=passage.collection,
        quote=passage.text[start:end],
        start=start,
        end=end,
        score=passage.score,
        supported=supported,
        title=passage.title,
        uri=passage.uri,
        headings=passage.headings,
        page=place.page if place else None,
        bbox=place.box if place else None,
    )


def _place_at(passage: Passage, offset: float) -> Place | None:
    reach = offset * sum(map(_area, passage.places))
    for place in passage.places:
        reach -= _area(place) * len(passage.text)
        if reach <= 0:
            return place
    return passage.places[-1] if passage.places else None


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


def _kept_markers(found: re.Match[str], count: int, removed: list[str]) -> str:
    kept = []
    for marker in _numbers_meant(found.group(1)):
        if 1 <= marker <= count:
            kept.append(f"[{marker}]")
        else:
            removed.append(f"[{marker}]")
    return " " + "".join(kept) if kept else ""


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
