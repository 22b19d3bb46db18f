"""Every bad file ends in the way its index allows, and the file after it is read.

The files come from the shared data; `index.json` says of each whether it must fail, must succeed or
may do either, and with which codes.
"""

import json
import re
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.errors import RagError
from ragcore.model import ConvertedDocument
from ragcore.ports import ConversionRequest

HOSTILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "hostile"

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not HOSTILE.is_dir(), reason=f"needs the shared data sets in {HOSTILE}"),
]


def bad_files() -> list[dict[str, Any]]:
    if not HOSTILE.is_dir():
        return []
    files: list[dict[str, Any]] = json.loads((HOSTILE / "index.json").read_text())["files"]
    return files


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def converter() -> AsyncIterator[DoclingConverter]:
    """One child for all of them: what one leaves behind would hurt the next."""
    converter = DoclingConverter(ConversionOptions(processes=1, timeout_seconds=240))
    yield converter
    await converter.aclose()


@dataclass
class Outcome:
    """How a conversion ended: with a document or with an error."""

    document: ConvertedDocument | None = None
    error: RagError | None = None

    @property
    def text(self) -> str:
        chunks = self.document.chunks if self.document else ()
        return " ".join(" ".join(chunk.text.split()) for chunk in chunks)


def request(path: Path, directory: Path, **changes: Any) -> ConversionRequest:
    directory.mkdir()
    values: dict[str, Any] = {
        "path": path, "filename": path.name, "mime_type": None, "directory": directory,
        "max_tokens": 384, "tokenizer": "bytes",
    }  # fmt: skip
    return ConversionRequest(**(values | changes))


async def outcome_of(converter: DoclingConverter, asked: ConversionRequest) -> Outcome:
    try:
        return Outcome(document=await converter.convert(asked))
    except RagError as error:
        return Outcome(error=error)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A server that nobody should call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


@pytest.mark.parametrize("bad", bad_files(), ids=lambda bad: bad["file"])
async def test_a_bad_file_ends_as_its_index_says_and_the_next_is_read(
    converter: DoclingConverter, tmp_path: Path, listener: socket.socket, bad: dict[str, Any]
) -> None:
    path = tmp_path / bad["file"]
    port = str(listener.getsockname()[1]).encode()
    path.write_bytes((HOSTILE / bad["file"]).read_bytes().replace(b"{port}", port))

    outcome = await outcome_of(
        converter, request(path, tmp_path / "results", mime_type=bad["content_type"])
    )
    if outcome.error is not None:
        assert bad["expect"] in ("fail", "either"), outcome.error
        assert outcome.error.code in bad["codes"], outcome.error
        assert str(outcome.error)
    else:
        assert bad["expect"] in ("succeed", "either"), outcome.text[:200]
        assert re.search(r"\w", outcome.text)
        check_text(outcome, bad["note"])
    with pytest.raises(BlockingIOError):
        listener.accept()

    good = tmp_path / "good.md"
    good.write_text("# Journal\n\nThe harbour master keeps a journal of every tide.\n")
    document = await converter.convert(request(good, tmp_path / "good"))
    assert "harbour master" in document.chunks[0].text


def check_text(outcome: Outcome, note: str) -> None:
    assert outcome.document is not None
    assert all("\x00" not in chunk.text + chunk.embedding_text for chunk in outcome.document.chunks)
    assert all(chunk.tokens <= 384 for chunk in outcome.document.chunks)
    if wanted := re.search(r"must contain: (.*?)(?: \(.*)?$", note):
        assert wanted[1] in outcome.text
    if unwanted := re.search(r"must not contain (\S+)", note):
        assert unwanted[1] not in outcome.text


async def test_a_password_opens_the_file(converter: DoclingConverter, tmp_path: Path) -> None:
    document = await converter.convert(
        request(HOSTILE / "password.pdf", tmp_path / "results", password="open sesame")
    )
    assert "harbour master" in " ".join(chunk.text for chunk in document.chunks)


@pytest.mark.parametrize(
    "name", json.loads((HOSTILE / "index.json").read_text())["names"] if HOSTILE.is_dir() else []
)
async def test_a_bad_name_does_no_harm_to_a_good_text(
    converter: DoclingConverter, tmp_path: Path, name: str
) -> None:
    path = tmp_path / "original"
    path.write_text("The harbour master keeps a journal of every tide.")
    document = await converter.convert(request(path, tmp_path / "results", filename=name))
    assert "harbour master" in document.chunks[0].text
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["original", "results"]
