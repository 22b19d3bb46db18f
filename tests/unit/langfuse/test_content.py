import pytest

from ragcore.adapters.langfuse.content import MASK, Content, ContentRules
from ragcore.errors import NotConfigured
from ragcore.logs import without_secrets

SPAN = {
    "input.value": "Call +7 (495) 123-45-67 or write to anna@example.org before 2026-01-31 10:20.",
    "llm.input_messages.1.message.content": "the passport 4509 123456 of Anna",
    "retrieval.documents.0.document.id": "900000000001",
    "retrieval.documents.0.document.score": 0.83,
    "llm.model_name": "qwen2.5:7b",
    "user.id": "anna@example.org",
    "langfuse.observation.metadata.generator": '"extractive"',
    "something.new": "a text that a later version of the instrumentation tells",
}


def told(content: Content, **options: object) -> dict[str, object]:
    return ContentRules(content, **options).attributes(SPAN)  # type: ignore[arg-type]


def test_in_full_nothing_of_a_span_is_left_out() -> None:
    assert told("full") == SPAN


def test_masked_leaves_words_and_hides_addresses_and_long_numbers() -> None:
    masked = told("masked", masks=["Anna"])
    assert masked["input.value"] == f"Call {MASK} or write to {MASK} before 2026-01-31 10:20."
    assert masked["llm.input_messages.1.message.content"] == f"the passport {MASK} of {MASK}"
    # What names things is no content: it would be of no use masked.
    assert masked["user.id"] == "anna@example.org"
    assert masked["retrieval.documents.0.document.id"] == "900000000001"


def test_none_tells_only_what_is_known_to_hold_no_text() -> None:
    assert told("none").keys() == {
        "retrieval.documents.0.document.id",
        "retrieval.documents.0.document.score",
        "llm.model_name",
        "user.id",
        "langfuse.observation.metadata.generator",
    }


@pytest.mark.parametrize("content", ["full", "masked", "none"])
def test_no_vector_is_told_in_any_form(content: Content) -> None:
    vector = [0.1] * 384
    rules = ContentRules(content)
    assert rules.attributes(
        {
            "embedding.embeddings.0.embedding.vector": vector,
            "embedding.embeddings.1.embedding.vector": "0.1 0.2",
            "a.list.of.numbers": tuple(vector),
        }
    ) == {}  # fmt: skip
    query = rules.attributes({"input.value": f'{{"query": "q", "embedding": {vector}}}'})
    assert "0.1" not in str(query)


def test_secrets_are_hidden_wherever_they_stand() -> None:
    key = "rk_" + "a" * 43
    rules = ContentRules("full", secrets={"s3cret-of-the-database", "x"})
    text = f"{key} postgresql://ragcore:pass@db/x s3cret-of-the-database"
    (said,) = rules.attributes({"langfuse.observation.metadata.x": text}).values()
    assert said == f"rk_*** postgresql://ragcore:***@db/x {MASK}"


def test_what_is_no_text_can_be_encoded_afterwards() -> None:
    (said,) = ContentRules("full").attributes({"input.value": "half \ud83d a\0pair"}).values()
    assert said == "half ? a pair"
    assert said.encode()


def test_a_mask_that_is_no_expression_is_refused_by_name() -> None:
    with pytest.raises(NotConfigured, match=r"RAGCORE_LANGFUSE__MASKS: '\('"):
        ContentRules("masked", masks=["("])


@pytest.mark.parametrize(
    "secret",
    ["HTTPS://me:pass@host/", "x rk_" + "b" * 20, "BEARER abcdefgh1234", "PASSWORD='swordfish'"],
)
def test_what_the_log_would_mask_is_masked_however_it_is_written(secret: str) -> None:
    (said,) = ContentRules("full").attributes({"output.value": f"then {secret} and on"}).values()
    assert said == f"then {without_secrets(secret)} and on" != f"then {secret} and on"
