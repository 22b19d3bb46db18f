"""What of a span leaves the process: text in full, masked, or not at all; never a vector or secret.

Everything is decided here, from the finished span, so that it holds for spans of any origin:
ragcore's own, those of LlamaIndex's instrumentation, and whatever that adds in a later version.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Literal

from ragcore.errors import NotConfigured
from ragcore.logs import without_secrets

Content = Literal["full", "masked", "none"]
"""`full`: questions, passages, prompts and answers as they are. `masked`: personal data in them is
made unreadable. `none`: no text; told is when, how long, how many, which, and how good."""

MASK: Final = "***"

_MASKED: Final = (
    re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),  # e-mail addresses
    # Telephone, card, account, passport and insurance numbers: nine digits or more, in groups or
    # not. Dates are spared.
    re.compile(r"(?<![\w-])(?!\d{4}-\d\d-\d\d)\+?\d(?:[ ().-]{0,2}\d){8,}(?![\w-])"),
)

_TOLD: Final = re.compile(
    r"openinference\.span\.kind"
    r"|(llm|embedding|reranker)\.model_name|llm\.(provider|system|finish_reason)"
    r"|llm\.token_count\..+|reranker\.top_k"
    r"|(retrieval\.documents|reranker\.(input|output)_documents)\.\d+\.document\.(id|score)"
    r"|user\.id|session\.id"
    r"|langfuse\.(environment|release|version|trace\..+|internal\..+)"
    r"|langfuse\.observation\.(type|level|completion_start_time|usage_details|cost_details"
    r"|prompt\.(name|version)|metadata\..+)"
)
"""Attributes that hold no text of a document, a question or an answer."""

_VECTOR_KEY: Final = "embedding.vector"
_MOST_NUMBERS: Final = 16
"""A longer list of numbers is a vector."""
_VECTOR_IN_JSON: Final = re.compile(r'("[\w ]*embeddings?"\s*:\s*)\[[-+\d.eE,\s\[\]]*\]')
_SIGNS: Final = ("://", "rk_", "bearer", "password=")
"""Without one of these in it a text holds nothing that `without_secrets` masks. To look for them
takes a hundredth of the time, which questions under way would wait for."""
_LEAST_SECRET: Final = 6
"""Characters; what is shorter would be masked in the midst of ordinary words."""


class ContentRules:
    """Decides over each attribute of a span, and over text that stands elsewhere in it."""

    def __init__(
        self, content: Content, *, masks: Sequence[str] = (), secrets: Collection[str] = ()
    ) -> None:
        """`masks`: regular expressions that `masked` hides besides its own.

        `secrets`: passwords and keys that nothing may hold. Raises NotConfigured for an expression
        that can't be compiled.
        """
        self.content = content
        self._masks = (*_MASKED, *map(_compiled, masks)) if content == "masked" else ()
        known = (secret for secret in secrets if len(secret) >= _LEAST_SECRET)
        self._secrets = sorted(known, key=len, reverse=True)

    def attributes(self, attributes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of the attributes may be told, cleaned."""
        told = {key: self._value(key, value) for key, value in attributes.items()}
        return {key: value for key, value in told.items() if value is not None}

    def text(self, text: str) -> str | None:
        """Return what may be told of a text of content; None: nothing."""
        if self.content == "none":
            return None
        text = self._clean(text)
        for mask in self._masks:
            text = mask.sub(MASK, text)
        return text

    def _value(self, key: str, value: Any) -> Any:
        if _VECTOR_KEY in key or _is_vector(value):
            return None
        is_told = _TOLD.fullmatch(key) is not None
        if self.content == "none" and not is_told:
            return None
        rule = self._clean if is_told else self.text
        if isinstance(value, str):
            return rule(value)
        if isinstance(value, (list, tuple)):
            return [rule(each) if isinstance(each, str) else each for each in value]
        return value

    def _clean(self, text: str) -> str:
        """Take out what no text may hold, be it content or not.

        Halves of surrogate pairs and NUL would have the whole batch refused, others' spans too.
        """
        text = text.replace("\0", " ").encode(errors="replace").decode()
        text = _VECTOR_IN_JSON.sub(r"\1null", text)
        lowered = text.lower()
        if any(sign in lowered for sign in _SIGNS):
            text = without_secrets(text)
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text


def _compiled(mask: str) -> re.Pattern[str]:
    try:
        return re.compile(mask)
    except re.error as error:
        raise NotConfigured(
            f"RAGCORE_LANGFUSE__MASKS: {mask!r} is no regular expression: {error}"
        ) from error


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > _MOST_NUMBERS
        and all(isinstance(each, (int, float)) for each in value)
    )
