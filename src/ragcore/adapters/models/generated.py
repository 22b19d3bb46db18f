"""Answers by a language model, from the passages alone, with every citation checked."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Final

from ragcore.adapters.models.chat import ChatModel, ChatModels, Written
from ragcore.adapters.models.extractive import declined_text
from ragcore.errors import ModelUnavailable, Rejected
from ragcore.model import Answer, Citation, Message, NoAnswerReason, Passage, Vector
from ragcore.ports import Answerer, OnText, Prompts
from ragcore.steps.citing import (
    JudgedSentence,
    Markers,
    believed_text,
    citations_of,
    judged_sentences,
)
from ragcore.steps.languages import detect
from ragcore.steps.prompting import Prompt, build_condensing, build_prompt

log = logging.getLogger(__name__)

_MOST_QUOTED: Final = 200  # characters of a sentence in a warning


class GeneratedAnswerer:
    """`ports.Answerer` over any LlamaIndex language models.

    A model that is away or fails midway costs the reader nothing but its words: the answer is then
    made of the passages' own sentences by `fallback`, with a warning. The same where there are no
    passages: `fallback` says why.
    """

    def __init__(
        self,
        models: ChatModels,
        *,
        prompts: Prompts,
        fallback: Answerer,
        count_tokens: Callable[[str], int],
        max_prompt_tokens: int,
        is_strict: bool = False,
    ) -> None:
        """`count_tokens` must not count less than the models do; the prompt is cut to fit.

        `is_strict` leaves out what no passage bears out, and tells nothing of the answer before.
        """
        self.name = models.default.name
        self._models = models
        self._prompts = prompts
        self._fallback = fallback
        self._count_tokens = count_tokens
        self._max_prompt_tokens = max_prompt_tokens
        self._is_strict = is_strict

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        query_vector: Vector | None = None,
        history: Sequence[Message] = (),
        on_text: OnText | None = None,
    ) -> Answer:
        """Answer from these passages, citing them. Raises InvalidInput for an endless question."""
        started = perf_counter()
        if not passages:
            return await self._fallback.answer(question, passages, query_vector=query_vector)
        collection = _only_collection(passages)
        language, prompt = await asyncio.to_thread(
            self._prompt, question, passages, history, collection
        )
        model = self._models.of(language, collection=collection)
        draft = _Draft(len(prompt.passages), None if self._is_strict else on_text)
        try:
            written = await model.write(prompt.messages, on_text=draft.add)
        except (ModelUnavailable, Rejected) as error:
            log.warning("answering without the language model: %s", error)
            quoted = await self._fallback.answer(question, passages, query_vector=query_vector)
            return replace(quoted, warnings=(*quoted.warnings, str(error)))
        draft.end()
        checked = await asyncio.to_thread(
            _checked, draft.text, prompt.passages, language, is_strict=self._is_strict
        )
        return Answer(
            text=checked.text,
            citations=checked.citations,
            passages=tuple(passages),
            no_answer_reason=checked.no_answer_reason,
            generator=model.name,
            usage=written.usage,
            timings_ms={"generate": (perf_counter() - started) * 1000},
            warnings=(*_warnings(written, draft.removed), *checked.warnings),
        )

    def _prompt(
        self,
        question: str,
        passages: Sequence[Passage],
        history: Sequence[Message],
        collection: str | None,
    ) -> tuple[str | None, Prompt]:
        """Return the question's language and its prompt."""
        language = detect(question)
        prompt = build_prompt(
            question,
            passages,
            instructions=self._prompts.find(
                "answer",
                language=language,
                collection=collection,
            ),
            history=history,
            count_tokens=self._count_tokens,
            max_tokens=self._max_prompt_tokens,
        )
        return language, prompt


def _only_collection(passages: Sequence[Passage]) -> str | None:
    collections = {passage.collection for passage in passages}
    return collections.pop() if len(collections) == 1 else None


class _Draft:
    """The answer as the reader has it so far: its markers are in order already."""

    def __init__(self, passages: int, on_text: OnText | None) -> None:
        self._markers = Markers(passages)
        self._on_text = on_text
        self._pieces: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    @property
    def removed(self) -> Sequence[str]:
        return self._markers.removed

    def add(self, piece: str) -> None:
        self._tell(self._markers.feed(piece))

    def end(self) -> None:
        self._tell(self._markers.end())

    def _tell(self, settled: str) -> None:
        if settled:
            self._pieces.append(settled)
            if self._on_text is not None:
                self._on_text(settled)


def _warnings(written: Written, removed: Sequence[str]) -> list[str]:
    warnings = [f"the model cited {marker}, which does not exist" for marker in removed]
    if written.is_cut:
        warnings.append("the answer is cut off: raise RAGCORE_GENERATION__ANSWER_TOKENS")
    return warnings


# --- what of it can be believed ------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Checked:
    text: str
    citations: tuple[Citation, ...]
    no_answer_reason: NoAnswerReason | None
    warnings: tuple[str, ...]


def _checked(
    text: str, passages: Sequence[Passage], language: str | None, *, is_strict: bool
) -> _Checked:
    judged = judged_sentences(text, passages)
    reason = _no_answer_reason(judged)
    doubtful = [one for one in judged if not (one.is_supported or one.is_declining)]
    if is_strict and doubtful:
        text = believed_text(text, judged)
        if not text:
            reason, text = "not_in_passages", declined_text("not_in_passages", language)
    fault = "left out, since no passage bears it out" if is_strict else "no passage bears this out"
    return _Checked(
        text=text,
        citations=citations_of(text, passages),
        no_answer_reason=reason,
        warnings=tuple(f"{fault}: {one.text[:_MOST_QUOTED]!r}" for one in doubtful),
    )


def _no_answer_reason(judged: Sequence[JudgedSentence]) -> NoAnswerReason | None:
    """Tell an answer from saying that there is none.

    The prompt asks for a number after every sentence taken from a passage, and for none where the
    passages don't hold the answer. Small models forget the numbers and put some after the latter.
    """
    told = [one for one in judged if not one.is_declining]
    if any(one.is_supported for one in told):
        return None
    declines = len(told) < len(judged)
    return "not_in_passages" if declines or not any(one.markers for one in told) else None


# --- follow-ups ----------------------------------------------------------------------------

_MOST_CONDENSED: Final = 1000  # characters; a longer text is no question


class GeneratedCondenser:
    """`ports.Condenser` over any LlamaIndex language models."""

    def __init__(
        self,
        models: ChatModels,
        *,
        prompts: Prompts,
        count_tokens: Callable[[str], int],
        max_prompt_tokens: int,
    ) -> None:
        """`models` should be held to short texts and short times: a reader waits."""
        self._models = models
        self._prompts = prompts
        self._count_tokens = count_tokens
        self._max_prompt_tokens = max_prompt_tokens

    async def condense(
        self, question: str, history: Sequence[Message], *, collection: str | None = None
    ) -> str:
        """Return a question that stands alone. Raises InvalidInput for an endless question."""
        model, messages = await asyncio.to_thread(self._prompt, question, history, collection)
        written = await model.write(messages)
        condensed = _first_line(written.text)
        if written.is_cut or not condensed or len(condensed) > _MOST_CONDENSED:
            raise ModelUnavailable(f"{model.name} made no question of the conversation")
        return condensed

    def _prompt(
        self, question: str, history: Sequence[Message], collection: str | None
    ) -> tuple[ChatModel, Sequence[Message]]:
        language = detect(question)
        messages = build_condensing(
            question,
            history,
            instructions=self._prompts.find("condense", language=language, collection=collection),
            count_tokens=self._count_tokens,
            max_tokens=self._max_prompt_tokens,
        )
        return self._models.of(language, collection=collection), messages


def _first_line(text: str) -> str:
    """Return the question without the quotation marks that models like to put around it."""
    return text.strip().split("\n", 1)[0].strip().strip("\"'«»“”").strip()
