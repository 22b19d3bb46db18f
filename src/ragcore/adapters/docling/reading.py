"""One file → a DoclingDocument: which reader, in which way, and what was noticed on the way.

Runs inside a conversion child and nowhere else; type and encoding are settled before
(`formats.py`, `encodings.py`): text formats arrive as UTF-8. Docling never sees a URL or a path
of the user's, fetches nothing, and loads no plugin but ours.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ragcore.adapters.docling import metadata
from ragcore.adapters.docling.formats import SourceFormat
from ragcore.errors import ConversionFailed, RagError, UnsupportedFormat

if TYPE_CHECKING:
    from docling.datamodel.document import ConversionResult
    from docling_core.types.doc import DoclingDocument

_log = logging.getLogger(__name__)

PdfProfile = Literal["fast", "layout", "full"]
Progress = Callable[[float], None]
"""Takes the share of the reading that is done, 0…1."""


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """How to read; plain values that travel to the child."""

    pdf_profile: PdfProfile = "fast"
    ocr: Literal["auto", "off", "force"] = "auto"
    ocr_languages: tuple[str, ...] = ("rus", "eng")
    window_pages: int = 20
    password: str | None = field(default=None, repr=False)
    artifacts_path: Path | None = None
    """Folder with Docling's own models, for the `full` profile."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A document as it was understood, and how well."""

    document: "DoclingDocument"
    title: str | None
    extracted: dict[str, Any]
    """Filterable facts from the file itself: `author`, `created`, `modified`, `language` …"""
    profile: str
    """The way it was read: `fast`, `layout`, `full`, with `+ocr`, or the format's own name."""
    pages: int | None = None
    pages_without_text: tuple[int, ...] = ()
    ocr_pages: tuple[int, ...] = ()
    ocr_confidence: float | None = None
    """Mean over recognised words, 0…1."""
    replaced_characters: int = 0
    warnings: tuple[str, ...] = ()


def read(
    path: Path,
    *,
    format: SourceFormat,
    options: ReadingOptions,
    filename: str | None = None,
    progress: Progress | None = None,
) -> Reading:
    """Read one file.

    Raises UnsupportedFormat for a format that has no reader here, PasswordRequired, MissingExtra or
    NotConfigured where a profile's parts are absent, ConversionFailed where the parser gives up.
    An empty document is returned as it is: whether there is text is the caller's question.
    """
    with _as_conversion_failure(filename or path.name):
        if format in (SourceFormat.PDF, SourceFormat.IMAGE):
            return _read_pages(path, format, options, progress)
        if format is SourceFormat.TEXT:
            return _read_text(path, filename)
        return _read_declarative(path, format, filename)


# --- formats that say what is a heading ----------------------------------------------------

_INPUT_FORMATS = {
    SourceFormat.DOCX: "docx",
    SourceFormat.PPTX: "pptx",
    SourceFormat.XLSX: "xlsx",
    SourceFormat.ODT: "odt",
    SourceFormat.ODS: "ods",
    SourceFormat.ODP: "odp",
    SourceFormat.EPUB: "epub",
    SourceFormat.MSG: "email",
    SourceFormat.EML: "email",
    SourceFormat.MHTML: "mhtml",
    SourceFormat.HTML: "html",
    SourceFormat.MARKDOWN: "md",
    SourceFormat.ASCIIDOC: "asciidoc",
    SourceFormat.CSV: "csv",
    SourceFormat.VTT: "vtt",
    SourceFormat.LATEX: "latex",
    SourceFormat.JATS: "xml_jats",
    SourceFormat.USPTO: "xml_uspto",
}
_PAGED = (SourceFormat.PPTX, SourceFormat.XLSX, SourceFormat.ODS, SourceFormat.ODP)


def _read_declarative(
    path: Path,
    format: SourceFormat,
    filename: str | None,
) -> Reading:
    result = _convert(path, format, filename)
    document = result.document
    if format in (SourceFormat.HTML, SourceFormat.MHTML, SourceFormat.EPUB, SourceFormat.MARKDOWN):
        _keep_prose(document)
    facts = metadata.of_file(path, format)
    return Reading(
        document=document,
        title=facts.title or metadata.first_heading(document),
        extracted=facts.extracted,
        profile=format.value,
        pages=len(document.pages) or None if format in _PAGED else None,
        replaced_characters=_replacement_characters(document),
        warnings=_warnings(result),
    )


def _convert(path: Path, format: SourceFormat, filename: str | None) -> "ConversionResult":
    """Run Docling's own backend for the format on the bytes.

    The backend is named outright instead of letting Docling guess it again from the name: it
    takes a comma-separated text in an old encoding for CSV, and a patent for plain text.
    """
    from docling.datamodel.base_models import ConversionStatus, InputFormat
    from docling.datamodel.document import InputDocument
    from docling.document_converter import DocumentConverter

    if format not in _INPUT_FORMATS:
        raise UnsupportedFormat(
            f"{format.value!r} has no reader here; convert the file to PDF or DOCX first"
        )
    input_format = InputFormat(_INPUT_FORMATS[format])
    option = DocumentConverter(allowed_formats=[input_format]).format_to_options[input_format]
    source = InputDocument(
        path_or_stream=BytesIO(path.read_bytes()),
        format=input_format,
        filename=filename or path.name,
        backend=option.backend,
        backend_options=_backend_options(format) or option.backend_options,
    )
    if not source.valid:
        raise ConversionFailed(
            f"{filename or path.name!r} is damaged or no {format.value}; open and save it anew"
        )
    pipeline = option.pipeline_cls(
        pipeline_options=option.pipeline_options or option.pipeline_cls.get_default_options()
    )
    result = pipeline.execute(source, raises_on_error=False)
    if result.status not in (ConversionStatus.SUCCESS, ConversionStatus.PARTIAL_SUCCESS):
        raise ConversionFailed(
            f"{filename or path.name!r} could not be parsed as {format.value}: "
            f"{_first_error(result)}"
        )
    return result


def _backend_options(format: SourceFormat) -> Any:
    """Return what is wanted otherwise than by default: mails name their attachments."""
    from docling.datamodel.backend_options import AsciiDocBackendOptions, EmailBackendOptions

    if format in (SourceFormat.EML, SourceFormat.MSG):
        return EmailBackendOptions(list_attachments=True)
    if format is SourceFormat.ASCIIDOC:
        return AsciiDocBackendOptions(capture_comments=False)
    return None


_PROSE_WORDS = 12


def _keep_prose(document: "DoclingDocument") -> None:
    """Take prose back into the body that Docling put aside as page furniture.

    It takes everything before the first heading of a web page for navigation. Menus are made of
    short items; a paragraph, a list item of a sentence's length or a table is text of the author's.
    """
    from docling_core.types.doc import ContentLayer, TableItem, TextItem

    aside = {ContentLayer.FURNITURE}
    for item, _ in document.iterate_items(included_content_layers=aside):
        if isinstance(item, TableItem) or (
            isinstance(item, TextItem) and len(item.text.split()) >= _PROSE_WORDS
        ):
            item.content_layer = ContentLayer.BODY


# --- plain text ----------------------------------------------------------------------------


def _read_text(path: Path, filename: str | None) -> Reading:
    from ragcore.adapters.docling.plain import document_of_text

    text = path.read_text(encoding="utf-8", errors="replace")
    document = document_of_text(text, name=Path(filename or path.name).stem)
    return Reading(
        document=document,
        title=None,
        extracted={},
        profile=SourceFormat.TEXT.value,
        replaced_characters=_replacement_characters(document),
    )


# --- pages ---------------------------------------------------------------------------------


def _read_pages(
    path: Path,
    format: SourceFormat,
    options: ReadingOptions,
    progress: Progress | None,
) -> Reading:
    from ragcore.adapters.docling import pdf

    pages = pdf.read_pages(
        path,
        is_image=format is SourceFormat.IMAGE,
        options=options,
        progress=progress or (lambda share: None),
    )
    facts = (
        metadata.Facts()
        if format is SourceFormat.IMAGE
        else metadata.of_pdf(path, options.password)
    )
    return Reading(
        document=pages.document,
        title=facts.title or metadata.first_heading(pages.document),
        extracted=facts.extracted,
        profile=pages.profile,
        pages=pages.count,
        pages_without_text=pages.without_text,
        ocr_pages=pages.recognised,
        ocr_confidence=pages.confidence,
        replaced_characters=_replacement_characters(pages.document),
        warnings=pages.warnings,
    )


# --- what was noticed ----------------------------------------------------------------------


def _replacement_characters(document: "DoclingDocument") -> int:
    texts = sum(item.text.count("\ufffd") for item in document.texts)
    cells = (cell.text for table in document.tables for cell in table.data.table_cells)
    return texts + sum(cell.count("\ufffd") for cell in cells)


def _warnings(result: "ConversionResult") -> tuple[str, ...]:
    return tuple(dict.fromkeys(error.error_message for error in result.errors))[:_MOST_WARNINGS]


_MOST_WARNINGS = 20


def _first_error(result: "ConversionResult") -> str:
    return result.errors[0].error_message[:500] if result.errors else "no reason given"


@contextmanager
def _as_conversion_failure(name: str) -> Iterator[None]:
    """Turn whatever a parser raises into ConversionFailed; our own errors pass.

    Docling raises out of some conversions that it was told to report; parsers of two dozen formats
    raise what they like. Running out of memory is not theirs to report, the limit's owner does it.
    """
    try:
        yield
    except (RagError, MemoryError):
        raise
    except RecursionError as error:
        raise ConversionFailed(
            f"{name!r} is nested too deeply to be parsed; flatten it and try again"
        ) from error
    except Exception as error:
        _log.exception("the parser of %r failed", name)
        raise ConversionFailed(f"{name!r} could not be parsed: {error}") from error
