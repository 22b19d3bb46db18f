"""Answers without a language model: the best sentences of the passages, letter for letter.

A sentence is judged by its meaning (the embedding model's cosine to the question, on the model's
own scale) and its words (the share of the question's rare words it holds). Below a threshold
nothing is answered: some 95 of 100 XQuAD questions are declined where their article is missing, and
3 of 100 where it is there (benchmarks/answers.py). While the embedding model is away, sentences are
judged by their words alone.
"""

import asyncio
import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from ragcore.errors import ModelUnavailable, Rejected
from ragcore.model import Answer, Citation, Message, NoAnswerReason, Passage, Vector
from ragcore.ports import Embedder, OnText
from ragcore.steps.citing import cite, with_round_markers
from ragcore.steps.fusing import is_foreign
from ragcore.steps.languages import detect
from ragcore.steps.relevance import Calibration, Probed, calibration_of, probes_of
from ragcore.steps.sentences import Span, sentence_spans
from ragcore.steps.words import roots

log = logging.getLogger(__name__)

_HISTORY_UNREAD: Final = "the history was not read: the question was taken by itself"

_PASSAGES: Final = 3
"""One of the first three holds the answer for 99 of 100 questions, across languages for 96."""
_MOST_JUDGED: Final = 24
_MOST_SENTENCES: Final = 3

_WORDS_WEIGHT: Final = 1.5
"""What holding all of the question's words is worth, in strengths of a cosine."""
_RANK_PENALTY: Final = 0.1
_MARGIN: Final = 0.08
_MARGIN_ACROSS_LANGUAGES: Final = 0.03
"""Sentences this much behind the best one are left out, so that nine citations of ten in an answer
that holds what was asked are of the sentence that holds it; five times as much would hold it for
four questions of a hundred more, and be right of eight citations of ten."""

_ANSWERS: Final = 1.0
_ANSWERS_ACROSS_LANGUAGES: Final = 0.65
"""Least evidence of a sentence that answers; between two languages words seldom add to it."""
_SHARE_ANSWERS: Final = 0.4
"""Least share of the question's words, where they alone count: some 70 of 100 XQuAD questions are
answered then, and 98 declined whose article is missing."""
_EXCESS_BELIEVED: Final = 0.5
"""Of how near the question seems to be to everything: eight probes tell it roughly."""
_NEAR_MISS: Final = 0.3
"""So close below, the passages are on the subject and don't hold the answer."""

_DECLINED: Final[Mapping[str, Mapping[NoAnswerReason, str]]] = {
    "en": {
        "no_documents": "There are no documents to answer from.",
        "no_relevant_passages": "The documents hold nothing relevant to this question.",
        "not_in_passages": "What comes nearest in the documents does not hold the answer.",
    },
    "ru": {
        "no_documents": "Нет документов, по которым можно ответить.",
        "no_relevant_passages": "В документах нет ничего, что относилось бы к этому вопросу.",
        "not_in_passages": "Ближайшее, что есть в документах, не содержит ответа.",
    },
}

_LINE_MARKUP = re.compile(r"\A(?:#{1,6}|[-*+•>]|\d{1,3}[.)])\s+")
_EMPHASIS = re.compile(r"(\*\*|__|`)(?=\S)(.+?)(?<=\S)\1")
_TAG = re.compile(r"<[/!?]?[A-Za-z][^<>]{0,300}>")
_ATTRIBUTES = re.compile(r"\{\s*[#.*:][^{}]{0,200}\}")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*\)")
_ADDRESS = re.compile(r"\w+://\S*")
_WORD = re.compile(r"[^\W\d_]{2,}")
_CODE_CHARACTERS = frozenset("{}[]<>=_\\|`*#@&^~$/;")
_MOST_CODE: Final = 0.06
"""Share of such characters in a sentence, over which it is code, a path or a log line."""
_LEAST_FOREIGN_WORDS: Final = 5
"""A scrap in another language, mostly code or a name, is no answer by its cosine alone."""

_TABLE_RULE = re.compile(r"[\s|:+-]*")


@dataclass(frozen=True, slots=True)
class _Sentence:
    passage: Passage
    rank: int
    """Of its passage, from 0."""
    span: Span
    text: str
    """As it reads without markup and markers; a row of a table with its column names."""


@dataclass(frozen=True, slots=True)
class _Judged:
    sentence: _Sentence
    value: float
    """Orders the sentences."""
    evidence: float
    """The same, fair to sentences in another language."""
    threshold: float
    """Least evidence with which it may answer."""
    margin: float = _MARGIN
    """How much behind it others are quoted as well, if it is the best."""

    @property
    def surplus(self) -> float:
        return self.evidence - self.threshold


@dataclass(frozen=True, slots=True)
class _Asking:
    """One question, and what cosines to it mean."""

    language: str | None
    vector: Vector
    calibration: Calibration
    probed: Probed

    def judged(self, sentence: _Sentence, share: float, cosine: float) -> _Judged:
        told = sentence.passage.language
        has_words = len(_WORD.findall(_ADDRESS.sub("", sentence.text))) >= _LEAST_FOREIGN_WORDS
        foreign = has_words and is_foreign(told, self.language)
        added = _WORDS_WEIGHT * share
        excess = self.probed.excess(self.vector, asked=self.language, told=told)
        fair = cosine - _EXCESS_BELIEVED * excess
        return _Judged(
            sentence=sentence,
            value=self.calibration.strength(cosine) + added - _RANK_PENALTY * sentence.rank,
            evidence=self.calibration.strength(fair, is_foreign=foreign) + added,
            threshold=_ANSWERS_ACROSS_LANGUAGES if foreign else _ANSWERS,
            margin=_MARGIN_ACROSS_LANGUAGES if foreign else _MARGIN,
        )


def _judged_by_words(sentence: _Sentence, share: float) -> _Judged:
    return _Judged(
        sentence=sentence,
        value=_WORDS_WEIGHT * share - _RANK_PENALTY * sentence.rank,
        evidence=_WORDS_WEIGHT * share,
        threshold=_WORDS_WEIGHT * _SHARE_ANSWERS,
    )


class ExtractiveAnswerer:
    """`ports.Answerer` that quotes. Answers in the question's language where passages have it."""

    name = "extractive"

    def __init__(self, embedder: Embedder, *, questions: Embedder | None = None) -> None:
        """Give it the bare model: sentences are not worth a place in the embedding cache.

        `questions` embeds the questions, where something remembers what search has embedded.
        """
        self._embedder = embedder
        self._questions = questions or embedder

    async def answer(
        self,
        question: str,
        passages: Sequence[Passage],
        *,
        query_vector: Vector | None = None,
        history: Sequence[Message] = (),
        on_text: OnText | None = None,
    ) -> Answer:
        """Return one to three sentences, each cited, or say why there is no answer.

        `supported` is true of every citation: the sentences are the passages' own. Takes about as
        long as embedding fifteen sentences does.
        """
        started = perf_counter()
        warnings = [_HISTORY_UNREAD] if history else []
        language = await asyncio.to_thread(detect, question)
        judged = await self._judge(question, language, passages, query_vector, warnings)
        reason = _no_answer_reason(judged, passages)
        if reason is None:
            text, citations = _written(_chosen(judged))
        else:
            text, citations = declined_text(reason, language), ()
        return Answer(
            text=text,
            citations=citations,
            passages=tuple(passages),
            no_answer_reason=reason,
            generator=self.name,
            timings_ms={"generate": (perf_counter() - started) * 1000},
            warnings=tuple(warnings),
        )

    async def _judge(
        self,
        question: str,
        language: str | None,
        passages: Sequence[Passage],
        query_vector: Vector | None,
        warnings: list[str],
    ) -> list[_Judged]:
        """Return the sentences of the first passages with their values, best first."""
        kept = await asyncio.to_thread(_worth_judging, question, passages[:_PASSAGES])
        if not kept:
            return []
        try:
            judged = await self._judged_by_meaning(question, language, kept, query_vector)
        except (ModelUnavailable, Rejected) as error:
            log.warning("judging sentences by their words alone: %s", error)
            warnings.append(f"sentences were chosen by their words alone: {error}")
            judged = [_judged_by_words(sentence, share) for sentence, share in kept]
        return sorted(judged, key=lambda one: -one.value)

    async def _judged_by_meaning(
        self,
        question: str,
        language: str | None,
        kept: Sequence[tuple[_Sentence, float]],
        query_vector: Vector | None,
    ) -> list[_Judged]:
        if query_vector is None:
            query_vector = await self._questions.embed_query(question)
        vectors = await self._embedder.embed_documents(
            [_in_context(sentence) for sentence, _ in kept]
        )
        asking = _Asking(
            language=language,
            vector=query_vector,
            calibration=await calibration_of(self._embedder),
            probed=await probes_of(self._embedder),
        )
        return [
            asking.judged(sentence, share, float(cosine))
            for (sentence, share), cosine in zip(kept, vectors @ query_vector, strict=True)
        ]


def declined_text(reason: NoAnswerReason, language: str | None) -> str:
    """Return the sentence that declines, in Russian for Russian questions, else in English."""
    return _DECLINED.get(language or "en", _DECLINED["en"])[reason]


def _worth_judging(question: str, passages: Sequence[Passage]) -> list[tuple[_Sentence, float]]:
    """Return the sentences with the share of the question's words they hold; most of them first."""
    sentences = _sentences(passages)
    shares = _shares(roots(question), [roots(_in_context(sentence)) for sentence in sentences])
    pairs = zip(sentences, shares, strict=True)
    return sorted(pairs, key=lambda pair: (-pair[1], pair[0].rank))[:_MOST_JUDGED]


def _sentences(passages: Sequence[Passage]) -> list[_Sentence]:
    found = []
    for rank, passage in enumerate(passages):
        header: Sequence[str] = ()
        for start, end in sentence_spans(passage.text):
            quote = passage.text[start:end]
            if quote.startswith("|"):
                if _TABLE_RULE.fullmatch(quote):
                    continue
                cells = [cell.strip() for cell in quote.strip("|").split("|")]
                if _is_table_header(passage.text, end):
                    header = cells
                    continue
                text = with_round_markers(_row_text(header, cells))
            else:
                header = ()
                text = with_round_markers(_plain(quote))
                if not _reads_as_prose(text):
                    continue
            if roots(text):
                found.append(_Sentence(passage, rank, (start, end), text))
    return found


def _is_table_header(text: str, end: int) -> bool:
    following = text[end:].lstrip().split("\n", 1)[0]
    return following.startswith("|") and _TABLE_RULE.fullmatch(following) is not None


def _row_text(header: Sequence[str], cells: Sequence[str]) -> str:
    """Return a row as a reader would say it: `Line: North; Fare: 12 €`."""
    names = [*header, *[""] * len(cells)]
    pairs = zip(names, cells, strict=False)
    return "; ".join(f"{name}: {cell}" if name else cell for name, cell in pairs if cell)


def _plain(quote: str) -> str:
    text = _ATTRIBUTES.sub("", _TAG.sub("", _LINK.sub(r"\1", quote)))
    text = _EMPHASIS.sub(r"\2", _LINE_MARKUP.sub("", text.strip()))
    return " ".join(text.split())


def _reads_as_prose(text: str) -> bool:
    """Tell a sentence from code, markup, paths and logs, and from the lead-in to something else.

    Scraps of these are near to many questions and answer none.
    """
    symbols = sum(character in _CODE_CHARACTERS for character in text)
    words = len(_WORD.findall(text))
    is_bare = words < 2 and not (words and any(character.isdigit() for character in text))
    return not is_bare and not text.endswith(":") and symbols <= _MOST_CODE * len(text)


def _in_context(sentence: _Sentence) -> str:
    """Return what is judged: headings say what a sentence under them is about."""
    return "\n".join((*sentence.passage.headings[-2:], sentence.text))


def _shares(asked: frozenset[str], sentences: Sequence[frozenset[str]]) -> list[float]:
    """Return, for each sentence, the share of the question's words it holds, rare ones first.

    Rare among these sentences: the passages were found by the question's words, and those that
    every sentence holds tell none of them apart.
    """
    count = len(sentences)
    frequency = {root: sum(root in sentence for sentence in sentences) for root in asked}
    weight = {root: math.log(1 + (count - n + 0.5) / (n + 0.5)) for root, n in frequency.items()}
    total = sum(weight.values())
    if total <= 0:
        return [0.0] * count
    return [sum(weight[root] for root in asked & sentence) / total for sentence in sentences]


def _no_answer_reason(
    judged: Sequence[_Judged], passages: Sequence[Passage]
) -> NoAnswerReason | None:
    if not passages:
        return "no_documents"
    surplus = max((one.surplus for one in judged), default=-1.0)
    if surplus >= 0:
        return None
    return "not_in_passages" if surplus >= -_NEAR_MISS else "no_relevant_passages"


def _chosen(judged: Sequence[_Judged]) -> list[_Sentence]:
    """Return the best sentence and those nearly as good, best first, each text once."""
    able = [one for one in judged if one.surplus >= 0]
    near = [one.sentence for one in able if one.value >= able[0].value - able[0].margin]
    different = {sentence.text: sentence for sentence in reversed(near)}
    return [sentence for sentence in near if different[sentence.text] is sentence][:_MOST_SENTENCES]


def _written(sentences: Sequence[_Sentence]) -> tuple[str, tuple[Citation, ...]]:
    citations = tuple(
        cite(sentence.passage, marker=marker, start=sentence.span[0], end=sentence.span[1])
        for marker, sentence in enumerate(sentences, start=1)
    )
    texts = [f"{sentence.text} [{n}]" for n, sentence in enumerate(sentences, start=1)]
    return " ".join(texts), citations
