from ragcore.flows.reindex import drawn_questions
from ragcore.model import Passage


def passage(number: int, text: str, *headings: str) -> Passage:
    return Passage(
        chunk_id=f"c{number}",
        document_id=f"d{number}",
        collection="a",
        ordinal=0,
        text=text,
        headings=headings,
    )


def test_headings_and_first_sentences_are_asked_in_turns() -> None:
    sample = [
        passage(1, "The ferry leaves at noon. It is late.", "Ferries", "Winter timetable"),
        passage(2, "Маяк зажгли осенью. Горит.", "История маяка"),
    ]
    assert list(drawn_questions(sample, most=20).items()) == [
        ("Winter timetable", "d1"),
        ("The ferry leaves at noon.", "d1"),
        ("История маяка", "d2"),
        ("Маяк зажгли осенью.", "d2"),
    ]
    assert len(drawn_questions(sample, most=3)) == 3


def test_what_is_no_question_is_left_out() -> None:
    """Numbers, single words and the same heading twice."""
    sample = [
        passage(1, "12 34 56", "Introduction"),
        passage(2, "", "Opening hours"),
        passage(3, "   ", "Opening   hours"),
    ]
    assert drawn_questions(sample, most=20) == {"Opening hours": "d2"}


def test_a_long_sentence_is_cut() -> None:
    (question,) = drawn_questions([passage(1, "word " * 200)], most=20)
    assert len(question) <= 300


def test_nothing_is_drawn_of_nothing() -> None:
    assert drawn_questions([], most=20) == {}
