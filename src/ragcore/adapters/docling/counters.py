"""Token counters by name, as a conversion request names them."""

import importlib
from collections.abc import Callable
from functools import lru_cache

from ragcore.errors import NotConfigured

Counter = Callable[[str], int]

_SPECIAL_TOKENS = 3
"""Begin, end, and the blank that SentencePiece puts before a text."""


@lru_cache(maxsize=8)
def load(name: str, loader: str | None) -> Counter:
    """Return the counter `name`: `bytes`, or what `loader` (`module:function`) makes of the name.

    Loaded once in a child's life. Raises NotConfigured for a name nobody knows.
    """
    if name == "bytes":
        return bound
    if loader is None:
        raise NotConfigured(f"the token counter {name!r} needs a loader; without one: 'bytes'")
    module, _, function = loader.partition(":")
    make: Callable[[str], Counter] = getattr(importlib.import_module(module), function)
    return make(name)


def bound(text: str) -> int:
    """Return a number of tokens that no tokenizer exceeds: each token spells a byte or more."""
    return len(text.encode(errors="replace")) + _SPECIAL_TOKENS
