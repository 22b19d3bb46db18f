"""How good answers without a language model are, and whether unanswerable questions are declined.

    python benchmarks/answers.py [--every N]

Runs search and the extractive answerer over an embedded PostgreSQL. A document is an article of
XQuAD, a page a paragraph of it. The articles are dealt to two collections, so that every question
is asked twice: where its article is, and where it is not.

`answered`: share of the answerable questions that were; `contains`: whose answer text stands in the
answer; `F1`: of its words with that text, by SQuAD's rules, mean over the answerable ones. Then, of
all citations of answers that contain it, the share that points at the right `document`, the right
`page`, and the `sentence` in which it stands; `by answer` is the last one, averaged over answers.
`declined`: share of the questions without their article that were, rightly. `near miss`: only the
paragraph itself is missing, the rest of the article is there. What was set was set on half of the
articles, `tuned on`; `held out` are the others. Aims: document .95, sentence .9, declined .8 while
.9 are answered.
"""

import argparse
import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean
from typing import ClassVar

import numpy as np

from judged import Bench, Question, Text, is_tuned_on, open_bench, xquad
from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.extractive import ExtractiveAnswerer
from ragcore.model import Answer, Vector, Vectors
from ragcore.steps.citing import without_markers

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
COLUMNS = (
    "answered",
    "contains",
    "F1",
    "quotes",
    "document",
    "page",
    "sentence",
    "by answer",
    "declined",
    "near miss",
)
PAIRS = (("en", "en"), ("ru", "ru"), ("ru", "en"), ("en", "ru"))


async def main(every: int) -> None:
    async with open_bench() as bench:
        print(f"{'question, text':16}{'half':>9}" + "".join(f"{c:>10}" for c in COLUMNS))
        for asked, told in PAIRS:
            await _report(bench, asked, told, every)
        for language in ("en", "ru"):
            await _report_off_topic(bench, language)


async def _report(bench: Bench, asked: str, told: str, every: int) -> None:
    judged = xquad(asked, told)
    for parity in (0, 1):
        await bench.fill_documents(f"{told}-{parity}", _articles(judged.texts, parity))
    questions = judged.questions[::every]
    with_it = [await _ask(bench, f"{told}-{q.article % 2}", q.text) for q in questions]
    without = [await _ask(bench, f"{told}-{1 - q.article % 2}", q.text) for q in questions]
    near = [await _ask(bench, f"{told}-{q.article % 2}", q.text, leave_out=q) for q in questions]
    for half in ("tuned on", "held out"):
        kept = [
            n for n, q in enumerate(questions) if is_tuned_on(q.article) == (half == "tuned on")
        ]
        pairs = [(with_it[n], questions[n]) for n in kept]
        right = [_right(answer, question) for answer, question in pairs if _holds(answer, question)]
        cells = [
            1 - mean(_is_declined(answer) for answer, _ in pairs),
            len(right) / len(pairs),
            mean(_f1(answer, question.answer) for answer, question in pairs),
            mean(len(answer.citations) for answer, _ in pairs if answer.citations),
            *(mean(part) for part in zip(*(one for each in right for one in each), strict=True)),
            mean(mean(one[2] for one in each) for each in right),
            mean(_is_declined(without[n]) for n in kept),
            mean(_is_declined(near[n]) for n in kept),
        ]
        print(
            f"{asked + ', ' + told:16}{half:>9}" + "".join(f"{cell:10.3f}" for cell in cells),
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
    passages = [passage for passage in found if passage.chunk_id not in missing][:6]
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


def _articles(texts: Iterable[Text], parity: int) -> dict[str, list[Text]]:
    articles: dict[str, list[Text]] = {}
    for text in texts:
        if text.article % 2 == parity:
            articles.setdefault(f"{text.language}-{text.article}", []).append(text)
    return articles


def _holds(answer: Answer, question: Question) -> bool:
    return not _is_declined(answer) and question.answer.casefold() in answer.text.casefold()


def _right(answer: Answer, question: Question) -> list[tuple[bool, bool, bool]]:
    """Say of each citation whether its document, page and sentence are those of the answer."""
    (paragraph,) = question.relevant
    language, article, position = paragraph.split("-")
    end = question.answer_start + len(question.answer)
    return [
        (
            one.document_id == f"{language}-{article}",
            one.document_id == f"{language}-{article}" and one.page == int(position) + 1,
            one.chunk_id == paragraph and one.start <= question.answer_start and end <= one.end,
        )
        for one in answer.citations
    ]


def _f1(answer: Answer, wanted: str) -> float:
    """Compare the words of an answer with those that were wanted; 0 when it is declined."""
    if _is_declined(answer):
        return 0.0
    said, known = Counter(_words(without_markers(answer.text))), Counter(_words(wanted))
    common = sum((said & known).values())
    return 2 * common / (said.total() + known.total())


def _words(text: str) -> list[str]:
    """Return the words without case, punctuation and English articles."""
    words = re.findall(r"\w+", text.casefold())
    return [word for word in words if word not in ("a", "an", "the")]


def _is_declined(answer: Answer) -> bool:
    return answer.no_answer_reason is not None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--every", type=int, default=10, help="ask every N-th question only")
    asyncio.run(main(parser.parse_args().every))
