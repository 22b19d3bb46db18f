"""A question → passages: embed it, ask both legs in one round trip, fuse, keep the best.

On request a language model adds other wordings of the question before, and a reranker reads the
best passages together with the question after.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, TypeVar

from ragcore.errors import CollectionMismatch, InvalidInput, ModelUnavailable, Rejected
from ragcore.model import (
    AllOf,
    Candidates,
    Condition,
    EmbeddingSpec,
    Filter,
    Part,
    Passage,
    SearchMode,
    SearchResult,
    Vector,
)
from ragcore.ports import UNMETERED, ChunkStore, Embedder, Meter, Reranker, Rewriter
from ragcore.steps.fingerprints import are_comparable, require_same_embedding
from ragcore.steps.fusing import Fusion, Ranked, fuse
from ragcore.steps.languages import detect
from ragcore.steps.relevance import Calibration, calibration_of

Result = TypeVar("Result")

log = logging.getLogger(__name__)

_REMEMBERED_QUESTIONS = 1024
_BETWEEN_PARTS = "\n\n"
_UNCALIBRATED = Calibration(noise=0.0, hit=1.0)
"""Where one leg alone orders the passages."""
_MOST_TURNS = 4
"""A collection that is switched again whenever it is asked is no longer asked then."""

EmbedderOf = Callable[[EmbeddingSpec], Awaitable[Embedder]]
"""Finds the model that made a collection's vectors. Raises CollectionMismatch, ModelUnavailable."""


@dataclass(frozen=True, slots=True)
class _Question:
    text: str
    embedder: Embedder
    """Who made the vector."""
    language: str | None
    vector: Vector | None
    calibration: Calibration
    mode: SearchMode
    filters: Filter | None
    limit: int


class _Outdated(Exception):
    """The collection was given another model or chunker since the question was embedded for it."""

    def __init__(self, embedder: Embedder) -> None:
        super().__init__()
        self.embedder = embedder
        """Who embeds for it now."""


@dataclass(slots=True)
class _Stopwatch:
    """Milliseconds per stage; a stage that runs twice adds up."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    _last: float = field(default_factory=perf_counter)

    def lap(self, stage: str) -> None:
        now = perf_counter()
        self.milliseconds[stage] = self.milliseconds.get(stage, 0.0) + (now - self._last) * 1000
        self._last = now


@dataclass(frozen=True, slots=True)
class Search:
    """Find the passages that answer a question, in one collection or in several at once."""

    chunks: ChunkStore
    embedder: Embedder
    candidates: int = 50
    """Proposals taken from each leg before fusion."""
    merge_neighbours: bool = False
    """Join passages that follow one another in a document under the same heading."""
    rewriter: Rewriter | None = None
    """Adds wordings, which are searched for as the question itself is."""
    reranker: Reranker | None = None
    reranked: int = 20
    """Passages that the reranker reads; never fewer than are asked for."""
    meter: Meter = field(default=UNMETERED, repr=False)
    languages: dict[str, str | None] = field(default_factory=dict, repr=False)
    """Of questions asked before, as long as they are remembered."""
    embedder_of: EmbedderOf | None = None
    """Asked for collections that were moved to another model; None: those can't be searched."""
    moved: dict[str, Embedder] = field(default_factory=dict, repr=False)
    """Who embeds for such collections, as far as they were met: a guess that each search checks."""

    @property
    def asks_language_models(self) -> bool:
        """Whether a search may take as long as a language model does."""
        return self.rewriter is not None or self._reranker(True) is not self._reranker(False)

    async def __call__(
        self,
        question: str,
        *,
        collection: str | Sequence[str] = "default",
        top_k: int = 6,
        mode: SearchMode = "hybrid",
        filters: Filter | None = None,
        explain: bool = False,
        language_models: bool = True,
    ) -> SearchResult:
        """Return at most `top_k` passages, best first; none when nothing matches.

        A collection's own model embeds the question for it; one that is switched to another model
        meanwhile is asked again. Scores of several collections are comparable, but for `vector`
        mode with different models, which is warned of.
        `language_models` False asks none, neither for other wordings nor for the order. A model
        that fails is done without, with a warning: hybrid search goes by words alone without the
        embedding model. Raises InvalidInput (blank question), CollectionNotFound, InvalidFilter,
        CollectionMismatch, StoreUnavailable, and in vector mode ModelUnavailable.
        """
        names, text = _names(collection), _asked_text(question)
        stopwatch = _Stopwatch()
        warnings: list[str] = []
        others: Sequence[str] = ()
        if self.rewriter is not None and language_models:
            others = await self._other_wordings(self.rewriter, text, names, warnings)
            stopwatch.lap("rewrite")
        reranker = self._reranker(language_models)
        kept = top_k if reranker is None else max(self.reranked, top_k)
        # A leg alone needs no proposals to spare: they are for fusion.
        limit = max(self.candidates, kept) if mode == "hybrid" else kept
        models = [self.moved.get(name, self.embedder) for name in names]
        asked = {
            key: [
                await self._understand(text, model, mode, filters, limit, warnings),
                *await _together(
                    [
                        self._understand(other, model, mode, filters, limit, warnings)
                        for other in others
                    ]
                ),
            ]
            for key, model in {id(model): model for model in models}.items()
        }
        stopwatch.lap("embed")
        answered = await _together(
            [
                self._retrieve(name, asked[id(model)][wording], warnings)
                for wording in range(1 + len(others))
                for name, model in zip(names, models, strict=True)
            ]
        )
        stopwatch.lap("retrieve")
        found = [candidates for _, candidates in answered]
        fusions = [_fused(candidates, question) for question, candidates in answered]
        passages = _best(fusions, kept, explain=explain)
        stopwatch.lap("fuse")
        if reranker is not None and passages:
            passages = await _reranked(reranker, text, passages, warnings, explain=explain)
            passages = passages[:top_k]
            stopwatch.lap("rerank")
        if self.merge_neighbours:
            passages = joined_neighbours(passages)
            stopwatch.lap("fuse")
        self.meter.searched(
            mode,
            stopwatch.milliseconds,
            shortfall=sum(candidates.shortfall for candidates in found),
        )
        return SearchResult(
            passages=tuple(passages),
            timings_ms=stopwatch.milliseconds,
            warnings=(
                *dict.fromkeys(warnings),
                *dict.fromkeys(_warnings([question for question, _ in answered], found)),
            ),
            weights=_mean_weights(fusions),
            generations={
                name: candidates.generation
                for name, candidates in zip(names, found, strict=False)
                if candidates.generation is not None
            },
        )

    async def _other_wordings(
        self, rewriter: Rewriter, question: str, collections: Sequence[str], warnings: list[str]
    ) -> Sequence[str]:
        """Return wordings of the question besides its own; none, and a warning, on a failure."""
        try:
            found = await rewriter.rewrite(
                question, collection=collections[0] if len(collections) == 1 else None
            )
        except (ModelUnavailable, Rejected) as error:
            log.warning("searching for a question in its own words only: %s", error)
            warnings.append(f"the question was searched for in its own words only: {error}")
            return []
        different = {text.casefold(): text for text in map(_without_nul, found) if text}
        different.pop(question.casefold(), None)
        return list(different.values())

    def _reranker(self, language_models: bool) -> Reranker | None:
        if self.reranker is None or (self.reranker.is_language_model and not language_models):
            return None
        return self.reranker

    async def _understand(
        self,
        text: str,
        embedder: Embedder,
        mode: SearchMode,
        filters: Filter | None,
        limit: int,
        warnings: list[str],
    ) -> _Question:
        language, (vector, calibration) = await self._read(text, embedder, mode, warnings)
        return _Question(
            text=text,
            embedder=embedder,
            language=language,
            vector=vector,
            calibration=calibration,
            mode=mode if vector is not None else "keyword",
            filters=filters,
            limit=limit,
        )

    async def _read(
        self, text: str, embedder: Embedder, mode: SearchMode, warnings: list[str]
    ) -> tuple[str | None, tuple[Vector | None, Calibration]]:
        meaning = _meaning(text, embedder, mode, warnings)
        if text in self.languages:
            return self.languages[text], await meaning
        return await asyncio.gather(self._language(text), meaning)

    async def _language(self, text: str) -> str | None:
        """Detect and remember it, off the event loop."""
        if len(self.languages) >= _REMEMBERED_QUESTIONS:
            self.languages.clear()
        self.languages[text] = found = await asyncio.to_thread(detect, text)
        return found

    async def _retrieve(
        self, collection: str, asked: _Question, warnings: list[str]
    ) -> tuple[_Question, Candidates]:
        """Return what a collection proposes, all of one generation, and as what it was asked.

        Where the question was embedded for another generation it is embedded again.
        """
        for _ in range(_MOST_TURNS):
            try:
                return asked, await self._proposals(collection, asked)
            except _Outdated as now:
                asked = await self._understand(
                    asked.text, now.embedder, asked.mode, asked.filters, asked.limit, warnings
                )
            except ModelUnavailable as error:
                if asked.mode != "hybrid":
                    raise
                _tell_words_alone(error, warnings)
                asked = replace(asked, vector=None, calibration=_UNCALIBRATED, mode="keyword")
        raise CollectionMismatch(
            f"collection {collection!r} is switched between models again and again: ask later"
        )

    async def _proposals(self, collection: str, asked: _Question) -> Candidates:
        """Return both legs' proposals, and the best of the other languages where there are some.

        Passages in the question's own language crowd out the others: a model puts unrelated text
        in the same language above a good match in another one. So those get places of their own.
        """
        text = None if asked.mode == "vector" else asked.text
        found = await self._ask(collection, asked, text=text, filters=asked.filters)
        if asked.mode != "hybrid" or not _hides_languages(found, asked):
            return found
        foreign = Condition(field="language", operator="ne", value=asked.language)
        parts = (foreign,) if asked.filters is None else (foreign, asked.filters)
        # Without the keyword leg: what it has to say across languages, names, it has said above.
        hidden = await self._ask(collection, asked, text=None, filters=AllOf(parts))
        if hidden.generation != found.generation:
            raise _Outdated(asked.embedder)
        return _united(found, hidden)

    async def _ask(
        self, collection: str, asked: _Question, *, text: str | None, filters: Filter | None
    ) -> Candidates:
        try:
            found = await self.chunks.candidates(
                collection,
                vector=asked.vector,
                text=text,
                filters=filters,
                vector_limit=asked.limit,
                keyword_limit=asked.limit,
            )
        except CollectionMismatch:  # another dimension: perhaps for a reason
            if asked.vector is None or self.embedder_of is None:
                raise
            found = await self.chunks.candidates(collection, vector=None, text=None)
            if found.embedding is None:
                raise
            raise _Outdated(await self._embedder_for(collection, found)) from None
        if asked.vector is None or found.embedding is None:
            return found
        if not are_comparable(found.embedding, asked.embedder.spec):
            # Vectors of another model, even of the same dimension: cosines would be noise.
            raise _Outdated(await self._embedder_for(collection, found))
        return found

    async def _embedder_for(self, collection: str, found: Candidates) -> Embedder:
        """Return who embeds for a collection as it was found now, and remember that.

        Raises CollectionMismatch for one that is not embedded by the configured model though
        nobody has moved it, or whose model can't be had here; ModelUnavailable.
        """
        assert found.embedding is not None  # who gets here has compared with it
        if are_comparable(found.embedding, self.embedder.spec):
            self.moved.pop(collection, None)
            return self.embedder
        if self.embedder_of is None or found.generation in (None, 1):
            require_same_embedding(collection, found.embedding, self.embedder.spec)
        assert self.embedder_of is not None
        self.moved[collection] = found_embedder = await self.embedder_of(found.embedding)
        return found_embedder


async def _meaning(
    text: str, embedder: Embedder, mode: SearchMode, warnings: list[str]
) -> tuple[Vector | None, Calibration]:
    """Embed a question, unless only its words count; in hybrid search they do on a failure."""
    if mode == "keyword":
        return None, _UNCALIBRATED
    if mode == "vector":
        return await embedder.embed_query(text), _UNCALIBRATED
    try:
        vector = await embedder.embed_query(text)
        return vector, await calibration_of(embedder)
    except (ModelUnavailable, Rejected) as error:
        _tell_words_alone(error, warnings)
        return None, _UNCALIBRATED


def _tell_words_alone(error: Exception, warnings: list[str]) -> None:
    log.warning("searching by words alone: %s", error)
    warnings.append(f"the question was searched for by its words alone: {error}")


def _warnings(asked: Sequence[_Question], found: Iterable[Candidates]) -> Iterable[str]:
    for question in asked:
        spoken = question.embedder.spec.languages
        is_embedded = question.mode != "keyword"
        if is_embedded and spoken is not None and question.language not in (*spoken, None):
            yield (
                f"the embedding model {question.embedder.spec.model!r} was not made for "
                f"{question.language!r}: choose a multilingual model for this collection"
            )
    models = {question.embedder.spec.model for question in asked if question.mode == "vector"}
    if len(models) > 1:
        yield (
            f"the collections are embedded by {len(models)} models, whose scores can't be compared"
            ": ask in hybrid mode, or one collection at a time"
        )
    if missing := sum(candidates.shortfall for candidates in found):
        yield f"{missing} passages match the filter and could not be ranked"


def joined_neighbours(passages: Sequence[Passage]) -> list[Passage]:
    """Join passages that follow one another in a document under the same heading.

    The joined one has the id of its first chunk, the best score, and all places; its `parts` tell
    which chunk is where, so that a citation still points into a single one. Stays in order of the
    best score.
    """
    groups: list[list[Passage]] = []
    for passage in sorted(passages, key=_reading_order):
        if groups and _continues(groups[-1][-1], passage):
            groups[-1].append(passage)
        else:
            groups.append([passage])
    return sorted((_joined(group) for group in groups), key=lambda joined: -joined.score)


async def _reranked(
    reranker: Reranker,
    question: str,
    passages: list[Passage],
    warnings: list[str],
    *,
    explain: bool,
) -> list[Passage]:
    """Return the passages in the reranker's order, or in their own, with a warning."""
    try:
        judged = await reranker.rerank(question, passages)
    except (ModelUnavailable, Rejected) as error:
        log.warning("leaving passages in the order of the search: %s", error)
        warnings.append(f"the passages were not reranked: {error}")
        return passages
    return [_explained(passage, rank, explain) for rank, passage in enumerate(judged, start=1)]


def _explained(passage: Passage, rank: int, explain: bool) -> Passage:
    if not explain or passage.explanation is None:
        return passage
    explanation = replace(passage.explanation, reranked_rank=rank, reranked_score=passage.score)
    return passage.scored(passage.score, explanation)


def _without_nul(text: str) -> str:
    return text.replace("\0", " ").strip()


def _asked_text(question: str) -> str:
    text = _without_nul(question)
    if not text:
        raise InvalidInput(f"the question {question!r} is blank: ask something")
    return text


async def _together(calls: Sequence[Coroutine[Any, Any, Result]]) -> Sequence[Result]:
    """Await them all at once; a single one, the usual case, without a task of its own."""
    return [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)


def _names(collection: str | Sequence[str]) -> list[str]:
    names = [collection] if isinstance(collection, str) else list(dict.fromkeys(collection))
    if not names:
        raise InvalidInput("no collection is named: name at least one to search in")
    return names


def _hides_languages(found: Candidates, asked: _Question) -> bool:
    own = found.languages.get(asked.language or "", 0)
    others = sum(found.languages.values()) - own
    is_complete = found.total_chunks <= len(found.candidates)
    return bool(own and others and asked.calibration.language_gap > 0 and not is_complete)


def _united(found: Candidates, foreign: Candidates) -> Candidates:
    known = {candidate.passage.chunk_id for candidate in found.candidates}
    added = tuple(
        replace(candidate, vector_rank=None, keyword_rank=None)
        for candidate in foreign.candidates
        if candidate.passage.chunk_id not in known
    )
    return replace(
        found,
        candidates=found.candidates + added,
        shortfall=found.shortfall + foreign.shortfall,
    )


def _fused(candidates: Candidates, asked: _Question) -> Fusion:
    return fuse(
        candidates,
        mode=asked.mode,
        calibration=asked.calibration,
        question_language=asked.language,
    )


def _best(fusions: Iterable[Fusion], top_k: int, *, explain: bool) -> list[Passage]:
    """Return the best of all; a chunk that several wordings found stands where it fits best."""
    ranked = [one for fusion in fusions for one in fusion.ranked]
    ranked.sort(key=lambda one: -one.value)
    best: dict[tuple[str, str], Ranked] = {}
    for one in ranked:
        if len(best) == top_k:
            break
        best.setdefault((one.candidate.passage.collection, one.candidate.passage.chunk_id), one)
    return [_passage(one, rank, explain) for rank, one in enumerate(best.values(), start=1)]


def _passage(ranked: Ranked, rank: int, explain: bool) -> Passage:
    explanation = ranked.explained(rank) if explain else None
    return ranked.candidate.passage.scored(ranked.score, explanation)


def _mean_weights(fusions: Sequence[Fusion]) -> Mapping[str, float]:
    return {
        leg: sum(fusion.weights[leg] for fusion in fusions) / len(fusions)
        for leg in ("vector", "keyword")
    }


def _reading_order(passage: Passage) -> tuple[str, str, int]:
    return passage.collection, passage.document_id, passage.ordinal


def _continues(first: Passage, second: Passage) -> bool:
    return (
        (first.collection, first.document_id, first.headings)
        == (second.collection, second.document_id, second.headings)
    ) and second.ordinal == first.ordinal + 1


def _joined(group: Sequence[Passage]) -> Passage:
    if len(group) == 1:
        return group[0]
    best = max(group, key=lambda passage: passage.score)
    return replace(
        group[0],
        text=_BETWEEN_PARTS.join(passage.text for passage in group),
        score=best.score,
        explanation=best.explanation,
        places=tuple(place for passage in group for place in passage.places),
        elements=tuple(element for passage in group for element in passage.elements),
        parts=tuple(_parts(group)),
    )


def _parts(group: Sequence[Passage]) -> Iterator[Part]:
    start = 0
    for passage in group:
        end = start + len(passage.text)
        if passage.parts:  # joined before
            yield from (
                replace(part, start=start + part.start, end=start + part.end)
                for part in passage.parts
            )
        else:
            yield Part(passage.chunk_id, start, end, passage.places)
        start = end + len(_BETWEEN_PARTS)
