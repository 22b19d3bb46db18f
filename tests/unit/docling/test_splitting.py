"""Cutting text and tables to a number of tokens."""

from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling.splitting import cells_of, split_table, split_text


def count(text: str) -> int:
    """Like a real tokenizer: several tokens a word, and less for a text than for its parts."""
    return sum(1 + len(word) // 4 for word in text.split()) + text.count("\n")


def pieces(text: str, room: int) -> list[str]:
    return [text[start:end] for start, end in split_text(text, room=room, count=count)]


TEXTS = st.lists(
    st.sampled_from(["Кот", "sat.", "on", "далеко!", "x" * 30, "\n", "\n\n", "—", "ж" * 200, "a,"]),
    max_size=120,
).map(" ".join)


@given(TEXTS, st.integers(4, 40))
def test_pieces_fit_and_together_are_the_text(text: str, room: int) -> None:
    found = pieces(text, room)
    assert all(count(piece) <= room for piece in found)
    assert "".join("".join(found).split()) == "".join(text.split())


@given(TEXTS, st.integers(4, 40))
def test_pieces_carry_no_white_space_at_their_ends(text: str, room: int) -> None:
    assert all(piece == piece.strip() and piece for piece in pieces(text, room))


def test_a_text_that_fits_stays_whole() -> None:
    assert pieces("One. Two.\n\nThree.", 50) == ["One. Two.\n\nThree."]


def test_cuts_fall_between_paragraphs_before_sentences_before_words() -> None:
    assert pieces("a b c.\n\nd e f.", 4) == ["a b c.", "d e f."]
    assert pieces("a b c. d e f.", 4) == ["a b c.", "d e f."]
    assert pieces("a b c d e f", 3) == ["a b c", "d e f"]


def test_a_word_of_megabytes_is_counted_in_pieces_only() -> None:
    longest = 0

    def watched(text: str) -> int:
        nonlocal longest
        longest = max(longest, len(text))
        return len(text)

    spans = split_text("x" * 1_000_000, room=100, count=watched)
    assert len(spans) == 10_000
    assert longest <= 1200


def table(rows: int, columns: int = 3) -> str:
    head = "| " + " | ".join(f"name{c}" for c in range(columns)) + " |\n"
    rule = "| " + " | ".join("-" for _ in range(columns)) + " |\n"
    body = ["| " + " | ".join(f"r{r}c{c}" for c in range(columns)) + " |" for r in range(rows)]
    return head + rule + "\n".join(body)


def test_a_cut_table_repeats_its_header() -> None:
    text = table(20)
    found = split_table(text, room=40, count=count)
    assert len(found) > 2
    header = text.splitlines()[:2]
    assert all(piece.splitlines()[:2] == header for piece in found)
    rows = [line for piece in found for line in piece.splitlines()[2:]]
    assert rows == text.splitlines()[2:]


def test_what_stands_above_a_table_comes_first() -> None:
    found = split_table("Table 1: tides.\n\n" + table(20), room=40, count=count)
    assert found[0] == "Table 1: tides."
    assert found[1].startswith("| name0")


def test_a_row_too_wide_for_its_header_becomes_named_values() -> None:
    found = split_table(table(1, columns=60), room=30, count=count)
    assert all(count(piece) <= 30 for piece in found)
    lines = [line for piece in found for line in piece.splitlines()]
    assert lines == [f"name{c}: r0c{c}" for c in range(60)]


def test_a_header_without_rows_is_kept() -> None:
    assert split_table(table(0), room=100, count=count) == [table(0).strip()]


@given(st.integers(0, 12), st.integers(1, 12), st.integers(12, 60))
def test_no_cell_of_a_table_is_lost(rows: int, columns: int, room: int) -> None:
    found = split_table(table(rows, columns), room=room, count=count)
    assert all(count(piece) <= room for piece in found)
    words = set(" ".join(found).replace("|", " ").replace(":", " ").split())
    assert {f"name{c}" for c in range(columns)} <= words
    assert {f"r{r}c{c}" for r in range(rows) for c in range(columns)} <= words


def test_escaped_bars_do_not_divide_cells() -> None:
    assert cells_of(r"| a \| b | c |") == [r"a \| b", "c"]
