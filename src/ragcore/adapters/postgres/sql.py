"""SQL files read into named queries: all but single statements live in `.sql` files beside this."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Final

_HEADING: Final = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load(filename: str) -> Mapping[str, str]:
    """Return the queries of a file by the name in their `-- name: …` heading.

    What stands before the first heading is a comment to the file. Raises ValueError for a name that
    occurs twice.
    """
    _, *parts = _HEADING.split(_read(filename))
    names, queries = parts[::2], parts[1::2]
    if len(set(names)) < len(names):
        raise ValueError(f"{filename!r} names a query twice: {sorted(names)!r}")
    return MappingProxyType(
        {name: query.strip().removesuffix(";") for name, query in zip(names, queries, strict=True)}
    )


def _read(filename: str) -> str:
    return files("ragcore.adapters.postgres").joinpath(filename).read_text(encoding="utf-8")
