"""Two rankings → one: what the vector leg and the keyword leg say about each chunk, added up.

Ranks throw away how sure a leg is, and so reciprocal rank fusion loses to its better leg when the
other one is blind. Here each leg speaks on an absolute scale and falls silent by itself:

* the vector leg's *strength*: 0 is the model's noise, 1 a typical hit (`relevance.py`), with the
  language gap given back to passages in another language than the question;
* the keyword leg's *share*: of the BM25 score that a perfect passage would get for this question.
  Words that no passage holds count in the denominator, so a Russian question over English passages
  or a question of rare terms that are missing gets shares near 0, whatever the ranks are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, pow
from typing import Final

from ragcore.model import Candidate, Candidates, Explanation, SearchMode
from ragcore.steps.relevance import Calibration

BM25_K1: Final = 1.2
"""The store's own: a word's BM25 stays below its idf times k1 + 1."""

_KEYWORD_WEIGHT: Final = 2.0
"""What a share of 1 is worth, in strengths. Tuned on half of XQuAD's articles."""
_SHARE_POWER: Final = 1.5
"""Above 1, since a few matched words are chance and most of the words are not."""

_EVEN_STRENGTH: Final = 1.0
_STEEPNESS: Final = 3.0


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate with what fusion made of it."""

    candidate: Candidate
    value: float
    """Comparable between collections that share an embedding model; unbounded."""
    score: float
    """0…1, in the same order as `value`."""

    def explained(self, rank: int) -> Explanation:
        """Return why it stands at `rank`, from 1, in the fused order."""
        return Explanation(
            vector_rank=self.candidate.vector_rank,
            cosine=self.candidate.cosine,
            keyword_rank=self.candidate.keyword_rank,
            bm25=self.candidate.bm25,
            fused_rank=rank,
            fused_score=self.value,
            matched=self.candidate.matched,
        )


@dataclass(frozen=True, slots=True)
class Fusion:
    """Candidates in order, best first, and how much each leg had to say."""

    ranked: tuple[Ranked, ...]
    weights: Mapping[str, float]


def fuse(
    candidates: Candidates,
    *,
    mode: SearchMode,
    calibration: Calibration,
    question_language: str | None = None,
) -> Fusion:
    """Order the candidates by relevance; the order they come in does not matter.

    `vector` orders by cosine, `keyword` by BM25, `hybrid` by both. Scores are the cosine, the
    share of the best possible BM25, and a logistic of the fused value in turn.
    """
    best_bm25 = perfect_bm25(candidates)
    judged = [
        (_value(candidate, mode, calibration, question_language, best_bm25), candidate)
        for candidate in candidates.candidates
    ]
    judged.sort(key=lambda pair: (-pair[0], *_tie_break(pair[1])))
    ranked = tuple(
        Ranked(candidate=candidate, value=value, score=_shown_score(value, mode))
        for value, candidate in judged
    )
    return Fusion(ranked=ranked, weights=_weights(candidates, mode, best_bm25))


def perfect_bm25(candidates: Candidates) -> float:
    """Return the BM25 score that no passage can exceed for this question.

    Read under the text-search configuration that fits best: the one that takes most of the words
    for stop words, and so leaves the least.
    """
    by_configuration: dict[str, float] = {}
    for term in candidates.terms:
        for configuration in term.configurations or ("",):
            by_configuration[configuration] = by_configuration.get(configuration, 0.0) + term.idf
    weights = [weight for weight in by_configuration.values() if weight > 0]
    return min(weights, default=0.0) * (BM25_K1 + 1)


def _value(
    candidate: Candidate,
    mode: SearchMode,
    calibration: Calibration,
    question_language: str | None,
    best_bm25: float,
) -> float:
    if mode == "vector":
        return candidate.cosine if candidate.cosine is not None else -1.0
    share = _share(candidate.bm25, best_bm25)
    if mode == "keyword":
        return share
    spoken = _KEYWORD_WEIGHT * pow(share, _SHARE_POWER)
    if candidate.cosine is None:
        return spoken
    foreign = is_foreign(candidate.passage.language, question_language)
    return calibration.strength(candidate.cosine, is_foreign=foreign) + spoken


def is_foreign(language: str | None, question_language: str | None) -> bool:
    """Say whether two languages are both known and differ."""
    return None not in (language, question_language) and language != question_language


def _share(bm25: float, best_bm25: float) -> float:
    return min(bm25 / best_bm25, 1.0) if best_bm25 > 0 else 0.0


def _tie_break(candidate: Candidate) -> tuple[float, str, str, int, str]:
    passage = candidate.passage
    return (
        -candidate.bm25,
        passage.collection,
        passage.document_id,
        passage.ordinal,
        passage.chunk_id,
    )


def _shown_score(value: float, mode: SearchMode) -> float:
    if mode == "hybrid":
        return 1 / (1 + exp(-_STEEPNESS * (max(min(value, 9.0), -9.0) - _EVEN_STRENGTH)))
    return max(0.0, min(1.0, value))


def _weights(candidates: Candidates, mode: SearchMode, best_bm25: float) -> Mapping[str, float]:
    if mode != "hybrid":
        return {"vector": float(mode == "vector"), "keyword": float(mode == "keyword")}
    shares = (_share(candidate.bm25, best_bm25) for candidate in candidates.candidates)
    spoken = _KEYWORD_WEIGHT * pow(max(shares, default=0.0), _SHARE_POWER)
    has_vectors = any(candidate.cosine is not None for candidate in candidates.candidates)
    heard = float(has_vectors)
    total = heard + spoken
    if total == 0:
        return {"vector": 0.0, "keyword": 0.0}
    return {"vector": heard / total, "keyword": spoken / total}
