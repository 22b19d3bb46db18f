"""Texts → vectors: what was computed before is not computed again, and no text fails the others."""

import asyncio
import logging
import random
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ragcore.errors import ModelUnavailable, Rejected, Unavailable
from ragcore.model import EmbeddingSpec, Vector, Vectors
from ragcore.ports import UNMETERED, Embedder, EmbeddingCache, Meter
from ragcore.steps.fingerprints import text_hash

_log = logging.getLogger(__name__)

Progress = Callable[[float], None]
"""Called with how much is done, 0…1."""

_Result = TypeVar("_Result")

_REMEMBERED_QUESTIONS = 1024
_SMALLEST_PART = 32
"""Characters: what is refused when it is this short is refused for another reason than length."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a model that does not answer is asked again."""

    attempts: int = 4
    first_wait_seconds: float = 0.5
    """Doubles each time; the actual wait is a random part of it, so that callers spread out."""

    def waits(self) -> Iterator[float]:
        for attempt in range(self.attempts - 1):
            yield random.uniform(0.5, 1) * self.first_wait_seconds * 2**attempt  # noqa: S311 jitter


class Embedding:
    """An embedding model that remembers; itself a `ports.Embedder`.

    Documents are looked up by the hash of their text in a cache that all workers share, and stored
    there batch by batch: a job that is killed half-way goes on where it stopped. Questions are kept
    in this process. A model that is away is asked again a few times, then ModelUnavailable is
    raised; where it is known when to ask again, documents wait for that, and questions don't. The
    wrapped model is its owner's to close.
    """

    def __init__(
        self,
        embedder: Embedder,
        *,
        cache: EmbeddingCache | None = None,
        batch_tokens: int = 4096,
        concurrency: int = 4,
        patience: Patience = Patience(),
        meter: Meter = UNMETERED,
    ) -> None:
        self._embedder = embedder
        self._cache = cache
        self._batch_tokens = batch_tokens
        self._concurrency = concurrency
        self._patience = patience
        self._meter = meter
        self._questions: OrderedDict[str, Vector] = OrderedDict()

    @property
    def spec(self) -> EmbeddingSpec:
        return self._embedder.spec

    @property
    def counter_name(self) -> str:
        """The model's token counter; where it has none `bytes`, which no tokenizer exceeds."""
        name: str = getattr(self._embedder, "counter_name", "bytes")
        return name

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        vectors, warnings = await self.documents(texts)
        for warning in warnings:
            _log.warning(warning)
        return vectors

    async def documents(
        self, texts: Sequence[str], *, progress: Progress | None = None
    ) -> tuple[Vectors, Sequence[str]]:
        """Return unit vectors, shape (len(texts), dimension), and warnings about single texts.

        A text that the model refuses is read in parts whose vectors are averaged; one of which no
        part is accepted gets the vector of the empty text, so that it is found by its words alone.
        Either is said in a warning when it happens, not when the vector comes from the cache.
        Raises ModelUnavailable, or Rejected when the model refuses even the empty text. Safe to
        repeat: finished batches are in the cache.
        """
        by_hash = {text_hash(text): text for text in texts}
        known = dict(await self._recall(list(by_hash)))
        missing = [text for key, text in by_hash.items() if key not in known]
        warnings: list[str] = []

        async def embed(batch: Sequence[str]) -> None:
            fresh = await self._embed_batch(batch, warnings)
            await self._remember(fresh)
            known.update(fresh)
            if progress is not None:
                progress(len(known) / len(by_hash))

        batches = await self._batches(missing, known=len(known))
        await _in_lanes(batches, embed, lanes=self._concurrency)
        rows = [known[text_hash(text)] for text in texts]
        return np.array(rows, np.float32).reshape(len(texts), self.spec.dimension), warnings

    async def embed_query(self, text: str) -> Vector:
        """Return the unit vector of a question; one that is too long is read in parts."""
        known = self._questions.get(text)
        if known is not None:
            self._questions.move_to_end(text)
            return known
        vector = await self._embed_question(text)
        self._questions[text] = vector
        if len(self._questions) > _REMEMBERED_QUESTIONS:
            self._questions.popitem(last=False)
        return vector

    async def aclose(self) -> None:
        self._questions.clear()

    # --- batches -----------------------------------------------------------------------

    async def _batches(self, texts: Sequence[str], *, known: int) -> Sequence[Sequence[str]]:
        """Group texts of similar length, so that little is padded, up to a number of tokens."""
        counts = await asyncio.to_thread(lambda: [self.count_tokens(text) for text in texts])
        self._meter.recalled(known=known, missing=len(texts), missing_tokens=sum(counts))
        ordered = sorted(zip(counts, texts, strict=True), key=lambda counted: -counted[0])
        return list(_packed(ordered, self._batch_tokens))

    async def _embed_batch(self, texts: Sequence[str], warnings: list[str]) -> dict[bytes, Vector]:
        """Embed texts together, or, when the model refuses, each half on its own."""
        started = time.perf_counter()
        try:
            vectors = await self._ask(lambda: self._embedder.embed_documents(texts))
        except Rejected as refusal:
            if len(texts) == 1:
                return {text_hash(texts[0]): await self._embed_refused(texts[0], refusal, warnings)}
            middle = len(texts) // 2
            first = await self._embed_batch(texts[:middle], warnings)
            return first | await self._embed_batch(texts[middle:], warnings)
        self._meter.embedded(len(texts), seconds=time.perf_counter() - started)
        return {text_hash(text): vector for text, vector in zip(texts, vectors, strict=True)}

    async def _embed_refused(self, text: str, refusal: Rejected, warnings: list[str]) -> Vector:
        async def embed(part: str) -> Vector:
            vectors = await self._ask(lambda: self._embedder.embed_documents([part]))
            return np.asarray(vectors[0], np.float32)

        whole = (
            f"the model {self.spec.model!r} refused a text of {len(text)} characters ({refusal})"
        )
        vector = await _mean_of_parts(text, embed)
        if vector is not None:
            warnings.append(f"{whole}: its parts were embedded and averaged")
            return vector
        warnings.append(f"{whole} and each of its parts: it can only be found by its words")
        return await embed("")

    async def _embed_question(self, text: str) -> Vector:
        async def embed(part: str) -> Vector:
            return await self._ask(lambda: self._embedder.embed_query(part), waits=False)

        try:
            return await embed(text)
        except Rejected:
            vector = await _mean_of_parts(text, embed)
            if vector is None:
                raise
            return vector

    async def _ask(self, call: Callable[[], Awaitable[_Result]], *, waits: bool = True) -> _Result:
        """Call the model; what it only fails on with these texts counts as refused.

        So a text that crashes the model's process, or a batch that always takes too long, is cut
        up like one that is too long.
        """
        try:
            return await self._patiently(call, waits=waits)
        except ModelUnavailable as failure:
            if failure.retry_after_seconds is None and await self._answers():
                raise Rejected(f"it fails on this text alone: {failure}") from failure
            raise

    async def _answers(self) -> bool:
        try:
            await self._embedder.embed_query("?")
        except ModelUnavailable:
            return False
        return True

    async def _patiently(self, call: Callable[[], Awaitable[_Result]], *, waits: bool) -> _Result:
        for seconds in self._patience.waits():
            try:
                return await self._once(call)
            except ModelUnavailable as error:
                if error.retry_after_seconds is not None:
                    if not waits:
                        raise
                    seconds = max(seconds, error.retry_after_seconds)
                _log.info("asking the embedding model again in %.1f s: %s", seconds, error)
                await asyncio.sleep(seconds)
        return await self._once(call)

    async def _once(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        try:
            return await call()
        except (ModelUnavailable, Rejected) as error:
            self._meter.embedding_failed(error.code)
            raise

    # --- the cache: an economy, never a reason to fail -------------------------------------

    @property
    def _model_key(self) -> str:
        spec = self.spec
        return f"{spec.model}@{spec.digest or ''}:{spec.dimension}:{spec.document_prefix}"

    async def _recall(self, hashes: Sequence[bytes]) -> Mapping[bytes, Vector]:
        if self._cache is None or not hashes:
            return {}
        try:
            return await self._cache.get(self._model_key, hashes)
        except Unavailable as error:
            _log.warning("embedding without the cache: %s", error)
            return {}

    async def _remember(self, vectors: Mapping[bytes, Vector]) -> None:
        if self._cache is None:
            return
        try:
            await self._cache.put(self._model_key, vectors)
        except Unavailable as error:
            _log.warning("%d vectors were not put in the cache: %s", len(vectors), error)


def _packed(counted: Iterable[tuple[int, str]], limit: int) -> Iterator[Sequence[str]]:
    """Cut a sequence of (tokens, text) into runs of at most `limit` tokens, or of one text."""
    batch: list[str] = []
    total = 0
    for tokens, text in counted:
        if batch and total + tokens > limit:
            yield batch
            batch, total = [], 0
        batch.append(text)
        total += tokens
    if batch:
        yield batch


async def _in_lanes(
    batches: Iterable[Sequence[str]],
    work: Callable[[Sequence[str]], Awaitable[None]],
    *,
    lanes: int,
) -> None:
    """Work on so many batches at a time; the first failure stops the others."""
    waiting = iter(batches)

    async def lane() -> None:
        for batch in waiting:
            await work(batch)

    tasks = [asyncio.create_task(lane()) for _ in range(lanes)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _mean_of_parts(text: str, embed: Callable[[str], Awaitable[Vector]]) -> Vector | None:
    """Halve a refused text until its parts are accepted; return their mean, weighted by length.

    Parts that are refused even when they are tiny are left out; None when that is all of them.
    """
    total: NDArray[np.float32] | None = None
    parts = _halves(text)
    while parts:
        part = parts.pop()
        try:
            weighted = len(part) * await embed(part)
        except Rejected:
            parts.extend(_halves(part))
        else:
            total = weighted if total is None else total + weighted
    if total is None:
        return None
    return np.asarray(total / np.linalg.norm(total), np.float32)


def _halves(text: str) -> list[str]:
    """Cut near the middle, at a space where there is one; nothing when it is too short to cut."""
    if len(text) < 2 * _SMALLEST_PART:
        return []
    middle = text.rfind(" ", _SMALLEST_PART, len(text) // 2 + 1)
    middle = middle if middle > 0 else len(text) // 2
    return [text[:middle], text[middle:]]
