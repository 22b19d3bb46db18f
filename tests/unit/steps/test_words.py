import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcore.steps.words import names, numbers, roots


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("маяк", "маяка"),
        ("паромы", "паромами"),
        ("ёлка", "елки"),
        ("станция", "станции"),
        ("lighthouse", "lighthouses"),
        ("ferries", "ferry"),
        ("Northern", "northern"),
    ],
)
def test_forms_of_one_word_share_a_root(one: str, other: str) -> None:
    assert roots(one) == roots(other) != frozenset()


def test_words_that_carry_no_meaning_have_no_root() -> None:
    assert roots("What is the … of it, and где это было?") == frozenset()


def test_numbers_are_compared_without_the_marks_between_their_digits() -> None:
    assert numbers("1,250 and 1 250 and 1.250") == {"1250"}
    assert numbers("in 1874, 12 km") == {"1874", "12"}
    assert numbers("3,5 тонны") == numbers("3.5 tons")


def test_names_are_capitalised_words_but_for_the_first() -> None:
    assert names("The geologist Anna Lind came") == roots("Anna Lind")
    assert names("Маяк построил Иван Орлов") == roots("Иван Орлов")


@given(st.text())
@settings(deadline=None)
def test_any_text_has_roots_numbers_and_names(text: str) -> None:
    assert all(roots(text))
    assert all(number.isdigit() for number in numbers(text))
    assert all(names(text))
