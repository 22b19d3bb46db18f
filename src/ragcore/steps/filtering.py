"""Filters: from the JSON a caller writes to a checked `Filter`, and what a filter means.

`matches` is the definition; the SQL of `adapters/postgres/filters.py` is tested against it. A field
is a key at the top level of what describes a document: the reserved fields, then the caller's
metadata, then what the parser extracted; the first that has it wins. Values of unlike types are
never equal and never in order (a bool is no number). Strings compare by code point, `created_at` as
a moment in time. The negations `ne`, `nin` and `Not` match where the field is missing.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from ragcore.errors import InvalidFilter
from ragcore.model import AllOf, AnyOf, Condition, Document, Filter, Not

RESERVED: Final = ("document_id", "title", "language", "mime_type", "created_at")
"""Fields of the document itself: they win over metadata of the same name."""

MOST_CONDITIONS: Final = 500
MOST_VALUES: Final = 10_000
DEEPEST: Final = 20

_SCALARS: Final[Mapping[str, Any]] = {
    "$eq": "eq",
    "$ne": "ne",
    "$gt": "gt",
    "$gte": "gte",
    "$lt": "lt",
    "$lte": "lte",
}
_LISTS: Final[Mapping[str, Any]] = {"$in": "in", "$nin": "nin"}
_ORDERINGS: Final = ("gt", "gte", "lt", "lte")
_NAMES: Final = "$eq $ne $in $nin $gt $gte $lt $lte $exists $not"


# --- reading -------------------------------------------------------------------------------


def parse(raw: Mapping[str, Any]) -> Filter:
    """Make a checked filter of what a caller wrote, `{"year": {"$gte": 2024}}`.

    Keys beside one another must all hold, a bare value means `$eq`, and `{}` matches everything.
    Raises InvalidFilter.
    """
    found = _object(raw, depth=0)
    check(found)
    return found


def _object(raw: object, *, depth: int) -> Filter:
    if not isinstance(raw, Mapping):
        raise InvalidFilter(f"A filter is an object like {{'year': 2024}}, not {raw!r}")
    if depth > DEEPEST:
        raise InvalidFilter(f"A filter is nested at most {DEEPEST} deep: write it flatter")
    parts = [part for key, value in raw.items() for part in _entry(key, value, depth=depth)]
    return parts[0] if len(parts) == 1 else AllOf(tuple(parts))


def _entry(key: object, value: Any, *, depth: int) -> Iterator[Filter]:
    match key:
        case "$and":
            yield AllOf(tuple(_object(part, depth=depth + 1) for part in _list(key, value)))
        case "$or":
            yield AnyOf(tuple(_object(part, depth=depth + 1) for part in _list(key, value)))
        case "$not":
            yield Not(_object(value, depth=depth + 1))
        case str() if not key.startswith("$"):
            yield from _field(key, value, depth=depth)
        case _:
            raise InvalidFilter(
                f"{key!r} is neither a field nor one of $and, $or, $not at the top of a filter"
            )


def _field(field: str, value: Any, *, depth: int) -> Iterator[Filter]:
    if not isinstance(value, Mapping):
        yield Condition(field, "eq", value)
        return
    if not value:
        raise InvalidFilter(f"The filter on {field!r} is empty: give a value or one of {_NAMES}")
    for operator, operand in value.items():
        yield _condition(field, operator, operand, depth=depth)


def _condition(field: str, operator: object, operand: Any, *, depth: int) -> Filter:
    match operator:
        case "$eq" | "$ne" | "$gt" | "$gte" | "$lt" | "$lte":
            return Condition(field, _SCALARS[operator], operand)
        case "$in" | "$nin":
            return Condition(field, _LISTS[operator], tuple(_list(operator, operand)))
        case "$exists":
            return Condition(field, "exists", operand)
        case "$not":
            if depth >= DEEPEST:
                raise InvalidFilter(f"A filter is nested at most {DEEPEST} deep: write it flatter")
            return Not(AllOf(tuple(_field(field, operand, depth=depth + 1))))
        case _:
            raise InvalidFilter(f"{operator!r} is no operator: use one of {_NAMES}")


def _list(operator: object, value: object) -> Sequence[Any]:
    if isinstance(value, list | tuple):
        return value
    raise InvalidFilter(f"{operator!r} takes a list, not {value!r}")


# --- checking ------------------------------------------------------------------------------


def check(filter_: Filter) -> None:
    """Raise InvalidFilter for what can't be evaluated: a wrong value, too large, too deep."""
    remaining = MOST_CONDITIONS
    waiting: list[tuple[Filter, int]] = [(filter_, 0)]
    while waiting:
        part, depth = waiting.pop()
        remaining -= 1
        if remaining < 0 or depth > 2 * DEEPEST:
            raise InvalidFilter(
                f"The filter is too large: at most {MOST_CONDITIONS} conditions, {DEEPEST} deep"
            )
        match part:
            case AllOf(parts) | AnyOf(parts):
                waiting.extend((inner, depth + 1) for inner in parts)
            case Not(inner):
                waiting.append((inner, depth + 1))
            case Condition():
                _check_condition(part)


def _check_condition(condition: Condition) -> None:
    field, operator, value = condition.field, condition.operator, condition.value
    if not field or not _is_storable(field):
        raise InvalidFilter(f"{field!r} can't be the name of a field")
    match operator:
        case "eq" | "ne" | "contains":
            _check_scalar(condition, value)
        case "gt" | "gte" | "lt" | "lte":
            _check_scalar(condition, value)
            if value is None or isinstance(value, bool):
                raise InvalidFilter(f"{field!r} can't be put in order with {value!r}")
        case "in" | "nin" | "any" | "all":
            if not isinstance(value, list | tuple) or len(value) > MOST_VALUES:
                raise InvalidFilter(
                    f"{operator!r} on {field!r} takes a list of at most {MOST_VALUES} values"
                )
            for item in value:
                _check_scalar(condition, item)
        case "exists":
            if not isinstance(value, bool):
                raise InvalidFilter(f"'exists' on {field!r} takes true or false, not {value!r}")
        case "text_match" | "text_match_insensitive":
            if not isinstance(value, str) or not _is_storable(value):
                raise InvalidFilter(f"{operator!r} on {field!r} takes a string, not {value!r}")
        case "is_empty":
            pass


def _check_scalar(condition: Condition, value: Any) -> None:
    field = condition.field
    match value:
        case None | bool() | int():
            pass
        case float() if math.isfinite(value):
            pass
        case str() if _is_storable(value):
            if field == "created_at" and condition.operator != "contains":
                moment(value)
        case _:
            raise InvalidFilter(
                f"{field!r} can't be compared with {value!r}: use a string, a number, a bool or"
                " null (for several values, $in)"
            )


def _is_storable(text: str) -> bool:
    """Whether PostgreSQL could hold the text: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def moment(value: str) -> datetime:
    """Return the moment an ISO 8601 date or time names, in UTC where it says no zone.

    Raises InvalidFilter.
    """
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidFilter(
            f"'created_at' is compared with a date or time like '2026-01-31', not {value!r}"
        ) from error


# --- meaning -------------------------------------------------------------------------------


def fields_of(document: Document) -> dict[str, Any]:
    """Return what filters see of a document: field → value; a missing field is left out."""
    reserved = {name: getattr(document, name) for name in RESERVED}
    described = {**document.extracted, **document.metadata, **reserved}
    return {
        name: value
        for name, value in described.items()
        if name not in RESERVED or value is not None
    }


def matches(filter_: Filter, fields: Mapping[str, Any]) -> bool:
    """Tell whether a checked filter lets through what has these fields."""
    match filter_:
        case AllOf(parts):
            return all(matches(part, fields) for part in parts)
        case AnyOf(parts):
            return any(matches(part, fields) for part in parts)
        case Not(part):
            return not matches(part, fields)
        case Condition(field, "exists", wanted):
            return (field in fields) is wanted
        case Condition(field, "is_empty", _):
            return fields.get(field) in (None, "", [], {})
        case Condition(field, "ne", value):
            return not matches(Condition(field, "eq", value), fields)
        case Condition(field, "nin", values):
            return not matches(Condition(field, "in", values), fields)
        case Condition(field, operator, value):
            return field in fields and _COMPARISONS[operator](fields[field], value)


def _equal(found: Any, value: Any) -> bool:
    left, right = _comparable(found, value)
    return type(left) is type(right) and bool(left == right)


def _in_order(operator: str) -> Callable[[Any, Any], bool]:
    def compare(found: Any, value: Any) -> bool:
        left, right = _comparable(found, value)
        if type(left) is not type(right) or not isinstance(left, str | Decimal | datetime):
            return False
        match operator:
            case "gt":
                return bool(left > right)
            case "gte":
                return bool(left >= right)
            case "lt":
                return bool(left < right)
            case _:
                return bool(left <= right)

    return compare


def _comparable(found: Any, value: Any) -> tuple[Any, Any]:
    if isinstance(found, datetime):
        return found.astimezone(UTC), moment(value) if isinstance(value, str) else value
    return _exact(found), _exact(value)


def _exact(value: Any) -> Any:
    """Numbers as JSON writes them, so that 1 equals 1.0; everything else as it is."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Decimal(repr(value))
    return value


def _holds(found: Any, value: Any) -> bool:
    return isinstance(found, list | tuple) and any(_equal(item, value) for item in found)


_COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": _equal,
    "in": lambda found, values: any(_equal(found, value) for value in values),
    **{operator: _in_order(operator) for operator in _ORDERINGS},
    "contains": _holds,
    "any": lambda found, values: any(_holds(found, value) for value in values),
    "all": lambda found, values: (
        isinstance(found, list | tuple) and all(_holds(found, value) for value in values)
    ),
    "text_match": lambda found, value: isinstance(found, str) and value in found,
    "text_match_insensitive": lambda found, value: (
        isinstance(found, str) and value.lower() in found.lower()
    ),
}
