"""How one embedding model's cosines read: what is noise, what is a hit.

Models differ: with multilingual-e5 two unrelated texts have a cosine of .75 and a question and its
answer .87; with others it is .1 and .6. Fixed thresholds are wrong for all but one of them, so
every decision is made on a scale where 0 is noise and 1 a typical hit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ragcore.model import EmbeddingSpec, Vector, Vectors
from ragcore.ports import Embedder

_LEAST_SPREAD: Final = 0.02
"""A model that tells hits from noise by less than this is read as if it did so by this much."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One model's cosines between questions and passages."""

    noise: float
    """Mean for an unrelated passage in the question's language."""
    hit: float
    """Mean for the passage that holds the answer, in the question's language."""
    language_gap: float = 0.0
    """How much lower the noise is, ≥ 0, where passage and question differ in language."""

    def strength(self, cosine: float, *, is_foreign: bool = False) -> float:
        """Return where a cosine stands: 0 is noise, 1 a typical hit, unbounded either way.

        `is_foreign` gives back what the passage loses by being in another language.
        """
        fair = cosine + self.language_gap if is_foreign else cosine
        return (fair - self.noise) / self.spread

    @property
    def spread(self) -> float:
        """Difference of cosines that makes one unit of strength."""
        return max(self.hit - self.noise, _LEAST_SPREAD)


MEASURED: Final[Mapping[str, Calibration]] = {
    "bundled:multilingual-e5-small": Calibration(noise=0.75, hit=0.87, language_gap=0.046),
}
"""By `EmbeddingSpec.model`, on XQuAD (benchmarks/retrieval.py); others are measured on PROBES."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A question and the passage that answers it, by language."""

    question: Mapping[str, str]
    passage: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Probed:
    """One model's vectors of the probes, by language; row n is probe n."""

    questions: Mapping[str, Vectors]
    passages: Mapping[str, Vectors]

    def excess(self, question: Vector, *, asked: str | None, told: str | None) -> float:
        """Return how much nearer than usual a question is to passages it has nothing to do with.

        Short, vague and senseless questions are near to everything, and so to nothing in
        particular. `asked` and `told` are the languages of the question and of the passages.
        """
        passages = self._of(self.passages, told)
        usual = self._of(self.questions, asked) @ passages.T
        return float((passages @ question).mean()) - _noise(usual)

    @staticmethod
    def _of(vectors: Mapping[str, Vectors], language: str | None) -> Vectors:
        """The language's own, or English ones, which every model knows."""
        return vectors["en"] if language is None else vectors.get(language, vectors["en"])


async def calibration_of(embedder: Embedder) -> Calibration:
    """Return the model's calibration, measured on the probes unless it is known.

    Raises ModelUnavailable.
    """
    known = MEASURED.get(embedder.spec.model)
    if known is not None:
        return known
    probed = await probes_of(embedder)
    return calibrate(probed.questions, probed.passages)


async def probes_of(embedder: Embedder) -> Probed:
    """Return the probes' vectors, computed at the model's first use: 32 short texts.

    Two callers that arrive together compute them twice. Raises ModelUnavailable.
    """
    spec = embedder.spec
    if spec not in _probed:
        _probed[spec] = await _probe(embedder)
    return _probed[spec]


_probed: dict[EmbeddingSpec, Probed] = {}


async def _probe(embedder: Embedder) -> Probed:
    questions, passages = {}, {}
    for language in ("en", "ru"):
        asked = [await embedder.embed_query(probe.question[language]) for probe in PROBES]
        questions[language] = np.stack(asked)
        passages[language] = await embedder.embed_documents(
            [probe.passage[language] for probe in PROBES]
        )
    return Probed(questions=questions, passages=passages)


def calibrate(questions: Mapping[str, Vectors], passages: Mapping[str, Vectors]) -> Calibration:
    """Measure a model on the probes: vectors by language, row n of each being probe n.

    Each language is judged by itself, and the one the model is best at counts, so that an
    English-only model is judged by its English and gets no language gap.
    """
    own = {language: questions[language] @ passages[language].T for language in questions}
    spreads = {language: _hit(cosines) - _noise(cosines) for language, cosines in own.items()}
    widest = max(spreads.values())
    known = [language for language, spread in spreads.items() if spread >= widest / 2]
    noise = float(np.mean([_noise(own[language]) for language in known]))
    hit = float(np.mean([_hit(own[language]) for language in known]))
    foreign = [
        _noise(questions[asked] @ passages[told].T)
        for asked in known
        for told in known
        if asked != told
    ]
    gap = max(0.0, noise - float(np.mean(foreign))) if foreign else 0.0
    return Calibration(noise=noise, hit=hit, language_gap=gap)


def _hit(cosines: NDArray[np.float32]) -> float:
    return float(np.diagonal(cosines).mean())


def _noise(cosines: NDArray[np.float32]) -> float:
    unrelated = ~np.eye(len(cosines), dtype=bool)
    return float(cosines[unrelated].mean())


PROBES: Final[Sequence[Probe]] = (
    Probe(
        question={
            "en": "When was the lighthouse built?",
            "ru": "Когда построили маяк?",
        },
        passage={
            "en": "The lighthouse on the northern cape was built in 1874 and rebuilt after a storm "
            "ten years later.",
            "ru": "Маяк на северном мысе построили в 1874 году и восстановили после шторма десять "
            "лет спустя.",
        },
    ),
    Probe(
        question={
            "en": "How many employees does the company have?",
            "ru": "Сколько сотрудников в компании?",
        },
        passage={
            "en": "At the end of the year the company employed 412 people in three countries.",
            "ru": "На конец года в компании работали 412 человек в трёх странах.",
        },
    ),
    Probe(
        question={
            "en": "How do I reset my password?",
            "ru": "Как сбросить пароль?",
        },
        passage={
            "en": "To reset a forgotten password, choose Settings, then Security, and follow the "
            "link sent by e-mail.",
            "ru": "Чтобы сбросить забытый пароль, откройте «Настройки», затем «Безопасность» и "
            "перейдите по ссылке из письма.",
        },
    ),
    Probe(
        question={
            "en": "What causes the tides?",
            "ru": "Что вызывает приливы?",
        },
        passage={
            "en": "Tides are caused by the gravity of the Moon and, to a lesser degree, of the Sun "
            "acting on the oceans.",
            "ru": "Приливы вызывает притяжение Луны и, в меньшей степени, Солнца, которое "
            "действует на океаны.",
        },
    ),
    Probe(
        question={
            "en": "What is the notice period of the contract?",
            "ru": "Каков срок уведомления о расторжении договора?",
        },
        passage={
            "en": "Either party may end this contract in writing with a notice period of thirty "
            "days.",
            "ru": "Каждая из сторон может расторгнуть договор, письменно уведомив другую сторону "
            "за тридцать дней.",
        },
    ),
    Probe(
        question={
            "en": "Who wrote the first report on the river?",
            "ru": "Кто написал первый отчёт о реке?",
        },
        passage={
            "en": "The geologist Anna Lind wrote the first report on the river and its springs in "
            "1921.",
            "ru": "Первый отчёт о реке и её истоках написала в 1921 году геолог Анна Линд.",
        },
    ),
    Probe(
        question={
            "en": "At what temperature does the alloy melt?",
            "ru": "При какой температуре плавится сплав?",
        },
        passage={
            "en": "The alloy starts to melt at 183 degrees and is fully liquid at 190 degrees "
            "Celsius.",
            "ru": "Сплав начинает плавиться при 183 градусах и полностью становится жидким при 190 "
            "градусах Цельсия.",
        },
    ),
    Probe(
        question={
            "en": "Which port does the server listen on?",
            "ru": "Какой порт слушает сервер?",
        },
        passage={
            "en": "By default the server listens on port 8080; another one is set in the "
            "configuration file.",
            "ru": "По умолчанию сервер слушает порт 8080; другой задаётся в файле конфигурации.",
        },
    ),
)
