"""Passages in a better order: a language model that marks them, or a cross-encoder."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ragcore.adapters.models.chat import ChatModel, ChatModels
from ragcore.errors import MissingExtra, ModelUnavailable, NotConfigured
from ragcore.model import Message, Passage
from ragcore.ports import Prompts
from ragcore.steps.languages import detect
from ragcore.steps.prompting import build_prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_MARK: Final = 10
_MARK = re.compile(r"^[^\w\n]*(\d{1,3})[^\w\n]+(\d{1,2})(?!\d)", re.MULTILINE)
"""`[3]: 7`, a line each."""
_LEAST_TOKENS: Final = 60
"""Of a passage that are read, however many share the prompt."""
_FENCE_TOKENS: Final = 60


class ModelReranker:
    """`ports.Reranker` that has a language model mark all passages at once, from 0 to 10.

    Equal marks keep the order of the search, and passages that the model forgot or that did not fit
    the prompt come last in it.
    """

    is_language_model = True

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

    async def rerank(self, question: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        model, messages, read = await asyncio.to_thread(self._prompt, question, passages)
        written = await model.write(messages)
        marks = _marks(written.text, read)
        if not marks:
            raise ModelUnavailable(f"{model.name} gave no marks")
        # The score of the search, below 1, tells equal marks apart.
        scored = [
            passage.scored(
                (marks.get(number, 0) + passage.score) / (_MOST_MARK + 1), passage.explanation
            )
            for number, passage in enumerate(passages, start=1)
        ]
        return sorted(scored, key=lambda passage: -passage.score)

    def _prompt(
        self, question: str, passages: Sequence[Passage]
    ) -> tuple[ChatModel, Sequence[Message], int]:
        """Return who is asked, what, and how many passages that holds."""
        language = detect(question)
        collections = {passage.collection for passage in passages}
        collection = collections.pop() if len(collections) == 1 else None
        instructions = self._prompts.find("rerank", language=language, collection=collection)
        free = self._max_prompt_tokens - self._count_tokens(instructions + question)
        share = max(_LEAST_TOKENS, free // max(len(passages), 1) - _FENCE_TOKENS)
        prompt = build_prompt(
            question,
            [self._shortened(passage, share) for passage in passages],
            instructions=instructions,
            count_tokens=self._count_tokens,
            max_tokens=self._max_prompt_tokens,
        )
        model = self._models.of(language, collection=collection)
        return model, prompt.messages, len(prompt.passages)

    def _shortened(self, passage: Passage, tokens: int) -> Passage:
        needed = self._count_tokens(passage.text)
        if needed <= tokens:
            return passage
        return replace(passage, text=passage.text[: len(passage.text) * tokens // needed])


def _marks(text: str, passages: int) -> Mapping[int, int]:
    """Return the marks by the number of the passage, from 1; the first one of each counts."""
    marks: dict[int, int] = {}
    for found in _MARK.finditer(text):
        number, mark = int(found[1]), int(found[2])
        if 1 <= number <= passages:
            marks.setdefault(number, min(mark, _MOST_MARK))
    return marks


# --- a cross-encoder -----------------------------------------------------------------------

_BATCH: Final = 8
"""Pairs computed at once; between two batches a question that nobody waits for is let go."""


class CrossEncoderReranker:
    """`ports.Reranker` by an ONNX model that reads a question and a passage together.

    It computes in one thread beside the event loop, whoever asks; questions wait for one another.
    """

    is_language_model = False

    def __init__(
        self, directory: Path, *, threads: int, max_tokens: int, timeout_seconds: float
    ) -> None:
        """Load `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`.

        Raises NotConfigured, naming the file, for a folder that can't be used; MissingExtra.
        """
        self._timeout_seconds = timeout_seconds
        self._session = _session(_file(directory, "model.onnx", "onnx/model.onnx"), threads)
        self._inputs = frozenset(put.name for put in self._session.get_inputs())
        self._tokenizer = _tokenizer(_file(directory, "tokenizer.json"), max_tokens)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="ragcore-cross-encoder")

    async def rerank(self, question: str, passages: Sequence[Passage]) -> Sequence[Passage]:
        """Return the passages in the model's order. Raises ModelUnavailable when it is too slow."""
        loop = asyncio.get_running_loop()
        scores: list[float] = []
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for first in range(0, len(passages), _BATCH):
                    texts = [_read(passage) for passage in passages[first : first + _BATCH]]
                    compute = partial(self._scores, question, texts)
                    scores += await loop.run_in_executor(self._pool, compute)
        except TimeoutError as error:
            raise ModelUnavailable(
                f"the cross-encoder did not answer within {self._timeout_seconds:g} s"
            ) from error
        scored = [
            passage.scored(score, passage.explanation)
            for passage, score in zip(passages, scores, strict=True)
        ]
        return sorted(scored, key=lambda passage: -passage.score)

    def close(self) -> None:
        """End the thread after what it computes now. Safe to repeat."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _scores(self, question: str, texts: Sequence[str]) -> list[float]:
        import numpy as np

        encoded = self._tokenizer.encode_batch([(question, text) for text in texts])
        fed = {
            "input_ids": np.array([each.ids for each in encoded], np.int64),
            "attention_mask": np.array([each.attention_mask for each in encoded], np.int64),
            "token_type_ids": np.array([each.type_ids for each in encoded], np.int64),
        }
        put = {name: array for name, array in fed.items() if name in self._inputs}
        return _relevance(self._session.run(None, put)[0])


def _relevance(logits: "NDArray[np.float32]") -> list[float]:
    """Return 0…1 for each pair: of the one logit, or of the second of two against the first."""
    wide = logits.reshape(len(logits), -1).astype(float)
    margin = wide[:, 0] if wide.shape[1] == 1 else wide[:, 1] - wide[:, 0]
    return [1 / (1 + exp(-max(-60.0, min(60.0, float(value))))) for value in margin]


def _read(passage: Passage) -> str:
    return "\n".join((*passage.headings, passage.text))


def _file(directory: Path, *names: str) -> Path:
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise NotConfigured(
        f"{str(directory)!r} holds no {names[0]!r}: correct RAGCORE_RERANK__DIRECTORY"
    )


def _session(file: Path, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtra(
            f"a cross-encoder needs onnxruntime ({error}): pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(
            str(file), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own classes, one for each status, with no base
        raise NotConfigured(f"the model {str(file)!r} can't be loaded: {error}") from error


def _tokenizer(file: Path, max_tokens: int) -> Any:
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises bare Exception
        raise NotConfigured(f"the tokenizer {str(file)!r} can't be read: {error}") from error
    tokenizer.enable_truncation(max_tokens, strategy="only_second")
    padding = tokenizer.padding or _padding(tokenizer)
    tokenizer.enable_padding(pad_id=padding["pad_id"], pad_token=padding["pad_token"])
    return tokenizer


def _padding(tokenizer: Any) -> Mapping[str, Any]:
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return {"pad_id": number, "pad_token": token}
    return {"pad_id": 0, "pad_token": "[PAD]"}
