"""Text → language → PostgreSQL text-search configuration.

Languages are ISO 639-1 codes. The script narrows the choice, letters that an alphabet lacks speak
against its languages, a naive Bayes model (py3langid) settles the rest, and Russian and English,
which most text here is in, win where the model can't tell.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from threading import Lock
from typing import Any, Final

_CONFIGURATIONS: Final[Mapping[str, str]] = {
    "ar": "arabic",
    "ca": "catalan",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "eu": "basque",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
    "yi": "yiddish",
}
"""The configurations that every PostgreSQL from 15 on ships."""

_SAMPLE_CHARACTERS: Final = 1500
"""Enough for certainty; longer texts are sampled from their beginning, middle and end."""

_LEAST_LETTERS: Final = 3
_LEAST_PROBABILITY: Final = 0.35
_SURE_PROBABILITY: Final = 0.75
"""From here on a detected language outweighs a hint."""

_CYRILLIC_SHARE: Final = 0.25
"""Cyrillic text about software is half Latin names; Latin text is never a quarter Cyrillic."""

_PRIOR: Final[Mapping[str, float]] = {"ru": 12.0, "en": 4.0}

_LANGUAGE_OF_SCRIPT: Final[Mapping[str, str]] = {
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HANGUL": "ko",
    "CJK": "zh",
    "GREEK": "el",
    "HEBREW": "he",
    "ARMENIAN": "hy",
    "GEORGIAN": "ka",
    "TAMIL": "ta",
    "THAI": "th",
}


def _codes(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_LANGUAGES_OF_SCRIPT: Final[Mapping[str, frozenset[str]]] = {
    "LATIN": _codes(
        "ca cs da de en es et eu fi fr ga hr hu id it lt lv nl no pl pt ro sk sl sv tr vi"
    ),
    "CYRILLIC": _codes("be bg kk ky mk mn ru sr tg tt uk"),
    "ARABIC": _codes("ar fa ur"),
    "DEVANAGARI": _codes("hi mr ne"),
}

_COMMON_CYRILLIC: Final = frozenset("абвгдежзиклмнопрстуфхцчш")
_OTHER_CYRILLIC: Final[Mapping[str, frozenset[str]]] = {
    "be": frozenset("ёійўыьэюя"),
    "bg": frozenset("йщъьюя"),
    "mk": frozenset("ѓјѕљњќџ"),
    "ru": frozenset("ёйщъыьэюя"),
    "sr": frozenset("ђјљњћџ"),
    "uk": frozenset("ґєіїйщьюя"),
}
"""What each alphabet adds to the common letters; alphabets not listed rule nothing out."""

_FOREIGN_LETTER_PENALTY: Final = 0.05
_URL = re.compile(r"\b(?:https?://|www\.)\S+")


def detect(text: str, *, hint: str | None = None) -> str | None:
    """Return the ISO 639-1 code of the language most of `text` is in, None when it can't be told.

    `hint` is what is known beforehand (the document's or collection's language): it is returned
    when the text holds no words or speaks no clear language, and loses against clear text. About
    0.2 ms; the first call loads the model (about half a second), so make it off the event loop.
    """
    sample = _sample(_URL.sub(" ", text))
    script = _main_script(sample)
    if script is None:
        return hint
    if language := _LANGUAGE_OF_SCRIPT.get(script):
        return language
    if script not in _LANGUAGES_OF_SCRIPT:
        return hint
    language, probability = _most_probable(sample, script)
    if probability >= (_LEAST_PROBABILITY if hint is None else _SURE_PROBABILITY):
        return language
    return hint


def text_search_config(language: str | None) -> str:
    """Return the name of PostgreSQL's text-search configuration for an ISO 639-1 code.

    `simple` (no stemming, no stop words) for languages that PostgreSQL has none for, and for None.
    """
    return _CONFIGURATIONS.get(language or "", "simple")


def normalise_words(text: str) -> str:
    """Return `text` as keyword search reads it, on both sides: spellings of one word made one.

    ё becomes е, stress marks and soft hyphens go, and letters that PDF files store as letter and
    accent are joined. Idempotent; not for display, offsets change.
    """
    composed = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", composed.translate(_ONE_SPELLING))


_STRESS_MARK, _LOOSE_DIAERESIS = "\N{COMBINING ACUTE ACCENT}", "\N{COMBINING DIAERESIS}"
_INVISIBLE: Final = "\N{SOFT HYPHEN}\N{ZERO WIDTH SPACE}\N{ZERO WIDTH NO-BREAK SPACE}"
_ONE_SPELLING: Final = str.maketrans("ёЁ", "еЕ", _STRESS_MARK + _LOOSE_DIAERESIS + _INVISIBLE)
"""Applied to composed text, where an accent that belongs to its letter (é) is no longer loose."""


def _sample(text: str) -> str:
    if len(text) <= _SAMPLE_CHARACTERS:
        return text
    part = _SAMPLE_CHARACTERS // 3
    middle = len(text) // 2
    return " ".join((text[:part], text[middle : middle + part], text[-part:]))


def _main_script(text: str) -> str | None:
    counts = Counter(_script(letter) for letter in text if letter.isalpha())
    letters = counts.total()
    if letters < _LEAST_LETTERS:
        return None
    if counts["CYRILLIC"] >= _CYRILLIC_SHARE * letters:
        return "CYRILLIC"
    if counts["HIRAGANA"] + counts["KATAKANA"] > 0.1 * letters:  # Japanese is mostly Han otherwise
        return "HIRAGANA"
    return counts.most_common(1)[0][0]


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "UNNAMED").split()[0]


def _most_probable(text: str, script: str) -> tuple[str, float]:
    allowed = _LANGUAGES_OF_SCRIPT[script]
    letters = frozenset(letter for letter in text.lower() if _script(letter) == script)
    weights = {
        language: probability * _PRIOR.get(language, 1.0) * _alphabet_weight(language, letters)
        for language, probability in _identifier().rank(text)
        if language in allowed
    }
    best = max(weights, key=weights.__getitem__)
    total = sum(weights.values())
    return best, weights[best] / total if total > 0 else 0.0


def _alphabet_weight(language: str, letters: frozenset[str]) -> float:
    alphabet = _OTHER_CYRILLIC.get(language)
    if alphabet is None:
        return 1.0
    foreign = len(letters - alphabet - _COMMON_CYRILLIC)
    return _FOREIGN_LETTER_PENALTY**foreign


_loading = Lock()


def _identifier() -> Any:
    with _loading:  # two threads that start together must not unpack the model twice
        return _load_identifier()


@lru_cache(maxsize=1)
def _load_identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
