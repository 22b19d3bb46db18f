"""Levels of headings and repeated margins."""

from docling_core.types.doc import (
    BoundingBox,
    ContentLayer,
    DocItemLabel,
    DoclingDocument,
    ProvenanceItem,
    Size,
)
from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling.headings import drop_repeated_margins, levels, set_levels
from ragcore.adapters.docling.pages import OutlineEntry


def place(page: int, top: float) -> ProvenanceItem:
    box = BoundingBox(l=72, t=top, r=300, b=top + 12)
    return ProvenanceItem(page_no=page, bbox=box, charspan=(0, 1))


def document(pages: int) -> DoclingDocument:
    made = DoclingDocument(name="made")
    for number in range(1, pages + 1):
        made.add_page(page_no=number, size=Size(width=600, height=800))
    return made


def test_larger_letters_are_higher_headings() -> None:
    assert levels(["A", "B", "C", "B2"], [20.0, 14.0, 11.0, 14.0]) == [1, 2, 3, 2]


def test_among_letters_of_one_size_numbering_tells() -> None:
    assert levels(["1 Scope", "1.1 Aim", "2 Terms"], [12.0, 12.0, 12.0]) == [1, 2, 1]


def test_sizes_that_differ_by_a_hair_are_one_size() -> None:
    assert levels(["A", "B"], [12.0, 11.6]) == [1, 1]


@given(st.lists(st.tuples(st.sampled_from(["A", "1 B", "1.2 C", "1.2.3 D"]), st.floats(6, 40))))
def test_levels_stay_between_one_and_six(headings: list[tuple[str, float]]) -> None:
    found = levels([text for text, _ in headings], [size for _, size in headings])
    assert len(found) == len(headings)
    assert all(1 <= level <= 6 for level in found)


def test_a_bookmark_outweighs_the_size_of_the_letters() -> None:
    made = document(1)
    made.add_heading("Tides", prov=place(1, 100))
    made.add_heading("Ebb", prov=place(1, 200))
    set_levels(made, {(1, 72, 100): 12.0, (1, 72, 200): 12.0}, [OutlineEntry("Ebb", 3)])
    assert [item.level for item in made.texts] == [1, 3]  # type: ignore[union-attr]


def test_a_line_on_three_pages_is_a_page_header() -> None:
    made = document(4)
    for page in range(1, 5):
        made.add_text(DocItemLabel.TEXT, f"Harbour report, page {page}", prov=place(page, 30))
        made.add_text(DocItemLabel.TEXT, "The same words in the middle", prov=place(page, 400))
    made.add_text(DocItemLabel.TEXT, "A line at the top of one page", prov=place(2, 60))
    drop_repeated_margins(made)
    body = [item.text for item in made.texts if item.content_layer == ContentLayer.BODY]
    assert body == ["The same words in the middle"] * 4 + ["A line at the top of one page"]
