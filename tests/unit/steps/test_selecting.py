import pytest

from ragcore.errors import InvalidInput
from ragcore.model import BucketObject
from ragcore.steps.selecting import matches, selection, why_skipped


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("*.pdf", "a.pdf", True),
        ("*.pdf", "2024/deep/a.pdf", True),
        ("*.pdf", "a.PDF", False),
        ("2024/*.pdf", "2024/a.pdf", True),
        ("2024/*.pdf", "2024/deep/a.pdf", False),
        ("2024/**", "2024/deep/a.pdf", True),
        ("2024/**", "2024", True),
        ("2024/**", "12024/a", False),
        ("**/a*b", "x/a/c/ab", True),
        ("**/draft/**", "draft/x", True),
        ("**/draft/**", "a/b/draft/x/y", True),
        ("**/draft/**", "a/drafts/x", False),
        ("a/**/b/**/c", "a/b/c", True),
        ("a/**/b/**/c", "a/c/b", False),
        ("report-202[34].txt", "in/report-2024.txt", True),
        ("?.txt", "ё.txt", True),
    ],
)
def test_patterns(pattern: str, key: str, fits: bool) -> None:
    assert matches(pattern, key) is fits


def test_a_hostile_pattern_costs_no_more_than_its_length() -> None:
    key = "/".join(["a" * 30] * 30)
    assert not matches("/".join(["**", "*a*a*a*a*a*b"] * 15), key)


def test_patterns_include_then_exclude() -> None:
    wanted = selection(include=["docs/**", "*.md"], exclude=["draft*"])
    keys = ["docs/a.txt", "docs/draft.txt", "other/b.md", "other/c.txt", "docs/"]
    assert [key for key in keys if wanted.wants(key)] == ["docs/a.txt", "other/b.md"]


@pytest.mark.parametrize("patterns", [[""], ["x" * 257], ["x"] * 51])
def test_patterns_out_of_bounds_are_refused(patterns: list[str]) -> None:
    with pytest.raises(InvalidInput):
        selection(include=patterns)


@pytest.mark.parametrize(
    ("key", "size", "why"),
    [
        ("a.txt", 1, None),
        ("no-suffix", 100, None),
        ("a.txt", 0, "empty"),
        ("a.txt", 101, "limit"),
        ("film.MP4", 10, ".mp4"),
        ("a\0.txt", 10, "NUL"),
    ],
)
def test_objects_that_are_no_documents_are_skipped(key: str, size: int, why: str | None) -> None:
    said = why_skipped(BucketObject("b", key, size, "e", 0), max_bytes=100)
    assert said is None if why is None else why in str(said)
