"""What the options of search are worth: other wordings of a question, and joined neighbours.

    python benchmarks/options.py [--every N]

XQuAD over an embedded PostgreSQL.

* Other wordings: as if a language model had put the question perfectly into the other language
  (XQuAD has both): the most that a rewriter can do for a question across languages, and what it
  costs where there is nothing to gain. R@1 / nDCG@10 of the right paragraph, in a collection of one
  language and in one where every other article is in the other.
* Joined neighbours: articles cut into chunks of two sentences, so that an answer and what it needs
  are often apart. Share of the extractive answers that contain what was asked; share of their
  citations that point at the right sentence, by its offsets in its chunk; passages and characters
  that an answer is made from.

No reranker is measured: that takes a language model, or the weights of a cross-encoder.
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import mean

from judged import (
    Bench,
    JudgedSet,
    Question,
    Text,
    ndcg_at_10,
    open_bench,
    recall_at_1,
    xquad,
    xquad_mixed,
)
from ragcore.adapters.models.extractive import ExtractiveAnswerer
from ragcore.flows.search import Search
from ragcore.model import Answer
from ragcore.steps.sentences import sentence_spans

_LANGUAGES = ("en", "ru")
_SENTENCES = 2
"""Of a small chunk."""


async def main(every: int) -> None:
    async with open_bench() as bench:
        translations = _translations()
        print(f"{'other wordings':34}{'own':>15}{'and translated':>18}")
        for collection, judged in _sets():
            await bench.fill(collection, judged.texts)
            await _report_wordings(bench, collection, judged, translations, every)
        print(f"\n{'neighbours':34}{'contains':>10}{'sentence':>10}{'passages':>10}{'chars':>10}")
        for language in _LANGUAGES:
            await _report_neighbours(bench, language, every)


# --- other wordings ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Translating:
    """A rewriter that knows every question in both languages."""

    known: Mapping[str, str]

    async def rewrite(self, question: str, *, collection: str | None = None) -> Sequence[str]:
        return [self.known[question.strip()]]


def _translations() -> Mapping[str, str]:
    english, russian = (xquad(language, "en").questions for language in _LANGUAGES)
    pairs = [(e.text.strip(), r.text.strip()) for e, r in zip(english, russian, strict=True)]
    return dict(pairs) | {r: e for e, r in pairs}


def _sets() -> Sequence[tuple[str, JudgedSet]]:
    pairs = [(asked, told) for asked in _LANGUAGES for told in _LANGUAGES]
    own = [(f"xquad-{told}", xquad(asked, told)) for asked, told in pairs]
    mixed = [
        ("mixed-0", judged) for asked in _LANGUAGES for judged in xquad_mixed(asked, english=0)
    ]
    return own + mixed


async def _report_wordings(
    bench: Bench, collection: str, judged: JudgedSet, translations: Mapping[str, str], every: int
) -> None:
    questions = judged.questions[::every]
    plain = await _cell(bench.search, collection, questions)
    rewriting = replace(bench.search, rewriter=_Translating(translations))
    print(
        f"{judged.name:34}{plain:>15}{await _cell(rewriting, collection, questions):>18}",
        flush=True,
    )


async def _cell(search: Search, collection: str, questions: Sequence[Question]) -> str:
    first, gain = [], []
    for question in questions:
        found = await search(question.text, collection=collection, top_k=10)
        ids = [passage.document_id for passage in found]
        first.append(recall_at_1(ids, question.relevant))
        gain.append(ndcg_at_10(ids, question.relevant))
    return f"{mean(first):.3f} / {mean(gain):.3f}"


# --- neighbours ----------------------------------------------------------------------------


async def _report_neighbours(bench: Bench, language: str, every: int) -> None:
    judged = xquad(language, language)
    articles: dict[str, list[Text]] = {}
    starts: dict[str, int] = {}
    for text in judged.texts:
        for start, chunk in _cut(text):
            starts[chunk.id] = start
            articles.setdefault(f"{language}-{text.article}", []).append(chunk)
    await bench.fill_documents(f"small-{language}", articles)
    for name, merges in (("apart", False), ("joined", True)):
        search = replace(bench.search, merge_neighbours=merges)
        answers = [
            await _answer(bench, search, f"small-{language}", question)
            for question in judged.questions[::every]
        ]
        pairs = list(zip(answers, judged.questions[::every], strict=True))
        holding = [(a, q) for a, q in pairs if q.answer.casefold() in a.text.casefold()]
        right = [_is_right(c, q, starts) for a, q in holding for c in a.citations]
        cells = (
            f"{len(holding) / len(pairs):10.3f}{mean(right):10.3f}"
            f"{mean(len(a.passages) for a in answers):10.1f}"
            f"{mean(sum(len(p.text) for p in a.passages) for a in answers):10.0f}"
        )
        print(f"{f'{language}, chunks of two sentences, {name}':34}{cells}", flush=True)


def _cut(text: Text) -> list[tuple[int, Text]]:
    """Cut a paragraph into chunks of a few sentences; with each comes where it starts."""
    spans = sentence_spans(text.text)
    chunks = []
    for number in range(0, len(spans), _SENTENCES):
        start, end = spans[number][0], spans[number : number + _SENTENCES][-1][1]
        chunks.append((start, replace(text, id=f"{text.id}-{number}", text=text.text[start:end])))
    return chunks


async def _answer(bench: Bench, search: Search, collection: str, question: Question) -> Answer:
    found = await search(question.text, collection=collection)
    vector = await bench.embedder.embed_query(question.text)
    answerer = ExtractiveAnswerer(bench.model)
    return await answerer.answer(question.text, found.passages, query_vector=vector)


def _is_right(citation: object, question: Question, starts: Mapping[str, int]) -> bool:
    (paragraph,) = question.relevant
    start = starts[citation.chunk_id]
    end = question.answer_start + len(question.answer)
    is_there = start + citation.start <= question.answer_start and end <= start + citation.end
    return citation.chunk_id.rpartition("-")[0] == paragraph and is_there


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=4, help="ask every N-th question only")
    asyncio.run(main(parser.parse_args().every))
