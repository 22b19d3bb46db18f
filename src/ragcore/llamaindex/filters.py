"""LlamaIndex's metadata filters as ragcore's."""

from typing import Literal

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from ragcore.errors import InvalidFilter
from ragcore.model import AllOf, AnyOf, Condition, Filter, Not

_Operator = Literal[
    "eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "any", "all",
    "contains", "text_match", "text_match_insensitive", "is_empty",
]  # fmt: skip

_OPERATORS: dict[FilterOperator, _Operator] = {
    FilterOperator.EQ: "eq",
    FilterOperator.NE: "ne",
    FilterOperator.IN: "in",
    FilterOperator.NIN: "nin",
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
    FilterOperator.ANY: "any",
    FilterOperator.ALL: "all",
    FilterOperator.CONTAINS: "contains",
    FilterOperator.TEXT_MATCH: "text_match",
    FilterOperator.TEXT_MATCH_INSENSITIVE: "text_match_insensitive",
    FilterOperator.IS_EMPTY: "is_empty",
}

_LISTS = {FilterOperator.IN, FilterOperator.NIN, FilterOperator.ANY, FilterOperator.ALL}
_STRINGS = {FilterOperator.TEXT_MATCH, FilterOperator.TEXT_MATCH_INSENSITIVE}


def filter_of(filters: MetadataFilters | None) -> Filter | None:
    """Return the same filter in ragcore's words, None when it restricts nothing.

    NOT over several parts matches where none of them does, as in LlamaIndex's own stores.
    Raises InvalidFilter for a value that its operator cannot compare with.
    """
    if filters is None or not filters.filters:
        return None
    return _combined(filters)


def of_documents(filters: Filter | None, document_ids: list[str] | None) -> Filter | None:
    """Narrow a filter to documents of these ids; None leaves them open."""
    if document_ids is None:
        return filters
    named = Condition("document_id", "in", list(document_ids))
    return named if filters is None else AllOf((filters, named))


def _combined(filters: MetadataFilters) -> Filter:
    parts = tuple(
        _combined(part) if isinstance(part, MetadataFilters) else _condition(part)
        for part in filters.filters
    )
    if filters.condition == FilterCondition.OR:
        return AnyOf(parts)
    if filters.condition == FilterCondition.NOT:
        return Not(AnyOf(parts))
    return AllOf(parts)


def _condition(part: MetadataFilter) -> Condition:
    if part.operator in _LISTS and not isinstance(part.value, list):
        raise InvalidFilter(
            f"the filter on {part.key!r} with operator {part.operator.value!r} takes a list, "
            f"not {part.value!r}"
        )
    if part.operator in _STRINGS and not isinstance(part.value, str):
        raise InvalidFilter(
            f"the filter on {part.key!r} with operator {part.operator.value!r} takes a string, "
            f"not {part.value!r}"
        )
    return Condition(part.key, _OPERATORS[part.operator], part.value)
