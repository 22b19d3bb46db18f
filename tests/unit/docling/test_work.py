"""What a child tells about a document besides its text."""

import pytest

from ragcore.adapters.docling.work import main_language, storable, title_of
from ragcore.model import Chunk


def chunk(text: str, language: str | None) -> Chunk:
    return Chunk("id", 0, text, text, 1, language=language)


@pytest.mark.parametrize(
    ("filename", "title"),
    [
        ("отчёт за 2024 год — итоги.txt", "отчёт за 2024 год — итоги"),
        ("../../etc/cron.d/evil.txt", "evil"),
        ("..\\..\\windows\\evil.txt", "evil"),
        ("new\nline.txt", "new line"),
        ("nul\x00byte.txt", "nul byte"),
        ("\u202etxt.exe.txt", "txt.exe"),
        (".hidden", ".hidden"),
        ("archive.tar.gz", "archive.tar"),
        (" .txt", None),
        (".", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_becomes_a_title_that_shows_what_it_says(
    filename: str | None, title: str | None
) -> None:
    assert title_of(filename) == title


def test_the_language_is_the_one_of_most_characters() -> None:
    chunks = [chunk("short", "en"), chunk("а это длиннее, чем то", "ru"), chunk("12" * 99, None)]
    assert main_language(chunks) == "ru"
    assert main_language([chunk("12", None)]) is None
    assert main_language([]) is None


def test_facts_hold_nothing_postgresql_refuses() -> None:
    facts = {"author": "A\x00B", "pages": 3, "keywords": ["x\x00", "y"], "more": {"a": "\ud800z"}}
    assert storable(facts) == {
        "author": "AB",
        "pages": 3,
        "keywords": ["x", "y"],
        "more": {"a": "z"},
    }
