"""How well the library finds the right passage: each leg alone, plain rank fusion, and ragcore's.

    python benchmarks/retrieval.py [--sets xquad npl mixed] [--every N]

Runs `flows.search.Search` over an embedded PostgreSQL. Cells are R@1 / nDCG@10. What was tuned was
tuned on half of XQuAD's articles: `tuned on` and `held out` are the two halves. No constant was
tuned on NPL, but its figures were in sight when the way of fusing was chosen. `rrf` is what
equal-weight reciprocal rank fusion (k = 60) makes of the same two legs.
"""

import argparse
import asyncio
from collections.abc import Iterable, Sequence
from statistics import mean

from judged import (
    Bench,
    JudgedSet,
    Question,
    is_tuned_on,
    ndcg_at_10,
    npl,
    open_bench,
    recall_at_1,
    xquad,
    xquad_mixed,
)
from ragcore.model import SearchMode

_DEPTH = 50
_LEGS: tuple[SearchMode, ...] = ("vector", "keyword", "hybrid")


async def main(names: Sequence[str], every: int) -> None:
    async with open_bench() as bench:
        columns = ("vector", "keyword", "rrf", "hybrid", "tuned on", "held out")
        print(f"{'set':32}" + "".join(f"{column:>15}" for column in columns))
        for collection, judged in _sets(names):
            await bench.fill(collection, judged.texts)
            rankings = await _rankings(bench, collection, judged, every)
            questions = judged.questions[::every]
            cells = [_cell(rankings[column], questions) for column in columns[:4]]
            if judged.name.startswith(("xquad", "mixed")):
                cells += [_half_cell(rankings["hybrid"], questions, tuned=t) for t in (True, False)]
            print(f"{judged.name:32}" + "".join(f"{cell:>15}" for cell in cells), flush=True)


def _sets(names: Sequence[str]) -> Iterable[tuple[str, JudgedSet]]:
    if "xquad" in names:
        for asked, told in (("en", "en"), ("ru", "ru"), ("ru", "en"), ("en", "ru")):
            yield f"xquad-{told}", xquad(asked, told)
    if "npl" in names:
        yield "npl-cut", npl(cut=True)
        yield "npl", npl(cut=False)
    if "mixed" in names:
        for english in (0, 1):
            for asked in ("en", "ru"):
                for judged in xquad_mixed(asked, english=english):
                    yield f"mixed-{english}", judged


async def _rankings(
    bench: Bench, collection: str, judged: JudgedSet, every: int
) -> dict[str, list[list[str]]]:
    rankings: dict[str, list[list[str]]] = {"rrf": []}
    for question in judged.questions[::every]:
        for leg in _LEGS:
            found = await bench.search(question.text, collection=collection, mode=leg, top_k=_DEPTH)
            ids = [passage.document_id for passage in found]
            rankings.setdefault(leg, []).append(ids)
        rankings["rrf"].append(_rrf([rankings["vector"][-1], rankings["keyword"][-1]]))
    return rankings


def _rrf(legs: Sequence[Sequence[str]]) -> list[str]:
    scores: dict[str, float] = {}
    for leg in legs:
        for rank, identity in enumerate(leg, start=1):
            scores[identity] = scores.get(identity, 0.0) + 1 / (60 + rank)
    return sorted(scores, key=lambda identity: -scores[identity])


def _cell(rankings: Sequence[Sequence[str]], questions: Sequence[Question]) -> str:
    pairs = list(zip(rankings, questions, strict=True))
    first = mean(recall_at_1(found, question.relevant) for found, question in pairs)
    gain = mean(ndcg_at_10(found, question.relevant) for found, question in pairs)
    return f"{first:.3f} / {gain:.3f}"


def _half_cell(
    rankings: Sequence[Sequence[str]], questions: Sequence[Question], *, tuned: bool
) -> str:
    half = [
        (found, question)
        for found, question in zip(rankings, questions, strict=True)
        if is_tuned_on(question.article) == tuned
    ]
    return _cell([found for found, _ in half], [question for _, question in half])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--sets", nargs="+", default=["xquad", "npl", "mixed"])
    parser.add_argument("--every", type=int, default=1, help="ask every N-th question only")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.sets, arguments.every))
