"""Language models as answers are made with them: words as they come, and our errors."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ragcore.adapters.models.ollama_servers import OllamaServers
from ragcore.errors import (
    ContextOverflow,
    ModelTimeout,
    ModelUnavailable,
    NotConfigured,
    Rejected,
)
from ragcore.model import Message, Usage

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

_REFUSALS: Final = (400, 413, 422)
_SILENCE: Final = 0.95
"""Of the time for an answer, what a server may keep silent: so it is the server that is late then,
which is remembered of it, and not the reader who leaves."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a language model wrote."""

    text: str
    usage: Usage
    is_cut: bool
    """It would have gone on: it had written as many tokens as it may."""


Check = Callable[[Sequence[Message]], Awaitable[None]]
"""Raises ContextOverflow for messages that a model can't read."""


class ChatModel:
    """One LlamaIndex language model."""

    def __init__(
        self, llm: "LLM", *, name: str, timeout_seconds: float, check: Check | None = None
    ) -> None:
        """`name` is the one shown; `timeout_seconds` limit a whole answer, from its asking.

        `check` looks at messages before they are sent.
        """
        self.name = name
        self._check = check
        self._llm = llm
        self._timeout_seconds = timeout_seconds

    async def write(
        self, messages: Sequence[Message], *, on_text: Callable[[str], None] | None = None
    ) -> Written:
        """Return what the model writes, and tell `on_text` each piece when it comes.

        Cancelled, it closes the request, on which Ollama stops the model. Raises ModelUnavailable
        (nothing came, too late, or it broke off) and Rejected, perhaps after pieces were told.
        """
        from httpx import HTTPError

        writing = _Writing(on_text)
        try:
            async with asyncio.timeout(self._timeout_seconds):
                if self._check is not None:
                    await self._check(messages)
                await self._stream(messages, writing)
        except TimeoutError as error:
            raise ModelTimeout(
                f"{self.name} did not answer within {self._timeout_seconds:g} s"
            ) from error
        except NotConfigured as error:  # a reader is answered all the same
            raise ModelUnavailable(str(error)) from error
        except (HTTPError, OSError, ValueError) as error:  # ValueError: no JSON, or another's
            raise ModelUnavailable(f"{self.name} did not answer: {error!r}") from error
        except Exception as error:  # anybody's model, whose refusals share a status and no class
            if (status := getattr(error, "status_code", None)) is None:
                raise  # not an answer of the server's: an error of ours, or a bug
            if status == 404:
                raise ModelUnavailable(f"{self.name} is not there: {error}") from error
            if status in _REFUSALS:
                raise Rejected(f"{self.name} refused: {error}") from error
            raise ModelUnavailable(f"{self.name} failed: {error}") from error
        return writing.end(self.name)

    async def _stream(self, messages: Sequence[Message], writing: "_Writing") -> None:
        from llama_index.core.llms import ChatMessage

        asked = [ChatMessage(role=m.role, content=m.content) for m in messages]
        async with aclosing(await self._llm.astream_chat(asked)) as responses:
            async for response in responses:
                writing.take(response.delta or "", response.raw)


class _Writing:
    """A text that a model is writing."""

    def __init__(self, on_text: Callable[[str], None] | None) -> None:
        self._on_text = on_text
        self._pieces: list[str] = []
        self._last: Mapping[str, Any] = {}

    def take(self, piece: str, raw: Any) -> None:
        self._last = raw if isinstance(raw, Mapping) else {}
        if piece:
            self._pieces.append(piece)
            if self._on_text is not None:
                self._on_text(piece)

    def end(self, name: str) -> Written:
        text = "".join(self._pieces)
        if self._last.get("done") is False:  # Ollama says of its last piece that it is the last
            raise ModelUnavailable(f"{name} broke off in the middle of its answer")
        if not text.strip():
            raise ModelUnavailable(f"{name} answered with nothing")
        return Written(
            text=text,
            usage=Usage(
                prompt_tokens=self._last.get("prompt_eval_count") or 0,
                completion_tokens=self._last.get("eval_count") or 0,
            ),
            is_cut=self._last.get("done_reason") == "length",
        )


@dataclass(frozen=True, slots=True)
class ChatModels:
    """The model that words answers, and others for some languages."""

    default: ChatModel
    by_language: Mapping[str, ChatModel] = field(default_factory=dict)
    by_collection: Mapping[str, ChatModel] = field(default_factory=dict)

    def of(self, language: str | None, *, collection: str | None = None) -> ChatModel:
        """Return the model for questions in a language about a single collection, or about many.

        A collection's own model goes before that of the language.
        """
        of_language = self.by_language.get(language or "", self.default)
        return self.by_collection.get(collection or "", of_language)


class OllamaChats:
    """Language models of Ollama; connects with the first question."""

    def __init__(
        self,
        servers: OllamaServers,
        *,
        model: str,
        models: Mapping[str, str],
        collection_models: Mapping[str, str] = MappingProxyType({}),
        besides: Sequence[str] = (),
        context_tokens: int,
        temperature: float,
        keep_alive: str,
    ) -> None:
        """`models` and `collection_models`: others than `model`, by language and by collection.

        `besides`: those that `writing` will be asked for by their names. `servers` stay their
        owner's to close.
        """
        self._servers = servers
        self._model = model
        self._models = models
        self._collection_models = collection_models
        self._besides = tuple(besides)
        self._context_tokens = context_tokens
        self._temperature = temperature
        self._keep_alive = _seconds_or_duration(keep_alive)
        self._contexts: dict[str, int] = {}
        """What models were built for, as far as their servers were asked."""

    def writing(
        self, *, answer_tokens: int, timeout_seconds: float, model: str | None = None
    ) -> ChatModels:
        """Return the models, writing at most so many tokens in at most so long.

        `model`: a single one in place of all of them.
        """

        def named(model: str) -> ChatModel:
            async def check(messages: Sequence[Message]) -> None:
                await self._require_room(model, messages, answer_tokens)

            return ChatModel(
                self._llm(model, answer_tokens, timeout_seconds),
                name=f"ollama:{model}",
                timeout_seconds=timeout_seconds,
                check=check,
            )

        if model is not None:
            return ChatModels(named(model))
        return ChatModels(
            named(self._model),
            {language: named(other) for language, other in self._models.items()},
            {collection: named(other) for collection, other in self._collection_models.items()},
        )

    async def require(self) -> None:
        """Raise ModelMissing for the first model no server has, ModelUnavailable without one."""
        others = (*self._models.values(), *self._collection_models.values(), *self._besides)
        for model in dict.fromkeys((self._model, *others)):
            await self._servers.show(model)

    async def _require_room(
        self, model: str, messages: Sequence[Message], answer_tokens: int
    ) -> None:
        """Raise ContextOverflow for what Ollama would cut off at its beginning, in silence.

        Tokens are estimated, and rather too many: what passes does fit.
        """
        context = min(self._context_tokens, await self._built_for(model))
        tokens = sum(estimated_tokens(message.content) for message in messages) + answer_tokens
        if tokens > context:
            raise ContextOverflow(
                f"a prompt and an answer of up to {tokens} tokens are over the {context} that "
                f"{model!r} reads: set RAGCORE_GENERATION__CONTEXT_TOKENS={context}, or less"
            )

    async def _built_for(self, model: str) -> int:
        """Return the longest context of a model; while nobody tells, that of the settings."""
        if model not in self._contexts:
            try:
                shown = await self._servers.show(model)
            except ModelUnavailable:
                return self._context_tokens  # the question itself will tell what is wrong
            facts = shown.facts.get("model_info") or {}
            told = [n for key, n in facts.items() if key.endswith(".context_length")]
            self._contexts[model] = int(told[0]) if told else self._context_tokens
        return self._contexts[model]

    def _llm(self, model: str, answer_tokens: int, timeout_seconds: float) -> "LLM":
        from llama_index.llms.ollama import Ollama

        client = self._servers.client(is_question=True, timeout_seconds=_SILENCE * timeout_seconds)
        return Ollama(
            model=model,
            base_url=self._servers.endpoints[0].shown_url,
            request_timeout=timeout_seconds,
            context_window=self._context_tokens,
            temperature=self._temperature,
            keep_alive=self._keep_alive,
            additional_kwargs={"num_predict": answer_tokens},
            async_client=client,
        )


def estimated_tokens(text: str) -> int:
    """Count a token for every two characters: the tokenizers of chat models, which can't be had
    from Ollama, need fewer for running text in Russian and far fewer in English."""
    return len(text) // 2 + 1


def _seconds_or_duration(text: str) -> float | str:
    """Return bare seconds as a number: Ollama takes a text for a duration, which has a unit."""
    return text if text[-1].isalpha() else float(text)
