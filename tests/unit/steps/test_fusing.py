from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcore.model import Candidate, Candidates, Passage, SearchMode, Term
from ragcore.steps.fusing import BM25_K1, fuse, perfect_bm25
from ragcore.steps.relevance import Calibration

CALIBRATION = Calibration(noise=0.75, hit=0.87, language_gap=0.05)
FERRY = Term("ferri", documents=3, idf=3.0, configurations=("english",))
SUNDAY = Term("sunday", documents=9, idf=2.0, configurations=("english",))


def candidate(
    name: str,
    *,
    cosine: float | None = 0.75,
    bm25: float = 0.0,
    language: str | None = "en",
) -> Candidate:
    passage = Passage(name, f"document of {name}", "default", 0, f"text {name}", language=language)
    return Candidate(passage, cosine, bm25, vector_rank=1, keyword_rank=None)


def found(*candidates: Candidate, terms: Sequence[Term] = (FERRY, SUNDAY)) -> Candidates:
    return Candidates(candidates, tuple(terms), total_chunks=100, languages={"en": 100}, exact=True)


def order(candidates: Candidates, mode: SearchMode = "hybrid", language: str = "en") -> list[str]:
    fusion = fuse(candidates, mode=mode, calibration=CALIBRATION, question_language=language)
    return [ranked.candidate.passage.chunk_id for ranked in fusion.ranked]


finite = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
any_candidates = st.lists(
    st.builds(
        lambda name, cosine, bm25, language: candidate(
            name, cosine=cosine, bm25=bm25 * 11, language=language
        ),
        st.text("abc", min_size=1, max_size=4),
        st.none() | finite,
        finite,
        st.sampled_from(["en", "ru", None]),
    ),
    unique_by=lambda one: one.passage.chunk_id,
    max_size=12,
)
any_mode = st.sampled_from(["hybrid", "vector", "keyword"])


@settings(deadline=None)
@given(any_candidates, any_mode, st.randoms())
def test_the_order_candidates_come_in_does_not_matter(
    candidates: list[Candidate], mode: SearchMode, random: object
) -> None:
    shuffled = list(candidates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert order(found(*candidates), mode) == order(found(*shuffled), mode)


@settings(deadline=None)
@given(any_candidates, any_mode)
def test_scores_lie_between_0_and_1_and_fall_with_the_order(
    candidates: list[Candidate], mode: SearchMode
) -> None:
    fusion = fuse(found(*candidates), mode=mode, calibration=CALIBRATION, question_language="en")
    scores = [ranked.score for ranked in fusion.ranked]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    assert sorted(r.candidate.passage.chunk_id for r in fusion.ranked) == sorted(
        one.passage.chunk_id for one in candidates
    )


@settings(deadline=None)
@given(any_candidates.filter(bool), finite)
def test_more_of_either_leg_never_puts_a_passage_further_down(
    candidates: list[Candidate], more: float
) -> None:
    chosen, *others = candidates
    better = replace(
        chosen,
        cosine=None if chosen.cosine is None else chosen.cosine + more,
        bm25=chosen.bm25 + more,
    )
    name = chosen.passage.chunk_id
    before = order(found(chosen, *others)).index(name)
    assert order(found(better, *others)).index(name) <= before


@settings(deadline=None)
@given(any_candidates)
def test_a_leg_without_a_word_to_say_is_not_heard(candidates: list[Candidate]) -> None:
    silent = [replace(one, bm25=0.0, cosine=one.cosine or 0.0) for one in candidates]
    fusion = fuse(found(*silent), mode="hybrid", calibration=CALIBRATION)
    assert [r.candidate for r in fusion.ranked] == [
        r.candidate for r in fuse(found(*silent), mode="vector", calibration=CALIBRATION).ranked
    ]
    assert fusion.weights == (
        {"vector": 1.0, "keyword": 0.0} if silent else dict.fromkeys(("vector", "keyword"), 0.0)
    )


def test_words_that_no_passage_holds_make_the_keyword_leg_quiet() -> None:
    near = candidate("near", cosine=0.84)
    worded = candidate("worded", cosine=0.77, bm25=8.0)
    assert order(found(near, worded)) == ["worded", "near"]
    unknown = [Term(f"unknown {n}", 0, 5.0, ("english",)) for n in range(4)]
    assert order(found(near, worded, terms=(FERRY, SUNDAY, *unknown))) == ["near", "worded"]


def test_a_russian_question_is_not_measured_by_how_english_reads_it() -> None:
    russian = Term("паром", 3, 3.0, ("russian",))
    as_english = [Term(word, 0, 5.0, ("english",)) for word in ("когда", "паром", "отходит")]
    both = found(candidate("a"), terms=(russian, *as_english))
    assert perfect_bm25(both) == pytest.approx(3.0 * (BM25_K1 + 1))


def test_a_hit_in_another_language_passes_noise_in_the_own_one() -> None:
    own = candidate("noise in English", cosine=0.80, language="en")
    foreign = candidate("hit in Russian", cosine=0.77, language="ru")
    assert order(found(own, foreign), language="en") == ["hit in Russian", "noise in English"]
    assert order(found(own, foreign), "vector", "en") == ["noise in English", "hit in Russian"]


def test_scores_of_a_single_leg_are_its_own() -> None:
    both = found(candidate("a", cosine=0.83, bm25=5.5))
    by_vector = fuse(both, mode="vector", calibration=CALIBRATION).ranked[0]
    by_words = fuse(both, mode="keyword", calibration=CALIBRATION).ranked[0]
    assert by_vector.score == pytest.approx(0.83)
    assert by_words.score == pytest.approx(5.5 / 11)


def test_nothing_found_fuses_to_nothing() -> None:
    assert fuse(found(), mode="hybrid", calibration=CALIBRATION).ranked == ()
