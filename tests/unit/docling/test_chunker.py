"""Chunks of documents made on the spot."""

import re
from collections.abc import Callable

import pytest
from docling_core.types.doc import (
    BoundingBox,
    DocItemLabel,
    DoclingDocument,
    GroupLabel,
    ProvenanceItem,
    Size,
    TableCell,
    TableData,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragcore.adapters.docling.chunker import chunk_document, to_markdown
from ragcore.errors import InvalidInput
from ragcore.model import Chunk, Place

PROSE = "The harbour master records the tide. " * 12


def count(text: str) -> int:
    """Tokens as a model counts them: parts of words, and three for prefix, begin and end."""
    return 3 + sum(1 + len(word) // 5 for word in re.findall(r"\w+|[^\w\s]", text))


def chunks_of(document: DoclingDocument, max_tokens: int = 64, **options: str) -> list[Chunk]:
    return chunk_document(document, max_tokens=max_tokens, count_tokens=count, **options)  # type: ignore[arg-type]


def add_table(document: DoclingDocument, rows: list[list[str]]) -> None:
    cells = [
        TableCell(
            text=text,
            start_row_offset_idx=row,
            end_row_offset_idx=row + 1,
            start_col_offset_idx=column,
            end_col_offset_idx=column + 1,
            column_header=row == 0,
        )
        for row, texts in enumerate(rows)
        for column, text in enumerate(texts)
    ]
    data = TableData(table_cells=cells, num_rows=len(rows), num_cols=len(rows[0]))
    document.add_table(data=data)


def add_list(document: DoclingDocument, items: list[str]) -> None:
    parent = document.add_group(label=GroupLabel.LIST, name="list")
    for item in items:
        document.add_list_item(item, parent=parent)


# --- nothing lost, nothing too long --------------------------------------------------------

WORDS = st.sampled_from(["tide", "прилив", "2026", "Эльверин", "a", "harbourmaster", "ночь."])
TEXTS = st.lists(WORDS, min_size=1, max_size=60).map(" ".join)
ROWS = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.lists(WORDS, max_size=8).map(" ".join), min_size=columns, max_size=columns),
        min_size=1,
        max_size=8,
    )
)
Part = Callable[[DoclingDocument], object]
PARTS: st.SearchStrategy[Part] = st.one_of(
    st.tuples(TEXTS, st.integers(1, 4)).map(
        lambda part: lambda document: document.add_heading(part[0], level=part[1])
    ),
    TEXTS.map(lambda text: lambda document: document.add_text(DocItemLabel.TEXT, text)),
    TEXTS.map(lambda text: lambda document: document.add_code(text)),
    st.lists(TEXTS, min_size=1, max_size=6).map(
        lambda items: lambda document: add_list(document, items)
    ),
    ROWS.map(lambda rows: lambda document: add_table(document, rows)),
)


def made_of(parts: list[Part]) -> DoclingDocument:
    document = DoclingDocument(name="made")
    for part in parts:
        part(document)
    return document


def words_of(document: DoclingDocument) -> set[str]:
    texts = [item.text for item in document.texts]
    texts += [cell.text for table in document.tables for cell in table.data.table_cells]
    return set(" ".join(texts).split())


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(PARTS, max_size=10), st.integers(32, 120))
def test_every_word_is_kept_and_no_chunk_is_too_long(parts: list[Part], max_tokens: int) -> None:
    document = made_of(parts)
    chunks = chunks_of(document, max_tokens)
    assert all(chunk.tokens == count(chunk.embedding_text) <= max_tokens for chunk in chunks)
    kept = {word for chunk in chunks for word in chunk.text.replace(":", " ").split()}
    kept |= {word for chunk in chunks for text in chunk.headings for word in text.split()}
    assert words_of(document) <= kept


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(PARTS, max_size=8))
def test_the_same_document_gives_the_same_chunks(parts: list[Part]) -> None:
    assert chunks_of(made_of(parts), seed="a") == chunks_of(made_of(parts), seed="a")


def test_a_heading_longer_than_the_limit_is_embedded_all_the_same() -> None:
    document = DoclingDocument(name="made")
    heading = " ".join(f"word{number}" for number in range(200))
    document.add_heading(heading)
    document.add_text(DocItemLabel.TEXT, "The text.")
    chunks = chunks_of(document)
    embedded = " ".join(chunk.embedding_text for chunk in chunks)
    assert set(heading.split()) <= set(embedded.split())
    assert any("The text." in chunk.text for chunk in chunks)
    assert all(chunk.tokens <= 64 for chunk in chunks)


def test_a_word_of_megabytes_is_cut() -> None:
    document = DoclingDocument(name="made")
    document.add_text(DocItemLabel.TEXT, "x" * 300_000)
    chunks = chunks_of(document, 384)
    assert "".join(chunk.text for chunk in chunks) == "x" * 300_000


def test_a_limit_without_room_for_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="max_tokens=10"):
        chunks_of(DoclingDocument(name="made"), 10)


# --- structure -----------------------------------------------------------------------------


def test_headings_are_embedded_before_the_text_and_not_part_of_it() -> None:
    document = DoclingDocument(name="made")
    document.add_heading("Port", level=1)
    document.add_heading("Tides", level=2)
    document.add_text(DocItemLabel.TEXT, "High at noon.")
    (chunk,) = chunks_of(document)
    assert chunk.headings == ("Port", "Tides")
    assert chunk.text == "High at noon."
    assert chunk.embedding_text == "Port\nTides\nHigh at noon."


def test_a_section_without_text_is_a_chunk_of_its_heading() -> None:
    document = DoclingDocument(name="made")
    document.add_heading("Empty section")
    document.add_heading("Another")
    assert [chunk.text for chunk in chunks_of(document)] == ["Empty section", "Another"]


def test_small_neighbours_under_one_heading_are_one_chunk() -> None:
    document = DoclingDocument(name="made")
    for heading in ("A", "B"):
        document.add_heading(heading)
        for number in range(3):
            document.add_text(DocItemLabel.TEXT, f"Sentence {number}.")
    assert [chunk.headings for chunk in chunks_of(document)] == [("A",), ("B",)]


def test_a_long_table_repeats_its_header() -> None:
    document = DoclingDocument(name="made")
    add_table(document, [["Port", "Tide"], *([f"port{n}", f"tide{n}"] for n in range(40))])
    chunks = chunks_of(document)
    assert len(chunks) > 2
    assert all(chunk.text.startswith("| Port | Tide |\n| - | - |\n") for chunk in chunks)


def test_nuls_and_broken_surrogates_do_not_come_through() -> None:
    document = DoclingDocument(name="made")
    document.add_text(DocItemLabel.TEXT, "a\x00b \ud83d c")
    (chunk,) = chunks_of(document)
    assert chunk.text == "ab ? c"


# --- identity ------------------------------------------------------------------------------


def test_ids_differ_between_documents_and_within_one() -> None:
    document = DoclingDocument(name="made")
    for _ in range(6):
        document.add_text(DocItemLabel.TEXT, PROSE)
    ids = [chunk.chunk_id for seed in ("a", "b") for chunk in chunks_of(document, seed=seed)]
    assert len(set(ids)) == len(ids)


def test_chunks_tell_their_language() -> None:
    document = DoclingDocument(name="made")
    document.add_heading("Port")
    document.add_text(DocItemLabel.TEXT, "The harbour master records the tide every morning.")
    document.add_heading("Порт")
    document.add_text(DocItemLabel.TEXT, "Начальник порта каждое утро записывает прилив.")
    assert [chunk.language for chunk in chunks_of(document)] == ["en", "ru"]


# --- where it stands -----------------------------------------------------------------------


def paged(width: float = 600, height: float = 800, pages: int = 2) -> DoclingDocument:
    document = DoclingDocument(name="made")
    for number in range(1, pages + 1):
        document.add_page(page_no=number, size=Size(width=width, height=height))
    return document


def place(page: int, top: float, bottom: float, length: int = 1) -> ProvenanceItem:
    from docling_core.types.doc import CoordOrigin

    box = BoundingBox(l=72, t=800 - top, r=300, b=800 - bottom, coord_origin=CoordOrigin.BOTTOMLEFT)
    return ProvenanceItem(page_no=page, bbox=box, charspan=(0, length))


def test_places_are_boxes_from_the_top_one_a_page() -> None:
    document = paged()
    document.add_text(DocItemLabel.TEXT, "One.", prov=place(1, 100, 112))
    document.add_text(DocItemLabel.TEXT, "Two.", prov=place(1, 120, 150))
    document.add_text(DocItemLabel.TEXT, "Three.", prov=place(2, 80, 92))
    (chunk,) = chunks_of(document)
    assert chunk.places == (Place(1, (72, 100, 300, 150)), Place(2, (72, 80, 300, 92)))
    assert chunk.elements == ("#/texts/0", "#/texts/1", "#/texts/2")


def test_a_paragraph_over_two_pages_is_cited_on_the_page_of_each_part() -> None:
    document = paged()
    first, second = "alpha " * 60, "omega " * 60
    item = document.add_text(
        DocItemLabel.TEXT, (first + second).strip(), prov=place(1, 700, 780, len(first) - 1)
    )
    item.prov.append(place(2, 20, 90, len(second) - 1))
    chunks = chunks_of(document)
    assert chunks[0].page == 1
    assert chunks[-1].page == 2
    assert [place.page for place in chunks[0].places] == [1]


def test_slides_are_measured_in_points() -> None:
    document = paged(width=12_192_000, height=6_858_000, pages=1)
    box = BoundingBox(l=1_270_000, t=127_000, r=2_540_000, b=254_000)
    prov = ProvenanceItem(page_no=1, bbox=box, charspan=(0, 1))
    document.add_text(DocItemLabel.TEXT, "One.", prov=prov)
    assert chunks_of(document)[0].places == (Place(1, (100, 10, 200, 20)),)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(PARTS, max_size=8))
def test_spans_point_at_the_same_words_in_the_markdown(parts: list[Part]) -> None:
    document = made_of(parts)
    markdown = to_markdown(document)
    chunks = chunks_of(document, markdown=markdown)
    spans = [(chunk.start, chunk.end) for chunk in chunks if chunk.start is not None]
    for chunk in chunks:
        if chunk.start is not None:
            assert markdown[chunk.start : chunk.end].split() == chunk.text.split()
    assert spans == sorted(spans)


def test_prose_is_found_in_the_markdown() -> None:
    document = DoclingDocument(name="made")
    document.add_heading("Tides")
    document.add_text(DocItemLabel.TEXT, PROSE)
    add_list(document, ["one", "two"])
    chunks = chunks_of(document, markdown=to_markdown(document))
    assert len(chunks) > 1
    assert all(chunk.start is not None for chunk in chunks)
