import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcore.steps.languages import detect, normalise_words, text_search_config


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("When does the ferry leave on Sundays?", "en"),
        ("Во сколько отходит паром по воскресеньям?", "ru"),
        ("Цена билета", "ru"),
        ("Wie geht es dir heute?", "de"),
        ("Quel est le prix du billet?", "fr"),
        ("Dzień dobry, gdzie jest dworzec?", "pl"),
        ("Къде е гарата?", "bg"),
        ("Скільки коштує її квиток і де її купити?", "uk"),
        ("時刻表はどこですか", "ja"),
        ("船什么时候开", "zh"),
    ],
)
def test_detects_the_language_of_a_question(text: str, language: str) -> None:
    assert detect(text) == language


def test_russian_text_full_of_latin_names_is_russian() -> None:
    text = "Параметр proxy_pass сервера nginx указывает upstream, см. https://example.org/docs"
    assert detect(text) == "ru"


@pytest.mark.parametrize("text", ["", " \n", "42", "3,14 — 2024", "№ 7"])
def test_text_without_words_has_no_language_of_its_own(text: str) -> None:
    assert detect(text) is None
    assert detect(text, hint="ru") == "ru"


def test_a_hint_settles_what_is_unclear_and_loses_against_clear_text() -> None:
    assert detect("FastAPI", hint="de") == "de"
    assert detect("The station was closed for the whole winter.", hint="de") == "en"


def test_a_long_text_is_judged_by_all_of_its_parts() -> None:
    text = "Overview\n" + "Станция работает круглый год, кроме двух недель в мае. " * 400
    assert detect(text) == "ru"


@pytest.mark.parametrize("language", ["en", "ru"])
def test_every_xquad_question_but_a_few_gets_its_language(language: str, shared_data: Path) -> None:
    articles = json.loads((shared_data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))
    questions = [
        question["question"]
        for article in articles["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    wrong = [question for question in questions if detect(question) != language]
    assert len(wrong) <= len(questions) // 200


@given(st.text())
@settings(deadline=None)
def test_any_text_has_a_language_or_none(text: str) -> None:
    language = detect(text)
    assert language is None or (len(language) == 2 and language.islower())


@pytest.mark.parametrize(
    ("language", "configuration"),
    [("ru", "russian"), ("en", "english"), ("de", "german"), ("uk", "simple"), (None, "simple")],
)
def test_a_language_names_its_text_search_configuration(
    language: str | None, configuration: str
) -> None:
    assert text_search_config(language) == configuration


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("ёлка", "елка"),
        ("Ёж", "Еж"),
        ("за\u0301мок", "замок"),
        ("пере\u00adнос", "перенос"),
        ("и\u0306од", "йод"),
        ("е\u0308лка", "елка"),
        ("cafe\u0301", "café"),
        ("café", "café"),
    ],
)
def test_spellings_of_one_word_become_one(written: str, read: str) -> None:
    assert normalise_words(written) == read


@given(st.text(st.sampled_from("её\u0308\u0301\u00adиЕa\u0306")))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert normalise_words(normalise_words(text)) == normalise_words(text)
