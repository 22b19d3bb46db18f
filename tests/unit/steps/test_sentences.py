import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragcore.steps.sentences import sentence_spans


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


@pytest.mark.parametrize(
    "expected",
    [
        ["The ferry left.", "Nobody saw it!", "Did it return?"],
        ["Mr. Smith met Dr. Lee at 5 p.m. on Jan. 5.", "They talked."],
        ["It cost $3.50 (approx. 20 % of it).", '"Really?" he said.'],
        ["No. 5 is alive.", "No.", "I said so."],
        ["А. С. Пушкин родился в 1799 г. в Москве.", "Он жил на ул. Арбат, д. 53, г. Москва."],
        ["Построено в 1874 г.", "Маяк стоит до сих пор."],
        ["Цена 5 тыс. руб. за шт., т. е. дорого.", "См. рис. 3."],
        ["«Правда?» — спросил он.", "— Да!", "«Нет.»", "Он ушёл…", "И не вернулся."],
        ["これは文です。", "もう一つ。"],
    ],
)
def test_prose_is_split_where_a_reader_would(expected: list[str]) -> None:
    assert sentences(" ".join(expected)) == expected


def test_headings_items_and_rows_are_sentences_of_their_own() -> None:
    text = (
        "# Расписание\n\n- Понедельник\n- Вторник. Кроме мая.\n1. First\n2. Second\n\n"
        "| Line | Fare |\n|---|---|\n| 1. North | 12 |\nAfter the table."
    )
    assert sentences(text) == [
        "# Расписание",
        "- Понедельник",
        "- Вторник.",
        "Кроме мая.",
        "1. First",
        "2. Second",
        "| Line | Fare |",
        "|---|---|",
        "| 1. North | 12 |",
        "After the table.",
    ]


def test_a_line_break_inside_a_wrapped_paragraph_is_no_boundary() -> None:
    text = (
        "The northern line leaves the harbour at seven in the morning for New\n"
        "York and returns in\nthe evening. Tickets are sold on board."
    )
    assert len(sentences(text)) == 2


def test_a_sentence_that_never_ends_is_cut_at_a_space_to_stay_quotable() -> None:
    pieces = sentences("слово " * 500)
    assert all(len(piece) <= 600 for piece in pieces)
    assert all(piece.endswith("слово") for piece in pieces)


@pytest.mark.parametrize("piece", [".", "?! ", "a\n", "\n", "[1]", "(", "a.", "А. ", "| a "])
def test_a_hundred_thousand_of_anything_is_split_without_delay(piece: str) -> None:
    text = piece * (100_000 // len(piece))
    assert sum(end - start for start, end in sentence_spans(text)) <= len(text)


@given(st.text(st.sampled_from("abАя .!?…\n\t|-#1«»\"'()。。\u00a0"), max_size=300) | st.text())
@settings(deadline=None)
def test_spans_are_in_order_apart_and_hold_all_but_white_space(text: str) -> None:
    spans = sentence_spans(text)
    position = 0
    for start, end in spans:
        assert position <= start < end <= len(text)
        assert not text[position:start].strip()
        assert text[start:end] == text[start:end].strip()
        position = end
    assert not text[position:].strip()


@pytest.mark.parametrize("language", ["en", "ru"])
def test_hardly_any_answer_of_xquad_is_cut_in_two(language: str, shared_data: Path) -> None:
    articles = json.loads((shared_data / "xquad" / f"xquad.{language}.json").read_text("utf-8"))
    cut = 0
    for article in articles["data"]:
        for paragraph in article["paragraphs"]:
            spans = sentence_spans(paragraph["context"])
            for question in paragraph["qas"]:
                start = question["answers"][0]["answer_start"]
                end = start + len(question["answers"][0]["text"])
                cut += not any(first <= start and end <= last for first, last in spans)
    assert cut <= 2  # one answer in each language is longer than a sentence
