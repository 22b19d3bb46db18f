"""How `key=value` and JSON options are read."""

import json

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from ragcore.cli.options import read_filters, read_pairs

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
)
names = st.text(st.characters(codec="utf-8", exclude_characters="={"), min_size=1).filter(
    lambda name: name.strip() == name
)


@given(names, st.one_of(scalars, st.text(), st.lists(st.integers())))
def test_a_json_value_comes_back_as_it_is(name: str, value: object) -> None:
    assert read_pairs([f"{name}={json.dumps(value)}"], option="--metadata") == {name: value}


@given(st.dictionaries(st.text(), st.one_of(scalars, st.text())))
def test_a_json_object_comes_back_as_it_is(value: dict[str, object]) -> None:
    assert read_pairs([json.dumps(value)], option="--metadata") == value


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("year=2025", {"year": 2025}),
        ('year="2025"', {"year": "2025"}),
        ("team=Отдел кадров", {"team": "Отдел кадров"}),
        ("formula=a=b", {"formula": "a=b"}),
        ("empty=", {"empty": ""}),
        ("ratio=NaN", {"ratio": "NaN"}),
        (" spaced =x", {"spaced": "x"}),
    ],
)
def test_a_value_that_is_no_json_is_text(given_text: str, expected: dict[str, object]) -> None:
    assert read_pairs([given_text], option="--metadata") == expected


def test_later_pairs_win() -> None:
    assert read_pairs(["a=1", '{"a": 2, "b": 3}', "b=4"], option="-m") == {"a": 2, "b": 4}


@pytest.mark.parametrize("wrong", ["year", "=2025", '{"year": ', " =x"])
def test_what_is_neither_pair_nor_object_is_wrong_usage(wrong: str) -> None:
    with pytest.raises(typer.BadParameter, match="--metadata"):
        read_pairs([wrong], option="--metadata")


def test_several_filters_must_all_match() -> None:
    assert read_filters(None) is None
    assert read_filters(["year=2025"]) == {"year": 2025}
    assert read_filters(["year=2025", '{"pages": {"$gt": 3}}']) == {
        "$and": [{"year": 2025}, {"pages": {"$gt": 3}}]
    }
