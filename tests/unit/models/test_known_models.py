"""What is known about embedding models by their names."""

import pytest

from ragcore.adapters.models.known_models import known_model


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("nomic-embed-text", "search_query: ", "search_document: "),
        ("nomic-embed-text:v1.5", "search_query: ", "search_document: "),
        ("nomic-embed-text-v2-moe:latest", "search_query: ", "search_document: "),
        ("mxbai-embed-large", "Represent this sentence for searching relevant passages: ", ""),
        ("jeffh/intfloat-multilingual-e5-small:q8_0", "query: ", "passage: "),
        ("bge-m3", "", ""),
    ],
)
def test_prefixes_are_those_of_the_model_card(name: str, query: str, document: str) -> None:
    model = known_model(name)
    assert model is not None
    assert (model.query_prefix, model.document_prefix) == (query, document)


@pytest.mark.parametrize("name", ["nomic-embed-text", "nomic-embed-text:v1.5", "mxbai-embed-large"])
def test_english_models_say_so(name: str) -> None:
    model = known_model(name)
    assert model is not None
    assert model.languages == {"en"}


@pytest.mark.parametrize(
    "name",
    ["nomic-embed-text-v2-moe", "hf.co/nomic-ai/nomic-embed-text-v2-moe-GGUF:Q4_K_M", "BGE-M3",
     "multilingual-e5-large", "snowflake-arctic-embed2"],
)  # fmt: skip
def test_multilingual_models_are_not_taken_for_their_english_relatives(name: str) -> None:
    model = known_model(name)
    assert model is not None
    assert model.languages is None
    assert model.vocabulary == "xlm-roberta"


def test_other_models_are_unknown() -> None:
    assert known_model("llama3.2") is None
