"""What every `ports.BlobStore` promises."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ragcore.errors import BlobNotFound
from ragcore.ports import BlobStore


class BlobStoreContract:
    """Subclass, supply a `blobs` fixture, inherit the tests."""

    async def test_a_stored_file_comes_back_whole(self, blobs: BlobStore) -> None:
        assert await blobs.put("versions/a/original", _pieces(b"one ", b"two")) == 7
        assert await _read(blobs, "versions/a/original") == b"one two"

    async def test_an_empty_file_is_a_file(self, blobs: BlobStore) -> None:
        assert await blobs.put("versions/a/original", _pieces()) == 0
        assert await _read(blobs, "versions/a/original") == b""

    async def test_storing_again_replaces(self, blobs: BlobStore) -> None:
        await blobs.put("versions/a/original", _pieces(b"old"))
        await blobs.put("versions/a/original", _pieces(b"new"))
        assert await _read(blobs, "versions/a/original") == b"new"

    async def test_a_stream_that_breaks_leaves_nothing(self, blobs: BlobStore) -> None:
        with pytest.raises(ConnectionError):
            await blobs.put("versions/a/original", _broken())
        with pytest.raises(BlobNotFound):
            await _read(blobs, "versions/a/original")
        assert [key async for key, _ in blobs.list()] == []

    async def test_a_stream_that_breaks_leaves_the_old_file(self, blobs: BlobStore) -> None:
        await blobs.put("versions/a/original", _pieces(b"old"))
        with pytest.raises(ConnectionError):
            await blobs.put("versions/a/original", _broken())
        assert await _read(blobs, "versions/a/original") == b"old"

    async def test_local_files_go_in_and_out(self, blobs: BlobStore, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.write_bytes(b"\0" * 3_000_000)
        assert await blobs.put_file("versions/a/original", source) == 3_000_000
        await blobs.fetch("versions/a/original", target)
        assert target.read_bytes() == source.read_bytes()

    async def test_a_missing_file_is_named(self, blobs: BlobStore, tmp_path: Path) -> None:
        with pytest.raises(BlobNotFound, match="versions/b/original"):
            await blobs.fetch("versions/b/original", tmp_path / "target")

    async def test_deleting_takes_what_starts_with_the_prefix(self, blobs: BlobStore) -> None:
        for key in ("versions/a/original", "versions/a/document.md", "versions/b/original"):
            await blobs.put(key, _pieces(b"x"))
        assert await blobs.delete_prefix("versions/a/") == 2
        assert await blobs.delete_prefix("versions/a/") == 0
        assert [key async for key, _ in blobs.list()] == ["versions/b/original"]

    async def test_listing_tells_the_age(self, blobs: BlobStore) -> None:
        await blobs.put("versions/a/original", _pieces(b"x"))
        listed = {key: age async for key, age in blobs.list("versions/")}
        assert set(listed) == {"versions/a/original"}
        assert -5 < listed["versions/a/original"] < 300


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _broken() -> AsyncIterator[bytes]:
    yield b"half of "
    raise ConnectionError("the client went away")


async def _read(blobs: BlobStore, key: str) -> bytes:
    return b"".join([piece async for piece in blobs.open(key)])
