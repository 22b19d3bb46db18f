from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest

from ragcore.errors import BlobNotFound, PageNotFound
from ragcore.flows import pages
from ragcore.flows.pages import DrawPage
from ragcore.flows.submit import original_key
from ragcore.model import PageImage
from ragcore.testing.memory.blobs import MemoryBlobs


class Renderer:
    """Draws the file's own bytes and the page's number."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    async def render(
        self, path: Path, *, page: int, dots_per_inch: int, directory: Path
    ) -> PageImage:
        self.drawn.append(page)
        if page > 9:
            raise PageNotFound("there are 9")
        return PageImage(path.read_bytes() + b"#%d" % page, 595.0, 842.0)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def test_a_page_is_drawn_once_and_leaves_no_file(tmp_path: Path) -> None:
    blobs, renderer, version = MemoryBlobs(), Renderer(), uuid4()
    await blobs.put(original_key(version), pieces(b"PDF"))
    draw = DrawPage(blobs, renderer, tmp_path)
    for _ in range(2):
        assert (await draw(version, 2, dots_per_inch=72)).png == b"PDF#2"
    assert renderer.drawn == [2]
    await draw(version, 2, dots_per_inch=144)
    assert renderer.drawn == [2, 2]
    assert list(tmp_path.iterdir()) == []


async def test_failures_leave_no_file_and_are_not_remembered(tmp_path: Path) -> None:
    blobs, renderer, version = MemoryBlobs(), Renderer(), uuid4()
    draw = DrawPage(blobs, renderer, tmp_path)
    with pytest.raises(BlobNotFound):
        await draw(version, 1, dots_per_inch=72)
    await blobs.put(original_key(version), pieces(b"PDF"))
    for _ in range(2):
        with pytest.raises(PageNotFound):
            await draw(version, 10, dots_per_inch=72)
    assert renderer.drawn == [10, 10]
    assert list(tmp_path.iterdir()) == []


async def test_the_pictures_asked_for_longest_ago_are_forgotten_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_REMEMBERED_BYTES", 12)  # two pictures of five bytes
    blobs, renderer, version = MemoryBlobs(), Renderer(), uuid4()
    await blobs.put(original_key(version), pieces(b"PDF"))
    draw = DrawPage(blobs, renderer, tmp_path)
    for page in (1, 2, 1, 3, 1, 2):
        await draw(version, page, dots_per_inch=72)
    assert renderer.drawn == [1, 2, 3, 2]
