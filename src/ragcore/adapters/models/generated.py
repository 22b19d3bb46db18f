"""Answers by a language model, from the passages alone, with every citation checked."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

from ragcore.errors import MissingExtra, ModelUnavailable, Rejected
from ragcore.model import Answer, Passage, Usage, Vector
from ragcore.ports import Answerer
from ragcore.steps.citing import check_citations
from ragcore.steps.prompting import Prompt, build_prompt

if TYPE_CHECKING:
    from llama_index.core.base.llms.types import ChatResponse
    from llama_index.core.llms import LLM

log = logging.getLogger(__name__)


class GeneratedAnswerer:
    """`ports.Answerer` over any LlamaIndex language model.

    A model that is away or fails midway costs the reader nothing but its words: the answer is then
    made of the passages' own sentences by `fallback`, with a warning. The same where there are no
    passages: `fallback` says why.
    """

    def __init__(
        self,
        llm: "LLM",
        *,
        name: str,
        fallback: Answerer,
        count_tokens: Callable[[str], int],
        max_prompt_tokens: int,
        close: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """`count_tokens` must not count less than the model does; the prompt is cut to fit.

        `close` closes what the model holds open, where its owner is not the caller.
        """
        self.name = name
        self._llm = llm
        self._fallback = fallback
        self._count_tokens = count_tokens
        self._max_prompt_tokens = max_prompt_tokens
        self._close = close

    async def answer(
        self, question: str, passages: Sequence[Passage], *, query_vector: Vector | None = None
    ) -> Answer:
        """Answer from these passages, citing them. Raises InvalidInput for an endless question."""
        started = perf_counter()
        if not passages:
            return await self._fallback.answer(question, passages, query_vector=query_vector)
        prompt = await asyncio.to_thread(
            build_prompt,
            question,
            passages,
            count_tokens=self._count_tokens,
            max_tokens=self._max_prompt_tokens,
        )
        try:
            response = await self._chat(prompt)
        except (ModelUnavailable, Rejected) as error:
            log.warning("answering without the language model: %s", error)
            quoted = await self._fallback.answer(question, passages, query_vector=query_vector)
            return replace(quoted, warnings=(*quoted.warnings, str(error)))
        checked = await asyncio.to_thread(
            check_citations, response.message.content or "", prompt.passages
        )
        return Answer(
            text=checked.text.strip(),
            citations=checked.citations,
            passages=tuple(passages),
            # The prompt asks for a number after every sentence that is taken from a passage.
            no_answer_reason=None if checked.citations else "not_in_passages",
            generator=self.name,
            usage=_usage(response.raw),
            timings_ms={"generate": (perf_counter() - started) * 1000},
            warnings=tuple(f"the model cited {marker}, which does not exist"
                           for marker in checked.removed),
        )  # fmt: skip

    async def aclose(self) -> None:
        """Close the connections to the model. Safe to repeat."""
        if self._close is not None:
            await self._close()

    async def _chat(self, prompt: Prompt) -> "ChatResponse":
        from httpx import HTTPError
        from llama_index.core.llms import ChatMessage

        messages = [ChatMessage(role=m.role, content=m.content) for m in prompt.messages]
        try:
            response = await self._llm.achat(messages)
        except (HTTPError, OSError, TimeoutError) as error:
            raise ModelUnavailable(f"{self.name} did not answer: {error}") from error
        except Exception as error:  # anybody's model, whose refusals share a status and no class
            if getattr(error, "status_code", None) is None:
                raise  # not an answer of the server's: a bug
            raise Rejected(f"{self.name} refused: {error}") from error
        if not (response.message.content or "").strip():
            raise ModelUnavailable(f"{self.name} answered with nothing")
        return response


def ollama_answerer(
    *,
    url: str,
    model: str,
    fallback: Answerer,
    context_tokens: int,
    answer_tokens: int,
    timeout_seconds: float,
) -> GeneratedAnswerer:
    """Answer by a model of an Ollama server; connects with the first question.

    Raises MissingExtra without the integration.
    """
    try:
        from llama_index.llms.ollama import Ollama
        from ollama import AsyncClient
    except ImportError as error:
        raise MissingExtra("answers by Ollama need `pip install 'ragcore[ollama]'`") from error
    client = AsyncClient(host=url, timeout=timeout_seconds)
    llm = Ollama(
        model=model,
        base_url=url,
        request_timeout=timeout_seconds,
        context_window=context_tokens,
        temperature=0.0,
        additional_kwargs={"num_predict": answer_tokens},
        async_client=client,
    )
    return GeneratedAnswerer(
        llm,
        name=f"ollama:{model}",
        fallback=fallback,
        count_tokens=_estimated_tokens,
        max_prompt_tokens=context_tokens - answer_tokens,
        close=client.close,
    )


def _estimated_tokens(text: str) -> int:
    """Count a token for every two characters: the tokenizers of chat models, which can't be had
    from Ollama, need fewer for running text in Russian and far fewer in English."""
    return len(text) // 2 + 1


def _usage(raw: Any) -> Usage:
    counts: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
    return Usage(
        prompt_tokens=counts.get("prompt_eval_count") or 0,
        completion_tokens=counts.get("eval_count") or 0,
    )
