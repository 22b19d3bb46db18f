"""A question in other words, by a language model."""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final

from ragcore.adapters.models.chat import ChatModel, ChatModels
from ragcore.model import Message
from ragcore.ports import Prompts
from ragcore.steps.languages import detect
from ragcore.steps.prompting import build_rewriting

_MOST_CHARACTERS: Final = 500
"""Of a wording; a longer line is no question."""
_NUMBERING = re.compile(r"\A\s*(?:[-*•–—]|\(?\d{1,2}[.):])\s+")


class GeneratedRewriter:
    """`ports.Rewriter` over any LlamaIndex language models."""

    def __init__(
        self,
        models: ChatModels,
        *,
        prompts: Prompts,
        count: int,
        count_tokens: Callable[[str], int],
        max_prompt_tokens: int,
    ) -> None:
        """`count`: most wordings. `models` should be held to short texts and short times."""
        self._models = models
        self._prompts = prompts
        self._count = count
        self._count_tokens = count_tokens
        self._max_prompt_tokens = max_prompt_tokens

    async def rewrite(self, question: str, *, collection: str | None = None) -> Sequence[str]:
        """Return the lines that the model wrote. Raises InvalidInput for an endless question."""
        model, messages = await asyncio.to_thread(self._prompt, question, collection)
        written = await model.write(messages)
        return list(dict.fromkeys(_wordings(written.text)))[: self._count]

    def _prompt(self, question: str, collection: str | None) -> tuple[ChatModel, Sequence[Message]]:
        language = detect(question)
        messages = build_rewriting(
            question,
            count=self._count,
            instructions=self._prompts.find("rewrite", language=language, collection=collection),
            count_tokens=self._count_tokens,
            max_tokens=self._max_prompt_tokens,
        )
        return self._models.of(language, collection=collection), messages


def _wordings(text: str) -> list[str]:
    """Return the lines without the numbers, bullets and quotation marks that models put there."""
    lines = (_NUMBERING.sub("", line).strip().strip("\"'«»“”").strip() for line in text.split("\n"))
    return [line for line in lines if line and len(line) <= _MOST_CHARACTERS and line[-1] != ":"]
