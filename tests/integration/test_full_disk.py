"""A disk that is full: told as such, whoever meets it, and nothing half-written is left."""

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ragcore.adapters.blobs.folder import FolderBlobs
from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.adapters.room import Room
from ragcore.errors import StorageFull
from ragcore.ports import ConversionRequest

TEXT = "The harbour master of Port Elverin keeps a journal of every tide.\n\n" * 2000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB, which only root may make."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk takes the right to mount one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)  # noqa: S607 - where it is, differs


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 2**18


async def test_a_file_that_does_not_fit_is_refused_and_leaves_nothing(small_disk: Path) -> None:
    blobs = FolderBlobs(small_disk / "blobs")
    with pytest.raises(StorageFull, match="no room"):
        await blobs.put("versions/a/original", pieces(8))
    assert [key async for key, _ in blobs.list()] == []
    assert await blobs.put("versions/a/original", pieces(2)) == 2**19


async def test_room_is_that_of_the_disk(small_disk: Path) -> None:
    Room(small_disk, min_free_bytes=2**19).require()
    with pytest.raises(StorageFull):
        Room(small_disk, min_free_bytes=2**19).require(2**19 + 1)


async def test_a_conversion_without_room_may_be_tried_again(
    small_disk: Path, tmp_path: Path
) -> None:
    source = tmp_path / "journal.txt"
    source.write_text(TEXT)
    (small_disk / "filler").write_bytes(b"x" * (2**20 - 2**14))
    converter = DoclingConverter(ConversionOptions(processes=1))
    request = ConversionRequest(
        path=source,
        filename="journal.txt",
        mime_type=None,
        directory=small_disk,
        max_tokens=384,
        tokenizer="bytes",
    )
    try:
        with pytest.raises(StorageFull) as refused:
            await converter.convert(request)
        assert refused.value.retryable
        (small_disk / "filler").unlink()
        assert (await converter.convert(request)).chunks
    finally:
        await converter.aclose()
