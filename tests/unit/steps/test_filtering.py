from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.errors import InvalidFilter
from ragcore.model import AllOf, AnyOf, Condition, Document, Not
from ragcore.steps.filtering import (
    DEEPEST,
    MOST_CONDITIONS,
    MOST_VALUES,
    check,
    fields_of,
    matches,
    parse,
)


def test_a_bare_value_means_equality() -> None:
    assert parse({"year": 2024}) == Condition("year", "eq", 2024)


def test_keys_and_operators_beside_one_another_must_all_hold() -> None:
    assert parse({"a": 1, "b": {"$gt": 2, "$lte": 5}}) == AllOf(
        (Condition("a", "eq", 1), Condition("b", "gt", 2), Condition("b", "lte", 5))
    )


def test_logic_nests() -> None:
    found = parse({"$or": [{"a": 1}, {"$not": {"b": {"$in": [1, 2]}}}]})
    assert found == AnyOf((Condition("a", "eq", 1), Not(Condition("b", "in", (1, 2)))))


def test_no_condition_lets_everything_through() -> None:
    assert matches(parse({}), {})
    assert matches(parse({"$and": []}), {})
    assert not matches(parse({"$or": []}), {})


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        ([], "A filter is an object"),
        ("year = 2024", "A filter is an object"),
        ({"$nor": []}, r"'\$nor'"),
        ({"$eq": 1}, r"'\$eq'"),
        ({"year": {"gte": 1}}, "'gte' is no operator"),
        ({"year": {"$regex": "x"}}, r"'\$regex' is no operator"),
        ({"year": {}}, "filter on 'year' is empty"),
        ({"year": {"$in": 5}}, r"'\$in' takes a list, not 5"),
        ({"$and": {"a": 1}}, r"'\$and' takes a list"),
        ({"$or": [5]}, "A filter is an object"),
        ({"year": [2024, 2025]}, r"for several values, \$in"),
        ({"year": {"$eq": {"a": 1}}}, "can't be compared with"),
        ({"year": {"$gt": None}}, "can't be put in order with None"),
        ({"year": {"$gt": True}}, "can't be put in order with True"),
        ({"year": float("nan")}, "nan"),
        ({"year": float("inf")}, "inf"),
        ({"year": {"$exists": 1}}, "takes true or false, not 1"),
        ({"": 1}, "'' can't be the name of a field"),
        ({"a\0b": 1}, "name of a field"),
        ({"a": "x\0"}, "can't be compared"),
        ({"a": "\ud800"}, "can't be compared"),
        ({5: 1}, "5 is neither a field nor"),
        ({"created_at": {"$gt": "yesterday"}}, "a date or time like '2026-01-31'"),
        ({"created_at": "0001-01-01T00:00:00+23:00"}, "a date or time like"),
        ({"a": {"$in": [0] * (MOST_VALUES + 1)}}, f"at most {MOST_VALUES}"),
        ({"$or": [{"a": n} for n in range(MOST_CONDITIONS + 1)]}, "too large"),
    ],
)
def test_what_can_not_be_evaluated_is_refused_by_name(raw: Any, named: str) -> None:
    with pytest.raises(InvalidFilter, match=named):
        parse(raw)


@pytest.mark.parametrize("operator", ["$not", "field"])
def test_a_filter_nested_too_deep_is_refused(operator: str) -> None:
    raw: dict[str, Any] = {"a": 1} if operator == "$not" else {"$eq": 1}
    for _ in range(5000):
        raw = {"$not": raw}
    with pytest.raises(InvalidFilter, match=f"at most {DEEPEST} deep"):
        parse(raw if operator == "$not" else {"a": raw})


def test_a_deep_filter_made_elsewhere_is_refused_too() -> None:
    deep: Any = Condition("a", "eq", 1)
    for _ in range(10_000):
        deep = Not(deep)
    with pytest.raises(InvalidFilter, match="deep"):
        check(deep)


def test_reserved_fields_win_over_metadata_and_metadata_over_what_was_extracted() -> None:
    document = Document(
        "c",
        "d",
        language="ru",
        metadata={"title": "mine", "language": "xx", "author": "Ann", "pages": None},
        extracted={"author": "Bob", "pages": 3, "created": "2020"},
    )
    fields = fields_of(document)
    assert fields["language"] == "ru"
    assert "title" not in fields
    assert (fields["author"], fields["pages"], fields["created"]) == ("Ann", None, "2020")


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0, "", "1", "a"])
)
OPERATORS = st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"])


@given(VALUES, st.dictionaries(st.just("f"), VALUES))
def test_equal_and_not_equal_are_opposites(value: Any, fields: dict[str, Any]) -> None:
    equal = matches(Condition("f", "eq", value), fields)
    assert equal is not matches(Condition("f", "ne", value), fields)
    assert matches(Condition("f", "in", (value,)), fields) is equal
    assert matches(Condition("f", "nin", (value,)), fields) is not equal


@given(st.sampled_from([-1, 0, 1.5, "a", "b"]), VALUES)
def test_order_holds_only_between_values_of_one_kind(value: Any, found: Any) -> None:
    fields = {"f": found}
    outcomes = [matches(Condition("f", operator, value), fields) for operator in ("lt", "eq", "gt")]
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in (value, found)]
    alike = all(numbers) or (isinstance(value, str) and isinstance(found, str))
    assert sum(outcomes) == alike
