from ragcore.steps.rankings import Ranking, rank_change, summary


def ranking(*keys: str, milliseconds: float = 1.0) -> Ranking:
    return Ranking(keys, milliseconds)


def test_the_same_ranking_has_not_moved() -> None:
    change = rank_change("q", ranking("a", "b"), ranking("a", "b"), wanted="b")
    assert (change.overlap, change.moved) == (1.0, 0.0)
    assert (change.first_before, change.first_after) == ("a", "a")
    assert (change.wanted_before, change.wanted_after) == (2, 2)


def test_what_is_on_both_sides_counts_by_the_longer_one() -> None:
    change = rank_change("q", ranking("a", "b", "c", "d"), ranking("d", "a"))
    assert change.overlap == 0.5
    assert change.moved == 2.0  # a by one, d by three


def test_rankings_that_share_nothing_and_empty_ones() -> None:
    assert rank_change("q", ranking("a"), ranking("b")).overlap == 0.0
    assert rank_change("q", ranking("a"), ranking()).overlap == 0.0
    nothing = rank_change("q", ranking(), ranking(), wanted="a")
    assert (nothing.overlap, nothing.first_before, nothing.wanted_after) == (1.0, None, None)


def test_what_is_not_known_is_not_found() -> None:
    assert rank_change("q", ranking("a"), ranking("a")).wanted_before is None


def test_a_summary_holds_means_and_the_share_that_was_found() -> None:
    before = [ranking("a", "b", milliseconds=10), ranking("c", milliseconds=30)]
    after = [ranking("b", "a", milliseconds=20), ranking("x", milliseconds=20)]
    changes = [
        rank_change("one", before[0], after[0], wanted="b"),
        rank_change("two", before[1], after[1], wanted="c"),
    ]
    assert summary(changes, before, after) == {
        "questions": 2,
        "overlap": 0.5,
        "same_first": 0.0,
        "moved": 0.5,
        "found_before": 1.0,
        "found_after": 0.5,
        "milliseconds_before": 20,
        "milliseconds_after": 20,
    }


def test_questions_of_the_caller_have_no_source_to_be_found() -> None:
    pair = [ranking("a")]
    told = summary([rank_change("q", pair[0], pair[0])], pair, pair)
    assert (told["found_before"], told["found_after"]) == (None, None)
