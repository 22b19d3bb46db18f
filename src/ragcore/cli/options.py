"""Options that several commands share, and how their values are read."""

import json
from typing import Annotated, Any

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")
]
Collection = Annotated[
    str | None,
    typer.Option(
        "--collection", "-c", help="Collection to use. [default: RAGCORE_COLLECTION or default]"
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter",
        "-f",
        metavar="KEY=VALUE|JSON",
        help='Only documents that match: year=2025, or \'{"year": {"$gte": 2024}}\'. '
        "Repeat to narrow further.",
    ),
]


def read_pairs(values: list[str] | None, *, option: str) -> dict[str, Any]:
    """Merge `key=value` and JSON objects into one object; later ones win.

    A value that is JSON is taken as such (`year=2025` is a number, `ok=true` a boolean), anything
    else is text; quotes keep a number text (`year='"2025"'`).
    """
    merged: dict[str, Any] = {}
    for value in values or ():
        merged |= _read_pair(value, option)
    return merged


def read_filters(values: list[str] | None) -> dict[str, Any] | None:
    """Return one filter that all given ones must satisfy, None where none is given."""
    filters = [_read_pair(value, "--filter") for value in values or ()]
    if len(filters) > 1:
        return {"$and": filters}
    return filters[0] if filters else None


def _read_pair(value: str, option: str) -> dict[str, Any]:
    if value.lstrip().startswith("{"):
        try:
            found = json.loads(value)
        except ValueError as error:
            raise typer.BadParameter(f"{option} {value!r} is not JSON: {error}") from error
        return dict(found)
    key, equals, text = value.partition("=")
    if not equals or not key.strip():
        raise typer.BadParameter(f"{option} {value!r} is neither KEY=VALUE nor a JSON object")
    return {key.strip(): _read_value(text)}


def _read_value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except ValueError:
        return text
