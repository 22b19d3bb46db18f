from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from ragcore.model import Passage, Place
from ragcore.steps.citing import (
    Markers,
    believed_text,
    check_citations,
    cite,
    is_supported,
    judged_sentences,
    quote_span,
)

LIGHTHOUSE = Passage(
    chunk_id="c1",
    document_id="d1",
    collection="default",
    ordinal=0,
    text="The island is small. The lighthouse was built in 1874 by Anna Lind. It is 31 m high.",
    score=0.9,
    title="Guide",
    headings=("History",),
    places=(Place(3, (72.0, 96.5, 540.0, 180.2)),),
    language="en",
)
FERRY = Passage(
    chunk_id="c2",
    document_id="d2",
    collection="default",
    ordinal=4,
    text="Паром отходит в 7:30. Билет стоит 1 250 рублей.",
    score=0.7,
    language="ru",
)
PASSAGES = (LIGHTHOUSE, FERRY)


def test_a_citation_quotes_the_sentence_that_bears_out_the_answer() -> None:
    checked = check_citations("The lighthouse was built in 1874 [1].", PASSAGES)
    (citation,) = checked.citations
    assert citation.quote == "The lighthouse was built in 1874 by Anna Lind."
    assert LIGHTHOUSE.text[citation.start : citation.end] == citation.quote
    assert citation.supported
    assert (citation.page, citation.bbox) == (3, (72.0, 96.5, 540.0, 180.2))
    assert (citation.title, citation.headings, citation.score) == ("Guide", ("History",), 0.9)


def test_a_quote_stands_on_the_page_its_part_of_the_passage_is_on() -> None:
    first = Place(3, (72.0, 600.0, 540.0, 780.0))
    second = Place(4, (72.0, 72.0, 540.0, 132.0))
    over_a_page = replace(LIGHTHOUSE, places=(first, second))
    end = len(over_a_page.text)
    assert cite(over_a_page, marker=1, start=0, end=20).page == 3
    assert cite(over_a_page, marker=1, start=end // 2, end=end // 2 + 5).bbox == first.box
    assert cite(over_a_page, marker=1, start=end - 20, end=end).page == 4
    assert cite(replace(over_a_page, places=()), marker=1, start=0, end=5).page is None


def test_markers_that_point_nowhere_are_removed() -> None:
    checked = check_citations("Built in 1874 [1][7]. Nobody knows [0].", PASSAGES)
    assert checked.text == "Built in 1874 [1]. Nobody knows."
    assert checked.removed == ("[7]", "[0]")
    assert [citation.marker for citation in checked.citations] == [1]


def test_the_ways_models_write_markers_become_one() -> None:
    checked = check_citations("Yes【1】. No [^2]. Both [1, 2]. All [1-2].", PASSAGES)
    assert checked.text == "Yes [1]. No [2]. Both [1][2]. All [1][2]."


def test_a_marker_after_the_full_stop_belongs_to_the_sentence_before_it() -> None:
    checked = check_citations("It was built in 1874. [1] Билет стоит 1 250 рублей. [2]", PASSAGES)
    first, second = checked.citations
    assert "1874" in first.quote
    assert second.quote == "Билет стоит 1 250 рублей."
    assert first.supported
    assert second.supported


def test_a_wrong_number_or_name_is_not_supported() -> None:
    assert is_supported("Anna Lind built the lighthouse in 1874.", LIGHTHOUSE)
    assert not is_supported("Anna Lind built the lighthouse in 1875.", LIGHTHOUSE)
    assert not is_supported("The lighthouse was built by Peter Berg in 1874.", LIGHTHOUSE)
    assert not is_supported("The lighthouse has a famous kitchen garden and museum.", LIGHTHOUSE)


def test_words_of_another_language_support_nothing_but_what_is_written_alike() -> None:
    assert not is_supported("Маяк построили в прошлом столетии на острове.", LIGHTHOUSE)
    assert is_supported("Маяк построили в 1874 году, это известно точно.", LIGHTHOUSE)


def test_a_marker_used_twice_has_a_citation_for_each_quote() -> None:
    text = "The lighthouse was built in 1874 [1]. It is 31 m high [1]. It is 31 m high [1]."
    quotes = [citation.quote for citation in check_citations(text, PASSAGES).citations]
    assert quotes == ["The lighthouse was built in 1874 by Anna Lind.", "It is 31 m high."]


answers = st.lists(
    st.sampled_from(
        ["Built in 1874", " [1]", "[2]", "[9]", ". ", "!", "\n", "[1, 3]", " паром", "["]
    )
).map("".join)


@given(answers)
@settings(deadline=None)
def test_every_marker_left_points_at_a_passage_and_every_quote_stands_there(text: str) -> None:
    checked = check_citations(text, PASSAGES)
    for citation in checked.citations:
        passage = PASSAGES[citation.marker - 1]
        assert citation.chunk_id == passage.chunk_id
        assert passage.text[citation.start : citation.end] == citation.quote
        assert f"[{citation.marker}]" in checked.text
    assert check_citations(checked.text + ".", PASSAGES).removed == ()


@given(st.text(), st.text())
@settings(deadline=None)
def test_a_quote_span_lies_in_the_text(sentence: str, text: str) -> None:
    start, end = quote_span(sentence, text)
    assert 0 <= start <= end <= len(text)


# --- while it is written ---------------------------------------------------------------------

_MARKED = st.text(alphabet="a .\n[]【】^0123459,-", max_size=40)


@given(st.lists(_MARKED, max_size=8))
@settings(deadline=None)
def test_a_text_reads_the_same_however_it_is_cut_into_pieces(pieces: list[str]) -> None:
    markers, whole = Markers(4), Markers(4)
    told = "".join([*map(markers.feed, pieces), markers.end()])
    assert told == whole.feed("".join(pieces)) + whole.end()
    assert told == told.strip()
    assert markers.removed == whole.removed


def test_half_a_marker_is_never_told() -> None:
    markers = Markers(2)
    pieces = ["It is white ", "[", "1", ", ", "7", "]", ".", " Tall", " [", "2"]
    told = [markers.feed(piece) for piece in pieces]
    assert told == ["It is white", "", "", "", "", " [1]", ".", " Tall", "", ""]
    assert markers.end() == ""
    assert markers.removed == ["[7]", "[2"]


def test_brackets_that_are_no_markers_are_told() -> None:
    markers = Markers(2)
    assert markers.feed("In [") == "In"
    assert markers.feed("1874") == " [1874"
    assert markers.feed("] a[") == "] a"
    assert markers.end() == "["


# --- what can be believed --------------------------------------------------------------------


def test_sentences_are_believed_by_what_their_passages_say() -> None:
    text = (
        "The lighthouse was built in 1874 [1]. It is 99 m high [1]. The island is small. "
        "Dragons live there. The passages do not say who painted it [1]."
    )
    judged = judged_sentences(text, PASSAGES)
    assert [(one.markers, one.is_supported, one.is_declining) for one in judged] == [
        ((1,), True, False),
        ((1,), False, False),
        ((), True, False),  # by a passage that it forgot to cite
        ((), False, False),
        ((1,), False, True),
    ]
    assert believed_text(text, judged) == (
        "The lighthouse was built in 1874 [1]. The island is small. "
        "The passages do not say who painted it [1]."
    )


def test_declining_is_recognised_in_both_languages() -> None:
    for text in (
        "The passages don't mention the builder.",
        "I can't find this in the documents.",
        "There is no information about that.",
        "The date is not mentioned.",
        "Во фрагментах нет ответа на этот вопрос.",
        "Документы не содержат сведений об этом.",
        "В тексте не указано, кто его построил.",
    ):
        (judged,) = judged_sentences(text, PASSAGES)
        assert judged.is_declining, text


def test_a_document_that_says_so_itself_is_quoted() -> None:
    source = replace(FERRY, text="The document does not contain a warranty.", language="en")
    (judged,) = judged_sentences("The document does not contain a warranty [1].", [source])
    assert judged.is_supported and not judged.is_declining
