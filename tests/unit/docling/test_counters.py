"""Counters are found by name; what the adapter can't count itself is lent to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling import counters
from ragcore.errors import NotConfigured

MODELS = "ragcore.adapters.models.tokenizers:load_counter"


@given(st.text())
def test_the_bound_covers_every_byte(text: str) -> None:
    assert counters.load("bytes", None)(text) > len(text.encode(errors="replace"))


def test_a_lent_counter_counts_as_its_owner_does() -> None:
    from ragcore.adapters.models.tokenizers import load_counter

    text = "Съешь же ещё этих мягких французских булок"
    assert counters.load("bundled", MODELS)(text) == load_counter("bundled")(text)


def test_an_unknown_counter_is_named() -> None:
    with pytest.raises(NotConfigured, match="'abacus'"):
        counters.load("abacus", None)


def test_a_lent_bound_covers_letters_that_tokenizers_decompose() -> None:
    ligatures = "\N{ARABIC LIGATURE SALLALLAHOU ALAYHE WASALLAM}" * 10
    assert counters.load("bytes", MODELS)(ligatures) > 10 * 18
