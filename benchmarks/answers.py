"""How good answers without a language model are, and whether unanswerable questions are declined.

    python benchmarks/answers.py [--every N]

Runs search and the extractive answerer over an embedded PostgreSQL. XQuAD's articles are dealt to
two collections, so that every question is asked twice: where its article is, and where it is not.
`found` is the share of answerable questions whose answer text stands in a quote, `first` in the
first quote; `false` the share of answerable ones that were declined; `declined` the share of the
others that were, rightly. `near miss`: only the paragraph itself is missing, the rest of the
article is there. The thresholds were set on half of the articles; `held out` are the others.
"""

import argparse
import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import ClassVar

import numpy as np

from judged import Bench, Question, Text, is_tuned_on, open_bench, xquad
from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.extractive import ExtractiveAnswerer
from ragcore.model import Answer, Vector, Vectors

OFF_TOPIC = {
    "en": (
        "How do I bake sourdough bread at home?",
        "What is the best way to remove rust from a bicycle chain?",
        "How can I reset my router to factory settings?",
        "What is the refund policy of this shop?",
        "Who won the football match last night?",
        "What is the wifi password?",
        "How do I write a for loop in Rust?",
        "asdf qwer zxcv",
        "What time does the ferry leave on Sunday?",
        "Which vitamins are in broccoli?",
        "Tell me a joke",
        "What is my account balance?",
        "Where can I park near the office?",
        "colorless green ideas sleep furiously",
        "How long should I boil an egg?",
        "What does error E1045 mean?",
        "Who is the CEO of the company?",
        "How do I cancel my subscription?",
        "What is the capital gains tax rate in Estonia?",
        "How many chunks fit in the context window of the model?",
    ),
    "ru": (
        "Как испечь хлеб на закваске дома?",
        "Чем удалить ржавчину с велосипедной цепи?",
        "Как сбросить роутер до заводских настроек?",
        "Каковы условия возврата товара в этом магазине?",
        "Кто выиграл вчерашний футбольный матч?",
        "Какой пароль от вайфая?",
        "Как написать цикл for на Rust?",
        "ываф йцук ячсм",
        "Во сколько отходит паром в воскресенье?",
        "Какие витамины есть в брокколи?",
        "Расскажи анекдот",
        "Какой у меня баланс на счёте?",
        "Где можно припарковаться у офиса?",
        "бесцветные зелёные идеи яростно спят",
        "Сколько минут варить яйцо?",
        "Что означает ошибка E1045?",
        "Кто директор компании?",
        "Как отменить подписку?",
        "Какова ставка налога на прирост капитала в Эстонии?",
        "Сколько фрагментов помещается в контекст модели?",
    ),
}
PAIRS = (("en", "en"), ("ru", "ru"), ("ru", "en"), ("en", "ru"))


async def main(every: int) -> None:
    async with open_bench() as bench:
        print(
            f"{'question, text':16}{'half':>10}{'found':>8}{'first':>8}{'quotes':>8}{'false':>8}"
            f"{'declined':>10}{'near miss':>11}"
        )
        for asked, told in PAIRS:
            await _report(bench, asked, told, every)
        for language in ("en", "ru"):
            await _report_off_topic(bench, language)


async def _report(bench: Bench, asked: str, told: str, every: int) -> None:
    judged = xquad(asked, told)
    for parity in (0, 1):
        await bench.fill(f"{told}-{parity}", _texts(judged.texts, parity))
    questions = judged.questions[::every]
    with_it = [await _ask(bench, f"{told}-{q.article % 2}", q.text) for q in questions]
    without = [await _ask(bench, f"{told}-{1 - q.article % 2}", q.text) for q in questions]
    near = [await _ask(bench, f"{told}-{q.article % 2}", q.text, leave_out=q) for q in questions]
    for half in ("tuned on", "held out"):
        kept = [
            n for n, q in enumerate(questions) if is_tuned_on(q.article) == (half == "tuned on")
        ]
        found = mean(_holds(with_it[n], questions[n]) for n in kept)
        first = mean(_holds(with_it[n], questions[n], quotes=1) for n in kept)
        quotes = mean(len(with_it[n].citations) for n in kept if with_it[n].citations)
        rates = [
            mean(_is_declined(answers[n]) for n in kept) for answers in (with_it, without, near)
        ]
        print(
            f"{asked + ', ' + told:16}{half:>10}{found:8.3f}{first:8.3f}{quotes:8.2f}"
            f"{rates[0]:8.3f}{rates[1]:10.3f}{rates[2]:11.3f}",
            flush=True,
        )


async def _report_off_topic(bench: Bench, language: str) -> None:
    answers = [await _ask(bench, f"{language}-0", question) for question in OFF_TOPIC[language]]
    reasons = Counter(answer.no_answer_reason or "answered" for answer in answers)
    listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    print(f"off topic, {language}: {listed}", flush=True)


async def _ask(
    bench: Bench, collection: str, question: str, *, leave_out: Question | None = None
) -> Answer:
    remembering = Remembering(bench.model)
    found = await bench.search(question, collection=collection, top_k=7)
    missing = leave_out.relevant if leave_out is not None else frozenset()
    passages = [passage for passage in found if passage.document_id not in missing][:6]
    vector = await bench.embedder.embed_query(question)
    return await ExtractiveAnswerer(remembering).answer(question, passages, query_vector=vector)


class Remembering:
    """The model itself, that computes no sentence twice: the same ones come up all the time."""

    _vectors: ClassVar[dict[str, Vector]] = {}

    def __init__(self, model: BundledEmbedder) -> None:
        self._model = model
        self.spec = model.spec
        self.embed_query = model.embed_query

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        missing = [text for text in texts if text not in self._vectors]
        vectors = await self._model.embed_documents(missing)
        self._vectors.update(zip(missing, vectors, strict=True))
        return np.stack([self._vectors[text] for text in texts])


def _texts(texts: Iterable[Text], parity: int) -> Sequence[Text]:
    return [text for text in texts if text.article % 2 == parity]


def _holds(answer: Answer, question: Question, *, quotes: int = 3) -> bool:
    wanted = question.answer.casefold()
    return any(wanted in citation.quote.casefold() for citation in answer.citations[:quotes])


def _is_declined(answer: Answer) -> bool:
    return answer.no_answer_reason is not None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=10, help="ask every N-th question only")
    asyncio.run(main(parser.parse_args().every))
