"""LlamaIndex's filters mean the same in ragcore's words."""

import pytest
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from ragcore.errors import InvalidFilter
from ragcore.llamaindex.filters import filter_of, of_documents
from ragcore.model import AllOf, AnyOf, Condition, Not

LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}


@pytest.mark.parametrize("operator", list(FilterOperator))
def test_every_operator_has_a_condition(operator: FilterOperator) -> None:
    value = ["a"] if operator in LISTS else "a"
    part = MetadataFilter(key="k", value=value, operator=operator)
    translated = filter_of(MetadataFilters(filters=[part]))
    assert isinstance(translated, AllOf)
    (condition,) = translated.parts
    assert isinstance(condition, Condition)
    assert (condition.field, condition.value) == ("k", value)
    assert condition.operator == {
        "==": "eq", "!=": "ne", ">": "gt", "<": "lt", ">=": "gte", "<=": "lte",
    }.get(operator.value, operator.value)  # fmt: skip


def test_nesting_and_negation_are_kept() -> None:
    a, b, c = (MetadataFilter(key=key, value=1) for key in "abc")
    inner = MetadataFilters(filters=[a, b], condition=FilterCondition.OR)
    negated = MetadataFilters(filters=[c, inner], condition=FilterCondition.NOT)
    assert filter_of(MetadataFilters(filters=[negated, c])) == AllOf(
        (
            Not(
                AnyOf(
                    (
                        Condition("c", "eq", 1),
                        AnyOf((Condition("a", "eq", 1), Condition("b", "eq", 1))),
                    )
                )
            ),
            Condition("c", "eq", 1),
        )
    )


def test_no_filters_restrict_nothing() -> None:
    assert filter_of(None) is None
    assert filter_of(MetadataFilters(filters=[])) is None


@pytest.mark.parametrize("operator", sorted(LISTS))
def test_a_list_operator_refuses_a_single_value(operator: FilterOperator) -> None:
    with pytest.raises(InvalidFilter, match="takes a list"):
        filter_of(MetadataFilters(filters=[MetadataFilter(key="k", value=1, operator=operator)]))


def test_a_text_operator_refuses_a_number() -> None:
    part = MetadataFilter(key="k", value=1, operator=FilterOperator.TEXT_MATCH)
    with pytest.raises(InvalidFilter, match="takes a string"):
        filter_of(MetadataFilters(filters=[part]))


def test_document_ids_narrow_a_filter_and_an_empty_list_allows_nothing() -> None:
    year = Condition("year", "eq", 2024)
    assert of_documents(year, None) is year
    assert of_documents(None, []) == Condition("document_id", "in", [])
    assert of_documents(year, ["d"]) == AllOf((year, Condition("document_id", "in", ["d"])))
