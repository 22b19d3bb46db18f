from pathlib import Path

import pytest

from ragcore.adapters.room import Room, free_bytes
from ragcore.errors import StorageFull


def test_documents_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    free = 150
    room = Room(tmp_path, min_free_bytes=100, measure=lambda _: free, remembered_seconds=0)
    room.require(50)
    with pytest.raises(StorageFull, match="MiB are free"):
        room.require(51)
    free = 99
    with pytest.raises(StorageFull):
        room.require()
    free = 151
    room.require(51)


def test_without_a_limit_everything_is_let_through(tmp_path: Path) -> None:
    Room(tmp_path, min_free_bytes=0, measure=lambda _: 0).require(10**9)


def test_the_disk_is_not_asked_for_every_document(tmp_path: Path) -> None:
    asked = 0

    def measure(_: Path) -> int:
        nonlocal asked
        asked += 1
        return 1000

    room = Room(tmp_path, min_free_bytes=1, measure=measure, remembered_seconds=3600)
    for _ in range(10):
        room.require()
    assert asked == 1


def test_a_folder_that_is_not_made_yet_has_the_room_of_its_parent(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "yet") > 0
