"""Plain text as paragraphs."""

from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling.plain import document_of_text, paragraphs


@given(st.text(alphabet="ab#*\n\r \t", max_size=60))
def test_paragraphs_keep_every_word_in_order(text: str) -> None:
    assert " ".join(paragraphs(text)).split() == text.split()


def test_line_breaks_inside_a_paragraph_stay() -> None:
    assert list(paragraphs("one\r\ntwo\n \n\nthree")) == ["one\ntwo", "three"]


def test_markdown_marks_are_left_alone() -> None:
    document = document_of_text("# not a heading\n\n* not a list", name="notes")
    assert [item.text for item in document.texts] == ["# not a heading", "* not a list"]
    assert {item.label.value for item in document.texts} == {"text"}
