from importlib.resources import files
from pathlib import Path

import pytest

from ragcore.adapters.postgres import sql

QUERY_FILES = sorted(
    file.name
    for file in files("ragcore.adapters.postgres").iterdir()
    if file.name.endswith(".sql") and file.name != "schema.sql"
)


@pytest.mark.parametrize("filename", QUERY_FILES)
def test_every_query_has_a_name_and_no_final_semicolon(filename: str) -> None:
    queries = sql.load(filename)
    assert queries
    assert all(query and not query.endswith(";") for query in queries.values())


@pytest.mark.parametrize("filename", QUERY_FILES)
def test_comments_hold_no_parameters(filename: str) -> None:
    """The driver would count a parameter in a comment, and the server would not find it."""
    comments = [
        line.partition("--")[2]
        for query in sql.load(filename).values()
        for line in query.splitlines()
    ]
    assert not [comment for comment in comments if "%(" in comment]


def test_a_name_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = "-- name: same\nSELECT 1;\n\n-- name: same\nSELECT 2;\n"
    (tmp_path / "twice.sql").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sql, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="'same'"):
        sql.load("twice.sql")


def test_what_stands_before_the_first_heading_is_a_comment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = "-- About.\n\n-- name: one\nSELECT 1;\n\n-- name: two\n-- Why.\nSELECT 2\n"
    (tmp_path / "some.sql").write_text(text, encoding="utf-8")
    monkeypatch.setattr(sql, "files", lambda package: tmp_path)
    assert sql.load("some.sql") == {"one": "SELECT 1", "two": "-- Why.\nSELECT 2"}
