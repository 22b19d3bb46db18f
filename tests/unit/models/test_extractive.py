"""The extractive answerer with the real bundled model: what it quotes is what a reader sees."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.extractive import ExtractiveAnswerer, declined_text
from ragcore.model import Passage, Place
from ragcore.testing.memory.embedder import MemoryEmbedder

GUIDE = Passage(
    chunk_id="guide-1",
    document_id="guide",
    collection="default",
    ordinal=0,
    text="The island is small and green. The lighthouse on the northern cape was built in 1874. "
    "It is painted white every spring. Seals rest on the rocks below.",
    score=0.9,
    title="Guide to the island",
    headings=("History",),
    places=(Place(3, (72.0, 96.5, 540.0, 180.2)),),
    language="en",
)
FARES = Passage(
    chunk_id="fares-1",
    document_id="fares",
    collection="default",
    ordinal=0,
    text="Tickets are sold on board.\n\n| Line | Adult fare | Dogs |\n|---|---|---|\n"
    "| North line | 12 euros | free |\n| South line | 9 euros | not allowed |",
    score=0.8,
    language="en",
)
ПРАВИЛА = Passage(
    chunk_id="rules-1",
    document_id="rules",
    collection="default",
    ordinal=2,
    text="Паром отходит из гавани каждое утро в 7:30. Зимой, т. е. с ноября по март, рейсов нет. "
    "Собаки перевозятся бесплатно.",
    score=0.7,
    places=(Place(1),),
    language="ru",
)
PASSAGES = (GUIDE, FARES, ПРАВИЛА)


@pytest.fixture(scope="module")
def answerer() -> ExtractiveAnswerer:
    return ExtractiveAnswerer(BundledEmbedder())


async def test_an_answer_is_a_sentence_of_a_passage_with_its_place(
    answerer: ExtractiveAnswerer,
) -> None:
    answer = await answerer.answer("When was the lighthouse built?", PASSAGES)
    quote = "The lighthouse on the northern cape was built in 1874."
    assert answer.text.startswith(f"{quote} [1]")
    first = answer.citations[0]
    assert (first.quote, GUIDE.text[first.start : first.end]) == (quote, quote)
    assert (first.page, first.bbox) == (3, (72.0, 96.5, 540.0, 180.2))
    assert (first.marker, first.supported, first.title) == (1, True, "Guide to the island")
    assert answer.no_answer_reason is None
    assert (answer.generator, answer.passages) == ("extractive", PASSAGES)


async def test_a_russian_question_is_answered_from_russian_text(
    answerer: ExtractiveAnswerer,
) -> None:
    answer = await answerer.answer("Во сколько отходит паром?", PASSAGES)
    assert "7:30" in answer.text
    assert answer.citations[0].chunk_id == "rules-1"


async def test_a_question_is_answered_in_another_language_when_only_that_has_it(
    answerer: ExtractiveAnswerer,
) -> None:
    answer = await answerer.answer("В каком году был построен маяк на северном мысе?", [GUIDE])
    assert "1874" in answer.text


async def test_a_row_of_a_table_is_told_with_its_column_names(
    answerer: ExtractiveAnswerer,
) -> None:
    answer = await answerer.answer("What is the adult fare of the south line?", PASSAGES)
    assert "Line: South line; Adult fare: 9 euros; Dogs: not allowed [1]" in answer.text
    assert answer.citations[0].quote == "| South line | 9 euros | not allowed |"


@pytest.mark.parametrize(
    "question",
    [
        "How do I bake sourdough bread at home?",
        "What is the capital gains tax rate in Estonia?",
        "asdf qwer zxcv",
        "Как испечь хлеб на закваске?",
        "Какова ставка налога на прибыль в Эстонии?",
        "ываф йцук ячсм",
    ],
)
async def test_a_question_the_passages_do_not_answer_is_declined(
    answerer: ExtractiveAnswerer, question: str
) -> None:
    answer = await answerer.answer(question, PASSAGES)
    assert answer.no_answer_reason in ("no_relevant_passages", "not_in_passages")
    assert answer.citations == ()
    is_russian = any("а" <= letter <= "я" for letter in question.lower())
    assert any("а" <= letter <= "я" for letter in answer.text.lower()) == is_russian


async def test_no_passages_are_no_documents(answerer: ExtractiveAnswerer) -> None:
    answer = await answerer.answer("Когда построен маяк?", [])
    assert answer.no_answer_reason == "no_documents"
    assert answer.text == declined_text("no_documents", "ru")


async def test_passages_without_a_sentence_are_declined(answerer: ExtractiveAnswerer) -> None:
    rule = Passage("r", "d", "default", 0, "|---|---|\n— … —")
    answer = await answerer.answer("When was it built?", [rule])
    assert answer.no_answer_reason == "no_relevant_passages"


async def test_the_heading_of_a_passage_says_what_its_sentences_are_about(
    answerer: ExtractiveAnswerer,
) -> None:
    hours = Passage(
        "h",
        "d",
        "default",
        0,
        "Daily from 9 to 18.",
        headings=("Museum opening hours",),
        language="en",
    )
    answer = await answerer.answer("What are the opening hours of the museum?", [hours])
    assert answer.citations[0].quote == "Daily from 9 to 18."


async def test_markup_is_left_out_of_the_answer_and_kept_in_the_quote(
    answerer: ExtractiveAnswerer,
) -> None:
    item = Passage("i", "d", "default", 0, "- The **lighthouse** was built in 1874.", language="en")
    answer = await answerer.answer("When was the lighthouse built?", [item])
    assert answer.text == "The lighthouse was built in 1874. [1]"
    assert answer.citations[0].quote == item.text


texts = st.lists(
    st.sampled_from(
        ["The ferry", " leaves", " at seven", ". ", "\n", "| a | ferry |", "# ", "Паром"]
    ),
    max_size=20,
).map("".join)


@given(st.lists(texts, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
async def test_every_quote_stands_where_it_says_and_every_marker_has_one(
    passages: list[str],
) -> None:
    found = [Passage(f"c{n}", "d", "default", n, text) for n, text in enumerate(passages)]
    answer = await ExtractiveAnswerer(MemoryEmbedder()).answer("When does the ferry leave?", found)
    by_id = {passage.chunk_id: passage for passage in found}
    for citation in answer.citations:
        text = by_id[citation.chunk_id].text
        assert text[citation.start : citation.end] == citation.quote
        assert f"[{citation.marker}]" in answer.text
    assert (answer.no_answer_reason is None) == bool(answer.citations)
    assert len(answer.citations) <= 3


@pytest.mark.parametrize(
    "scrap",
    [
        '{"message": "Hello World"}',
        "<span style='color:red'>INFO</span> /home/user/code/app",
        "`/home/user/code/awesomeapp`",
        "app = FastAPI(title=name)",
        "INFO Will watch for changes in these directories:",
        "Logs",
    ],
)
async def test_code_markup_and_lead_ins_answer_nothing(
    answerer: ExtractiveAnswerer, scrap: str
) -> None:
    passage = replace(GUIDE, text=scrap, language="en")
    answer = await answerer.answer("Сколько ног у паука?", [passage])
    assert answer.no_answer_reason is not None


async def test_markup_around_a_sentence_is_not_shown(answerer: ExtractiveAnswerer) -> None:
    text = '<img src="/a.svg"> The [ferry](/ferry.html) leaves at 7:30. { #times }'
    passage = replace(GUIDE, text=text, language="en")
    answer = await answerer.answer("When does the ferry leave?", [passage])
    assert answer.text.startswith("The ferry leaves at 7:30.")


async def test_sentences_are_chosen_by_their_words_while_the_model_is_away() -> None:
    answerer = ExtractiveAnswerer(MemoryEmbedder(failures=99))
    answer = await answerer.answer("When was the lighthouse on the cape built?", PASSAGES)
    assert answer.citations[0].quote.endswith("built in 1874.")
    assert "by their words alone" in answer.warnings[0]
    declined = await answerer.answer("How do I bake sourdough bread?", PASSAGES)
    assert declined.no_answer_reason is not None
