"""Any LlamaIndex language model, made by the caller, as answers are made with it."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ragcore.adapters.models.chat import ChatModel, ChatModels, Written
from ragcore.errors import ModelUnavailable, RagError
from ragcore.model import Message

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

log = logging.getLogger(__name__)


class LlamaIndexChats:
    """One model for all languages and collections; how much it writes is its own setting."""

    def __init__(self, llm: "LLM") -> None:
        self._llm = llm

    def writing(
        self, *, answer_tokens: int, timeout_seconds: float, model: str | None = None
    ) -> ChatModels:
        """Return the model, writing in at most so long; of it there are no others to name."""
        name = f"{self._llm.class_name()}:{self._llm.metadata.model_name}"
        return ChatModels(_AnyChatModel(self._llm, name=name, timeout_seconds=timeout_seconds))


class _AnyChatModel(ChatModel):
    """A model whose errors are of classes nobody here knows."""

    async def write(
        self, messages: Sequence[Message], *, on_text: Callable[[str], None] | None = None
    ) -> Written:
        try:
            return await super().write(messages, on_text=on_text)
        except RagError:
            raise
        except Exception as error:
            # The edge to anybody's code: one that fails must not cost the answer.
            log.exception("the language model %s failed", self.name)
            raise ModelUnavailable(f"{self.name} failed: {type(error).__name__}") from error
