"""Filters as SQL conditions; `steps/filtering.py` says what they mean.

Documents are filtered on their row `d` of ragcore.documents, rows that carry their own metadata
(nodes of LlamaIndex and of stock clients) on themselves, as `t`. A condition may be NULL where it
is not true; below a NOT it never is, so that a negation matches where a field is missing.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from psycopg.types.json import Jsonb

from ragcore.model import AllOf, AnyOf, Condition, Filter, Not
from ragcore.steps import filtering

_COMPARISONS: Final = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

_MOST_INDEXED_VALUES: Final = 32
"""Longer lists are compared row by row instead of looked up one by one."""


def document_condition(filter_: Filter) -> tuple[str, Mapping[str, Any]]:
    """Return the condition on a row `d` of ragcore.documents, and its parameters.

    Raises InvalidFilter.
    """
    filtering.check(filter_)
    values = _Parameters("document")
    return _Documents(values).condition(filter_), values.values


def own_condition(filter_: Filter) -> tuple[str, Mapping[str, Any]]:
    """Return the condition on a row `t` with metadata of its own, and its parameters.

    Such a row has no document to be described by: its reserved fields are the columns that the
    writer filled, otherwise what its metadata says. Raises InvalidFilter.
    """
    filtering.check(filter_)
    values = _Parameters("own")
    return _OwnRows(values).condition(filter_), values.values


@dataclass(slots=True)
class _Parameters:
    """Values of a statement under names that no other part of it uses."""

    prefix: str
    values: dict[str, Any] = field(default_factory=dict)

    def add(self, value: Any, type_: str) -> str:
        name = f"{self.prefix}_{len(self.values)}"
        self.values[name] = value
        return f"%({name})s::{type_}"

    def json(self, value: Any) -> str:
        return self.add(Jsonb(value), "jsonb")


class _Translator(ABC):
    """What both kinds of rows share: logic, and operators over a field's JSON value."""

    def __init__(self, values: _Parameters) -> None:
        self._values = values

    def condition(self, filter_: Filter) -> str:
        match filter_:
            case AllOf(parts):
                return _joined(" AND ", "true", [self.condition(part) for part in parts])
            case AnyOf(parts):
                return _joined(" OR ", "false", [self.condition(part) for part in parts])
            case Not(part):
                return f"NOT coalesce({self.condition(part)}, false)"
            case Condition(name, "ne", value):
                return f"NOT coalesce({self.equal(name, value)}, false)"
            case Condition(name, "nin", value):
                return f"NOT coalesce({self.one_of(name, value)}, false)"
            case Condition(name, "eq", value):
                return self.equal(name, value)
            case Condition(name, "in", value):
                return self.one_of(name, value)
            case Condition():
                return self.compared(filter_)

    @abstractmethod
    def value(self, name: str) -> str:
        """The field as JSON, NULL where it is missing."""

    def equal(self, name: str, value: Any) -> str:
        return f"{self.value(name)} = {self._values.json(value)}"

    def one_of(self, name: str, values: Sequence[Any]) -> str:
        if len(values) <= _MOST_INDEXED_VALUES:
            return _joined(" OR ", "false", [self.equal(name, value) for value in values])
        listed = self._values.add([Jsonb(value) for value in values], "jsonb[]")
        return f"{self.value(name)} = ANY({listed})"

    def compared(self, condition: Condition) -> str:
        found, value = self.value(condition.field), condition.value
        match condition.operator:
            case "exists":
                return f"({found} IS {'NOT ' if value else ''}NULL)"
            case "is_empty":
                empty = """'null', '""', '[]', '{}'"""
                return f"({found} IS NULL OR {found} IN ({empty}))"
            case "contains":
                return _typed(found, "array", f"{found} @> {self._values.json([value])}")
            case "all":
                return _typed(found, "array", f"{found} @> {self._values.json(list(value))}")
            case "any":
                listed = self._values.add([Jsonb([item]) for item in value], "jsonb[]")
                return _typed(found, "array", f"{found} @> ANY({listed})")
            case "text_match":
                wanted = self._values.add(value, "text")
                return _typed(found, "string", f"strpos({_text(found)}, {wanted}) > 0")
            case "text_match_insensitive":
                wanted = self._values.add(value, "text")
                inside = f"strpos(lower({_text(found)}), lower({wanted})) > 0"
                return _typed(found, "string", inside)
            case operator:
                return self._ordered(found, _COMPARISONS[operator], value)

    def _ordered(self, found: str, operator: str, value: Any) -> str:
        if isinstance(value, str):
            wanted = self._values.add(value, "text")
            return _typed(found, "string", f'{_text(found)} COLLATE "C" {operator} {wanted}')
        return _typed(found, "number", f"{found} {operator} {self._values.json(value)}")


class _Documents(_Translator):
    """Conditions on ragcore.documents, written so that its indexes serve equality."""

    _TEXTS: Final = ("document_id", "title", "language", "mime_type")

    def value(self, name: str) -> str:
        if name in self._TEXTS:
            return f"to_jsonb(d.{name})"
        key = self._values.add(name, "text")
        return f"coalesce(d.metadata -> {key}, d.extracted -> {key})"

    def equal(self, name: str, value: Any) -> str:
        if name == "created_at":
            return self._at(name, "=", value)
        if name in self._TEXTS:
            wanted = self._values.add(value, "text")
            return f"d.{name} = {wanted}" if isinstance(value, str) else "false"
        held = self._values.json({name: value})
        key = self._values.add(name, "text")
        return f"(d.metadata @> {held} OR (d.extracted @> {held} AND NOT d.metadata ? {key}))"

    def one_of(self, name: str, values: Sequence[Any]) -> str:
        if name in self._TEXTS:
            texts = [value for value in values if isinstance(value, str)]
            return f"d.{name} = ANY({self._values.add(texts, 'text[]')})"
        if name == "created_at":
            return _joined(" OR ", "false", [self.equal(name, value) for value in values])
        return super().one_of(name, values)

    def compared(self, condition: Condition) -> str:
        if condition.field != "created_at":
            return super().compared(condition)
        if condition.operator == "exists":
            return "true" if condition.value else "false"
        if condition.operator in _COMPARISONS:
            return self._at("created_at", _COMPARISONS[condition.operator], condition.value)
        return "false"  # a moment is neither text nor a list, and never empty

    def _at(self, column: str, operator: str, value: Any) -> str:
        if not isinstance(value, str):
            return "false"
        return f"d.{column} {operator} {self._values.add(filtering.moment(value), 'timestamptz')}"


class _OwnRows(_Translator):
    """Conditions on rows that carry their own metadata."""

    def value(self, name: str) -> str:
        key = self._values.add(name, "text")
        if name in ("document_id", "language"):
            return f"coalesce(to_jsonb(t.{name}), t.metadata -> {key})"
        return f"t.metadata -> {key}"

    def equal(self, name: str, value: Any) -> str:
        if name in ("document_id", "language"):
            return super().equal(name, value)
        return f"t.metadata @> {self._values.json({name: value})}"


def _joined(operator: str, empty: str, parts: Sequence[str]) -> str:
    return f"({operator.join(parts)})" if parts else empty


def _typed(found: str, type_: str, comparison: str) -> str:
    return f"(jsonb_typeof({found}) = '{type_}' AND {comparison})"


def _text(found: str) -> str:
    return f"({found} #>> '{{}}')"
