import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from ragcore.adapters.blobs.folder import FolderBlobs
from ragcore.adapters.blobs.s3 import S3Blobs
from ragcore.errors import BlobsUnavailable, InvalidInput, NotConfigured
from ragcore.testing.contracts.blobs import BlobStoreContract
from ragcore.testing.memory.blobs import MemoryBlobs


class TestMemoryBlobs(BlobStoreContract):
    @pytest.fixture
    def blobs(self) -> MemoryBlobs:
        return MemoryBlobs()


class TestFolderBlobs(BlobStoreContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> FolderBlobs:
        return FolderBlobs(tmp_path / "blobs")

    @pytest.mark.parametrize(
        "key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\0"]
    )
    async def test_keys_never_leave_the_folder(self, blobs: FolderBlobs, key: str) -> None:
        with pytest.raises(InvalidInput):
            await blobs.fetch(key, Path("unused"))

    async def test_deleting_leaves_no_empty_folders(
        self, blobs: FolderBlobs, tmp_path: Path
    ) -> None:
        await blobs.put("versions/a/original", _empty())
        await blobs.delete_prefix("versions/a/")
        assert list((tmp_path / "blobs").iterdir()) == []


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


class TestS3Blobs(BlobStoreContract):
    """Against moto's S3 server: real HTTP, an imitated store."""

    @pytest.fixture
    async def blobs(self, s3_server: str) -> AsyncIterator[S3Blobs]:
        bucket = f"ragcore-{uuid4().hex[:8]}"
        blobs = S3Blobs.from_url(
            f"s3://key:secret@{s3_server}/{bucket}?secure=false&region=us-east-1"
        )
        await blobs.prepare()
        await blobs.prepare()
        yield blobs
        await blobs.aclose()


@pytest.mark.parametrize(
    "url", ["http://host/bucket", "s3:///bucket", "s3://host", "s3://host/a/b"]
)
def test_an_s3_url_of_another_form_is_refused(url: str) -> None:
    with pytest.raises(NotConfigured, match="s3://key:secret"):
        S3Blobs.from_url(url)


async def test_a_full_or_missing_disk_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    with pytest.raises(BlobsUnavailable):
        await asyncio.wait_for(FolderBlobs(tmp_path / "blobs").put("a/b", _empty()), 10)


async def test_a_small_file_that_does_not_fit_is_told_as_any_other(tmp_path: Path) -> None:
    """What is small is written only when the file is closed."""
    blobs = FolderBlobs(tmp_path / "blobs")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # as a full disk, for this process
    try:
        with pytest.raises(BlobsUnavailable):
            await blobs.put("a/b", _one(b"small"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "blobs").iterdir()) == []
    assert await blobs.put("a/b", _one(b"small")) == 5


async def _one(piece: bytes) -> AsyncIterator[bytes]:
    yield piece


async def _empty() -> AsyncIterator[bytes]:
    for piece in ():
        yield piece
