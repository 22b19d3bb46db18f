"""How a passage's place is put into words."""

import pytest

from ragcore.cli.search import _place_of
from ragcore.model import Passage


def passage(**fields: object) -> Passage:
    given = {"chunk_id": "c", "document_id": "d", "collection": "x", "ordinal": 0, "text": "t"}
    return Passage(**(given | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "page", "place"),
    [
        (passage(title="Отчёт", headings=("Итоги", "Доход")), 3, "Отчёт · page 3 · Итоги › Доход"),
        (passage(title="Report", headings=("Report", "Income")), None, "Report · Income"),
        (passage(uri="file:///tmp/%D0%BB%D0%BE%D0%B3.txt"), None, "лог.txt"),
        (passage(), None, "d"),
    ],
)
def test_a_place_names_what_is_known_once(found: Passage, page: int | None, place: str) -> None:
    assert _place_of(found, page) == place
