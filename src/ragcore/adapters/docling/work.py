"""What a child does with one file: establish what it is, check it, read it, cut it, write it down.

Every step is a plain function of the file; a kill at any line leaves half-written files in the
request's directory, which its owner deletes whole.
"""

import gzip
import hashlib
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ragcore.adapters.docling import (
    chunker,
    counters,
    encodings,
    formats,
    guards,
    office,
    plain,
    reading,
)
from ragcore.adapters.docling.formats import SourceFormat
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import NoTextFound
from ragcore.model import Chunk, ConvertedDocument, ReadingReport, Stage
from ragcore.ports import ConversionRequest
from ragcore.steps.identity import clean_title

if TYPE_CHECKING:
    from docling_core.types.doc.document import DoclingDocument

Tell = Callable[[Stage, float], None]


def preload() -> None:
    """Import and load what every file needs, so that a waiting child is warm."""
    import docling.document_converter  # noqa: F401

    document = plain.document_of_text("A line of text to warm up with.", name="warm-up")
    chunker.to_markdown(document)
    chunker.chunk_document(document, max_tokens=256, count_tokens=counters.bound)


def convert(
    request: ConversionRequest, options: ConversionOptions, tell: Tell
) -> ConvertedDocument:
    """Read one file into chunks. Raises what `ports.Converter.convert` promises, and anything."""
    if request.is_kept:
        return _cut_again(request, options, tell)
    guards.check_size(request.path, options)
    guards.limit_pictures(options.max_image_megapixels)
    with _scratch(request.directory) as scratch:
        started = time.perf_counter()
        tell("converting", 0.0)
        source = _prepare(request, options, scratch)
        result = _read(source, request, options, scratch, tell)
        read = time.perf_counter()
        tell("chunking", 0.0)
        markdown = chunker.to_markdown(result.document)
        chunks = _chunk(result.document, markdown, request, options)
        _require_text(chunks, result)
        seconds = {"convert": read - started, "chunk": time.perf_counter() - read}
    markdown_path, docling_path = _write_down(result.document, markdown, request.directory)
    return ConvertedDocument(
        chunks=tuple(chunks),
        title=clean_title(result.title) or title_of(request.filename),
        language=main_language(chunks),
        extracted=storable(result.extracted),
        report=_report(source, result, chunks),
        markdown_path=str(markdown_path),
        docling_path=str(docling_path),
        seconds=seconds,
    )


def _cut_again(
    request: ConversionRequest, options: ConversionOptions, tell: Tell
) -> ConvertedDocument:
    """Chunk what was read before: the same chunks as then, under the same limit."""
    from docling_core.types.doc.document import DoclingDocument

    started = time.perf_counter()
    tell("chunking", 0.0)
    document = DoclingDocument.model_validate_json(gzip.decompress(request.path.read_bytes()))
    chunks = _chunk(document, chunker.to_markdown(document), request, options)
    return ConvertedDocument(
        chunks=tuple(chunks),
        title=None,
        language=main_language(chunks),
        extracted={},
        report=ReadingReport(
            parser=_parser(),
            profile="kept",
            mime_type="application/json",
            characters=sum(len(chunk.text) for chunk in chunks),
        ),
        seconds={"chunk": time.perf_counter() - started},
    )


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """Give temporary files, ours and the libraries', a place in the request's directory."""
    scratch = directory / "scratch"
    scratch.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        yield scratch
    finally:
        tempfile.tempdir = before
        shutil.rmtree(scratch, ignore_errors=True)


# --- before Docling ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Source:
    """A file whose type is known and whose text is clean UTF-8: ready for Docling."""

    path: Path
    format: SourceFormat
    mime_type: str
    """Of the file as it came."""
    encoding: str | None = None
    replaced: int = 0


def _prepare(request: ConversionRequest, options: ConversionOptions, scratch: Path) -> _Source:
    source_format = formats.binary_format(request.path)
    if source_format is None:
        return _prepare_text(request, scratch)
    guards.check_binary(request.path, source_format, options, password=request.password)
    mime_type = formats.mime_type_of(request.path, source_format)
    return _Source(request.path, source_format, mime_type)


def _prepare_text(request: ConversionRequest, scratch: Path) -> _Source:
    data = request.path.read_bytes()
    if not data.strip():
        raise NoTextFound("the file is empty")
    decoded = encodings.decode(data, declared=formats.declared_encoding(data, request.mime_type))
    source_format = formats.text_format(
        decoded.text, filename=request.filename, mime_type=request.mime_type
    )
    guards.check_text(decoded.text, source_format)
    if not source_format.is_text:  # a mail: its parts declare encodings of their own
        return _Source(request.path, source_format, source_format.mime_type)
    path = scratch / "source.txt"
    path.write_text(formats.as_utf8(decoded.text, source_format), encoding="utf-8", newline="")
    return _Source(path, source_format, source_format.mime_type, decoded.encoding, decoded.replaced)


# --- Docling -------------------------------------------------------------------------------


def _read(
    source: _Source,
    request: ConversionRequest,
    options: ConversionOptions,
    scratch: Path,
    tell: Tell,
) -> reading.Reading:
    how = reading.ReadingOptions(
        pdf_profile=options.pdf_profile,
        ocr=options.ocr,
        ocr_languages=options.ocr_languages,
        window_pages=options.window_pages,
        password=request.password,
        artifacts_path=options.artifacts,
    )
    if source.format.needs_office:
        return office.read(source.path, source.format, options=how, scratch=scratch)
    return reading.read(
        source.path,
        format=source.format,
        options=how,
        filename=request.filename,
        progress=lambda share: tell("converting", share),
    )


# --- after Docling -------------------------------------------------------------------------


def _chunk(
    document: "DoclingDocument",
    markdown: str,
    request: ConversionRequest,
    options: ConversionOptions,
) -> Sequence[Chunk]:
    count = counters.load(request.tokenizer, options.counters)
    return chunker.chunk_document(
        document,
        max_tokens=request.max_tokens,
        count_tokens=lambda text: count(request.prefix + text),
        language_hint=request.language,
        seed=request.seed or _digest(request.path),
        markdown=markdown,
    )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


_WORD = re.compile(r"\w")


def _require_text(chunks: Sequence[Chunk], result: reading.Reading) -> None:
    """Docling calls an empty page, a scan without OCR and a damaged file a success; it is none."""
    if any(_WORD.search(chunk.text) for chunk in chunks):
        return
    reasons = "; ".join(result.warnings) or "it is empty, or holds pictures only"
    raise NoTextFound(f"no text was found in the file: {reasons}")


def title_of(filename: str | None) -> str | None:
    """Make a title of a file's name: without folders and ending."""
    name = PurePosixPath((filename or "").replace("\\", "/")).name
    return clean_title(PurePosixPath(name).stem)


def storable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Clean every text among the facts: metadata of files hold NUL, which PostgreSQL refuses."""
    return {name: _storable(value) for name, value in facts.items()}


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return encodings.clean(value).text
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return storable(value) if isinstance(value, Mapping) else value


def main_language(chunks: Sequence[Chunk]) -> str | None:
    """Return the language that most characters are in; None when none could be told."""
    characters: Counter[str] = Counter()
    for chunk in chunks:
        if chunk.language is not None:
            characters[chunk.language] += len(chunk.text)
    return characters.most_common(1)[0][0] if characters else None


def _report(source: _Source, result: reading.Reading, chunks: Sequence[Chunk]) -> ReadingReport:
    return ReadingReport(
        parser=_parser(),
        profile=result.profile,
        mime_type=source.mime_type,
        encoding=source.encoding,
        pages=result.pages,
        pages_without_text=result.pages_without_text,
        ocr_pages=result.ocr_pages,
        ocr_confidence=result.ocr_confidence,
        replaced_characters=source.replaced + result.replaced_characters,
        characters=sum(len(chunk.text) for chunk in chunks),
        warnings=result.warnings,
    )


def _parser() -> str:
    from importlib.metadata import version

    return f"docling-slim {version('docling-slim')}"


def _write_down(document: "DoclingDocument", markdown: str, directory: Path) -> tuple[Path, Path]:
    text, docling = directory / "document.md", directory / "document.json.gz"
    text.write_text(markdown, encoding="utf-8")
    body = document.model_dump_json(by_alias=True, exclude_none=True).encode()
    docling.write_bytes(gzip.compress(body, compresslevel=6, mtime=0))  # same document, same bytes
    return text, docling
