"""Plain text → chunks, in this process, without Docling."""

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ragcore.errors import NoTextFound, UnsupportedFormat
from ragcore.model import Chunk, ConvertedDocument, ReadingReport, Stage
from ragcore.ports import ConversionRequest

_SPECIAL_TOKENS = 3


def count_bytes(text: str) -> int:
    """Bound the tokens of a text by its bytes, as the counter `bytes` does."""
    return len(text.encode()) + _SPECIAL_TOKENS


class MemoryConverter:
    """`ports.Converter` for tests of flows: UTF-8 text, as many words a chunk as fit."""

    fingerprint = "memory-1"

    def __init__(self, count_tokens: Callable[[str], int] = count_bytes) -> None:
        self._count = count_tokens
        self.requests: list[ConversionRequest] = []
        """Everything that was asked for, in order."""

    async def convert(
        self, request: ConversionRequest, *, progress: Callable[[Stage, float], None] | None = None
    ) -> ConvertedDocument:
        self.requests.append(request)
        tell = progress or (lambda stage, fraction: None)
        tell("converting", 0.0)
        data = request.path.read_bytes()
        text = _text(data)
        tell("chunking", 0.0)
        seed = hashlib.blake2b(data, digest_size=8).hexdigest()
        chunks = tuple(self._chunks(text, request, seed))
        tell("chunking", 1.0)
        markdown = request.directory / "document.md"
        markdown.write_text(text, encoding="utf-8")
        return ConvertedDocument(
            chunks=chunks,
            title=Path(request.filename).stem if request.filename else None,
            language=request.language,
            extracted={},
            report=ReadingReport(
                parser="memory 1", profile="text", mime_type="text/plain", characters=len(text)
            ),
            markdown_path=str(markdown),
        )

    def _chunks(self, text: str, request: ConversionRequest, seed: str) -> Iterator[Chunk]:
        for ordinal, part in enumerate(self._parts(text, request)):
            yield Chunk(
                chunk_id=f"{seed}-{ordinal}",
                ordinal=ordinal,
                text=part,
                embedding_text=part,
                tokens=self._count(request.prefix + part),
                language=request.language,
            )

    def _parts(self, text: str, request: ConversionRequest) -> Iterator[str]:
        part = ""
        for word in re.findall(r"\S+", text):
            longer = f"{part} {word}".lstrip()
            if part and self._count(request.prefix + longer) > request.max_tokens:
                yield part
                longer = word
            part = longer
        yield part

    async def aclose(self) -> None:
        """Nothing to end."""


def _text(data: bytes) -> str:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnsupportedFormat("only UTF-8 text can be read in memory") from error
    if "\x00" in text:
        raise UnsupportedFormat("the bytes are no text")
    if not text.strip():
        raise NoTextFound("the file is empty")
    return text
