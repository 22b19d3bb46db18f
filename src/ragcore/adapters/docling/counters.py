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
    """Return what `loader` (`module:function`) makes of the name; without one, only `bytes`.

    Loaded once in a child's life. Raises NotConfigured for a name nobody knows.
    """
    if loader is None:
        if name == "bytes":
            return bound
        raise NotConfigured(f"the token counter {name!r} needs a loader; without one: 'bytes'")
    module, _, function = loader.partition(":")
    make: Callable[[str], Counter] = getattr(importlib.import_module(module), function)
    return make(name)


def bound(text: str) -> int:
    """Count a token for each byte: enough for any tokenizer that does not decompose characters."""
    return len(text.encode(errors="replace")) + _SPECIAL_TOKENS
