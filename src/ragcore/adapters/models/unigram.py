"""A SentencePiece Unigram tokenizer in plain Python.

A general tokenizer library needs 270 MB for this vocabulary of 250,000 pieces; a dictionary needs
a seventh of that. Words repeat, so remembering each word's pieces makes it the faster one too.
"""

import math
import re
from collections.abc import Iterator

from ragcore.adapters.models.e5_file import Vocabulary

_SPACE = "▁"
_SPACES = re.compile("  +")
_UNKNOWN_PENALTY = 10.0  # SentencePiece's: an unknown character is worse than any piece by this
_REMEMBERED_WORDS = 1 << 16
_LONGEST_REMEMBERED = 32


class UnigramTokenizer:
    """Text → ids of word pieces. Safe to use from several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._ids = {piece: id_ for id_, piece in enumerate(vocabulary.pieces)}
        self._scores = vocabulary.scores
        self._unknown = vocabulary.unknown
        self._unknown_score = min(vocabulary.scores) - _UNKNOWN_PENALTY
        self._normalisation = vocabulary.normalisation
        self._reach = _reach(vocabulary.pieces)
        self._remembered: dict[str, tuple[int, ...]] = {}

    def ids(self, text: str) -> list[int]:
        """Return the ids of the text's pieces, without special tokens."""
        return [id_ for word in self._words(text) for id_ in self._pieces(word)]

    def count(self, text: str) -> int:
        """Return the number of pieces, without special tokens."""
        return sum(len(self._pieces(word)) for word in self._words(text))

    def _words(self, text: str) -> Iterator[str]:
        """Normalise, then cut before each space: no piece holds a space but at its start."""
        normalised = _SPACES.sub(" ", text.translate(self._normalisation))
        words = normalised.replace(_SPACE, " ").split(" ")
        if normalised.startswith(" "):
            del words[0]
        return (_SPACE + word for word in words)

    def _pieces(self, word: str) -> tuple[int, ...]:
        known = self._remembered.get(word)
        if known is not None:
            return known
        pieces = self._best_split(word)
        if len(word) <= _LONGEST_REMEMBERED:
            if len(self._remembered) >= _REMEMBERED_WORDS:
                self._remembered.clear()
            self._remembered[word] = pieces
        return pieces

    def _best_split(self, word: str) -> tuple[int, ...]:
        """Cut the word into the pieces with the highest sum of scores (Viterbi)."""
        length = len(word)
        best = [0.0] + [-math.inf] * length  # of each prefix
        last = [(0, self._unknown)] * (length + 1)  # where its last piece begins, and its id
        for start in range(length):
            furthest = min(length, start + self._reach.get(word[start : start + 2], 1))
            for end in range(start + 1, furthest + 1):
                id_ = self._ids.get(word[start:end], self._unknown)
                if id_ != self._unknown and best[start] + self._scores[id_] > best[end]:
                    best[end] = best[start] + self._scores[id_]
                    last[end] = (start, id_)
            if best[start] + self._unknown_score > best[start + 1]:
                best[start + 1] = best[start] + self._unknown_score
                last[start + 1] = (start, self._unknown)
        return _trace_back(last)


def _trace_back(last: list[tuple[int, int]]) -> tuple[int, ...]:
    ids = []
    end = len(last) - 1
    while end > 0:
        end, id_ = last[end]
        ids.append(id_)
    return tuple(reversed(ids))


def _reach(pieces: list[str]) -> dict[str, int]:
    """Return, by their first two characters, how long the longest pieces are."""
    reach: dict[str, int] = {}
    for piece in pieces:
        reach[piece[:2]] = max(len(piece), reach.get(piece[:2], 1))
    return reach
