"""Two rankings of the same question: what is in both, and how far it has moved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median


@dataclass(frozen=True, slots=True)
class Ranking:
    """What was found for one question, best first."""

    keys: tuple[str, ...]
    """Of passages, or of their documents: what can be told apart on both sides. No key twice."""
    milliseconds: float
    """That the search took."""


@dataclass(frozen=True, slots=True)
class RankChange:
    """One question before and after."""

    question: str
    overlap: float
    """Share of what is found on either side that is found on both, by the longer one; 0…1."""
    moved: float
    """Mean number of ranks by which what is on both sides has moved."""
    first_before: str | None
    first_after: str | None
    wanted_before: int | None = None
    """Rank, from 1, of what the question was drawn from; None: not found, or not known."""
    wanted_after: int | None = None


def rank_change(
    question: str, before: Ranking, after: Ranking, *, wanted: str | None = None
) -> RankChange:
    """Compare two rankings; two empty ones are alike."""
    ranks = {key: rank for rank, key in enumerate(before.keys, start=1)}
    both = {key: rank for rank, key in enumerate(after.keys, start=1) if key in ranks}
    longer = max(len(before.keys), len(after.keys))
    return RankChange(
        question=question,
        overlap=len(both) / longer if longer else 1.0,
        moved=fmean(abs(rank - ranks[key]) for key, rank in both.items()) if both else 0.0,
        first_before=before.keys[0] if before.keys else None,
        first_after=after.keys[0] if after.keys else None,
        wanted_before=_rank(before, wanted),
        wanted_after=_rank(after, wanted),
    )


def summary(
    changes: Sequence[RankChange], before: Sequence[Ranking], after: Sequence[Ranking]
) -> Mapping[str, float | int | None]:
    """Return means over at least one question, and the median time of a search on each side.

    `found_before`, `found_after`: share of the questions drawn from the collection whose own source
    was found; None where none was drawn.
    """
    drawn = [c for c in changes if (c.wanted_before, c.wanted_after) != (None, None)]
    return {
        "questions": len(changes),
        "overlap": round(fmean(c.overlap for c in changes), 3),
        "same_first": round(fmean(c.first_before == c.first_after for c in changes), 3),
        "moved": round(fmean(c.moved for c in changes), 2),
        "found_before": _share(drawn, "wanted_before"),
        "found_after": _share(drawn, "wanted_after"),
        "milliseconds_before": round(median(r.milliseconds for r in before), 1),
        "milliseconds_after": round(median(r.milliseconds for r in after), 1),
    }


def _rank(ranking: Ranking, wanted: str | None) -> int | None:
    return ranking.keys.index(wanted) + 1 if wanted in ranking.keys else None


def _share(drawn: Sequence[RankChange], which: str) -> float | None:
    if not drawn:
        return None
    return round(fmean(getattr(change, which) is not None for change in drawn), 3)
