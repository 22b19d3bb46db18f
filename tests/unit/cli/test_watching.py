"""Which files count as changed."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ragcore.cli.watching import Snapshot, changed_files, files_under, settled_changes, snapshot

paths = st.sampled_from([Path("a"), Path("b"), Path("c")])
snapshots = st.dictionaries(paths, st.tuples(st.integers(0, 2), st.integers(0, 2)))


@given(snapshots, snapshots)
def test_what_is_known_is_no_change(known: Snapshot, before: Snapshot) -> None:
    assert settled_changes(known, before, known) == []


@given(snapshots, snapshots)
def test_a_file_counts_once_it_has_held_still(known: Snapshot, now: Snapshot) -> None:
    assert settled_changes(known, now, now) == [
        path for path, state in now.items() if known.get(path) != state
    ]


@given(snapshots)
def test_a_file_seen_for_the_first_time_waits_for_another_look(now: Snapshot) -> None:
    assert settled_changes({}, {}, now) == []


def test_a_folder_stands_for_its_files_without_the_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".hidden", "deep/er/файл.md", ".git/config", "deep/.DS_Store"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    names = [str(path.relative_to(tmp_path)) for path in files_under(tmp_path)]
    assert names == ["a.txt", "b.txt", "deep/er/файл.md"]


def test_a_file_stands_for_itself_even_when_hidden(tmp_path: Path) -> None:
    assert files_under(tmp_path / ".env") == [tmp_path / ".env"]


def test_a_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    assert snapshot([tmp_path / "gone"]) == {}


async def test_added_and_changed_files_are_yielded_once(tmp_path: Path) -> None:
    old = tmp_path / "old.txt"
    old.write_text("one")
    changes = changed_files([tmp_path], known=snapshot([tmp_path]), every_seconds=0.01)
    try:
        new = tmp_path / "new.txt"
        new.write_text("x")
        assert await anext(changes) == [new]
        old.write_text("one and two")
        assert await anext(changes) == [old]
    finally:
        await changes.aclose()
