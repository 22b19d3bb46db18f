"""Layout by rules, on pages made of spans."""

from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling.rules import Block, Span, join_lines, lay_out, ruled_areas
from ragcore.adapters.docling.tables import grid_of
from ragcore.model import Box

PROSE = "The harbour master of Port Elverin records the tide every morning before dawn"


def line(text: str, top: float, *, left: float = 72, size: float = 10, **traits: bool) -> Span:
    return Span(left, top, left + len(text) * size * 0.5, top + size, text, **traits)


def labels(spans: list[Span]) -> list[tuple[str, str]]:
    return [(block.label, text_of(block)) for block in lay_out(spans, [], page_height=800)]


def text_of(block: Block) -> str:
    return " ".join(line.text for line in block.lines)


def prose(top: float, lines: int = 3) -> list[Span]:
    return [line(PROSE, top + 12 * number) for number in range(lines)]


def test_lines_of_a_paragraph_are_one_block() -> None:
    found = labels(prose(100) + prose(160))
    assert found == [("text", " ".join([PROSE] * 3))] * 2


def test_large_or_bold_short_lines_are_headings() -> None:
    spans = [line("Tides", 80, size=16), *prose(110), line("Ebb", 160, is_bold=True), *prose(175)]
    assert [found for found in labels(spans) if found[0] == "heading"] == [
        ("heading", "Tides"),
        ("heading", "Ebb"),
    ]


def test_a_bold_sentence_is_no_heading() -> None:
    spans = [*prose(100), line("Never sail at night.", 150, is_bold=True), *prose(170)]
    assert ("text", "Never sail at night.") in labels(spans)


def test_every_bullet_starts_an_item() -> None:
    spans = [*prose(60), line("• one apple", 120), line("• two pears", 132), line("3) plums", 144)]
    assert [label for label, _ in labels(spans)] == ["text", "list", "list", "list"]


def test_lines_with_leaders_are_no_headings() -> None:
    spans = [line("1 Tides ........... 4", 80, size=16), line("2 Ebb .......... 9", 100, size=16)]
    assert [label for label, _ in labels([*spans, *prose(200)])] == ["contents", "contents", "text"]


def test_numbers_in_the_margin_are_furniture_and_numbers_in_the_text_are_not() -> None:
    spans = [line("17", 100), *prose(120), line("Page 3 of 12", 770)]
    assert labels(spans)[0] == ("text", "17")
    assert labels(spans)[-1] == ("furniture", "Page 3 of 12")


def test_a_caption_is_told_by_its_first_words() -> None:
    spans = [*prose(80), line("Рис. 4. Схема порта", 130)]
    assert ("caption", "Рис. 4. Схема порта") in labels(spans)


def test_spaces_join_a_line_and_columns_do_not() -> None:
    row = [line("left", 80), line("word", 80, left=95), line("right column", 80, left=320)]
    assert [found.text for found in join_lines(row, body=10)] == ["left word", "right column"]


def rows(count: int, columns: int, *, top: float = 100) -> list[Span]:
    return [
        line(f"r{row}c{column}", top + 16 * row, left=72 + 120 * column)
        for row in range(count)
        for column in range(columns)
    ]


def test_rows_with_common_gaps_are_a_table() -> None:
    blocks = lay_out([*prose(40), *rows(4, 3)], [], page_height=800)
    assert [block.label for block in blocks] == ["table", "text"]
    assert len(blocks[0].spans) == 12


def test_prose_in_two_columns_is_no_table() -> None:
    spans = [line(PROSE[:45], 60 + 12 * n, left=left) for n in range(20) for left in (40, 320)]
    assert {block.label for block in lay_out(spans, [], page_height=800)} == {"text"}


def grid_lines(left: float, top: float, right: float, bottom: float, rows: int) -> list[Box]:
    step = (bottom - top) / rows
    horizontal = [(left, top + n * step, right, top + n * step) for n in range(rows + 1)]
    vertical = [(x, top, x, bottom) for x in (left, (left + right) / 2, right)]
    return [*horizontal, *vertical]


def test_crossing_rulings_make_one_area() -> None:
    rulings = grid_lines(70, 90, 300, 200, 3)
    assert ruled_areas(rulings) == [(70, 90, 300, 200)]
    assert ruled_areas(rulings[:4]) == []


def test_a_ruled_table_of_two_rows_is_found() -> None:
    rulings = grid_lines(70, 95, 312, 135, 2)
    blocks = lay_out([*rows(2, 2, top=100), *prose(300)], rulings, page_height=800)
    assert [block.label for block in blocks] == ["table", "text"]


def test_a_cell_of_several_lines_stays_one_cell_between_rulings() -> None:
    spans = [line("first", 100), line("line", 110), line("b", 105, left=200), line("c", 125)]
    grid = grid_of(spans, grid_lines(70, 95, 312, 139, 2), body=10)
    assert [(cell.row, cell.column, cell.text) for cell in grid.cells] == [
        (0, 0, "first line"),
        (0, 1, "b"),
        (1, 0, "c"),
    ]


def test_a_cell_over_two_columns_spans_them() -> None:
    wide = Span(72, 84, 310, 94, "a heading over two columns")
    grid = grid_of([wide, *rows(3, 2)], body=10)
    assert (grid.rows, grid.columns) == (4, 2)
    assert grid.cells[0].columns == 2


SPANS = st.lists(
    st.builds(
        lambda left, top, size, text, bold: Span(
            left, top, left + 4 + len(text) * size * 0.5, top + size, text, is_bold=bold
        ),
        st.floats(0, 500),
        st.floats(0, 780),
        st.sampled_from([8.0, 10.0, 10.0, 16.0]),
        st.sampled_from(["a", "17", "• b", "1. c", "word word", PROSE, ".....", " "]),
        st.booleans(),
    ),
    max_size=40,
)
BOXES = st.lists(
    st.tuples(st.floats(0, 600), st.floats(0, 800), st.floats(0, 600), st.floats(0, 800)).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
    ),
    max_size=20,
)


@given(SPANS, BOXES)
def test_every_visible_span_ends_in_exactly_one_block(
    spans: list[Span], rulings: list[Box]
) -> None:
    found = [id(span) for block in lay_out(spans, rulings, page_height=800) for span in block.spans]
    assert sorted(found) == sorted(id(span) for span in spans if span.text.strip())


@given(SPANS.filter(bool), BOXES)
def test_every_span_of_a_table_ends_in_exactly_one_cell(
    spans: list[Span], rulings: list[Box]
) -> None:
    grid = grid_of(spans, rulings, body=10)
    found = [id(span) for cell in grid.cells for span in cell.spans]
    assert sorted(found) == sorted(map(id, spans))
    assert all(cell.row < grid.rows for cell in grid.cells)
    assert all(cell.column + cell.columns <= grid.columns for cell in grid.cells)
    taken = [(c.row, c.column + reach) for c in grid.cells for reach in range(c.columns)]
    assert len(taken) == len(set(taken))
