"""PDF and images: page windows, text layer or recognition, one document in the end.

A long PDF is converted in windows of a few pages, so memory stays flat: Docling holds everything of
the pages it is working on. Windows are put together afterwards; heading levels and repeated page
headers are decided over the whole document, because one window can't know them.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docling.datamodel.base_models import ConversionStatus, InputFormat
from docling.datamodel.document import ConversionResult, InputDocument
from docling.datamodel.settings import DocumentLimits
from docling_core.types.doc import DoclingDocument

from ragcore.adapters.docling import layouts
from ragcore.adapters.docling.headings import drop_repeated_margins, set_levels
from ragcore.adapters.docling.layouts import FastPipeline, HeadingStyles, TextLines
from ragcore.adapters.docling.pages import PageFacts, survey
from ragcore.errors import ConversionFailed

if TYPE_CHECKING:
    from ragcore.adapters.docling.reading import ReadingOptions

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class PagesRead:
    """A paged document as it was read."""

    document: DoclingDocument
    profile: str
    count: int
    without_text: tuple[int, ...] = ()
    recognised: tuple[int, ...] = ()
    confidence: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Window:
    """What one window of pages gave."""

    document: DoclingDocument
    styles: HeadingStyles = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def read_pages(
    path: Path,
    *,
    is_image: bool,
    options: "ReadingOptions",
    progress: Callable[[float], None],
) -> PagesRead:
    """Read a PDF window by window. Raises ConversionFailed when no page can be read."""
    facts = survey(path, options.password)
    reader = _PageReader(path, options)
    windows: list[_Window] = []
    for first, last in windows_of(facts.count, options.window_pages):
        windows.append(reader.read(first, last))
        progress(last / facts.count)
    document = _joined([window.document for window in windows])
    styles = {key: size for window in windows for key, size in window.styles.items()}
    set_levels(document, styles, facts.outline)
    drop_repeated_margins(document)
    warnings = [warning for window in windows for warning in window.warnings]
    return PagesRead(
        document=document,
        profile=options.pdf_profile,
        count=facts.count,
        without_text=pages_without_text(document, facts.count),
        warnings=tuple(dict.fromkeys(warnings))[:20],
    )


def windows_of(pages: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield first and last page, from 1, of consecutive windows of at most `size` pages."""
    for first in range(1, pages + 1, size):
        yield first, min(first + size - 1, pages)


def pages_without_text(document: DoclingDocument, pages: int) -> tuple[int, ...]:
    """Return the numbers of the pages on which no text was found, in any layer."""
    items: list[Any] = [*document.texts, *document.tables]
    with_text = {
        prov.page_no
        for item in items
        for prov in item.prov
        if getattr(item, "text", "") or getattr(item, "data", None)
    }
    return tuple(number for number in range(1, pages + 1) if number not in with_text)


class _PageReader:
    """One Docling pipeline over one file."""

    def __init__(self, path: Path, options: "ReadingOptions") -> None:
        layouts.install()
        self._path = path
        self._options = options
        self._pipeline = FastPipeline(pipeline_options=_pipeline_options())

    def read(self, first: int, last: int) -> _Window:
        source = InputDocument(
            path_or_stream=self._path,
            format=InputFormat.PDF,
            backend=TextLines,
            backend_options=self._backend_options(),
            limits=DocumentLimits(page_range=(first, last)),
        )
        if not source.valid:
            raise ConversionFailed(
                f"pages {first}–{last} of {self._path.name!r} can't be read: the PDF is damaged; "
                "open it in a viewer and print it to a new PDF"
            )
        result = self._pipeline.execute(source, raises_on_error=False)
        if result.status == ConversionStatus.FAILURE:
            return _Window(_blank(first, last), warnings=_messages(result, first, last))
        return _Window(
            result.document, self._pipeline.take_heading_styles(), _messages(result, first, last)
        )

    def _backend_options(self) -> Any:
        from docling.datamodel.backend_options import ThreadedDoclingParseBackendOptions
        from pydantic import SecretStr

        password = self._options.password
        return ThreadedDoclingParseBackendOptions(
            parser_threads=1,
            max_concurrent_results=4,
            render_pages=False,
            password=SecretStr(password) if password else None,
        )


def _pipeline_options() -> Any:
    from docling.datamodel.pipeline_options import ThreadedPdfPipelineOptions

    return ThreadedPdfPipelineOptions(
        do_ocr=False,
        layout_options=layouts.RulesLayoutOptions(),
        table_structure_options=layouts.RulesTableOptions(),
        batch_polling_interval_seconds=0.01,
        queue_max_size=4,
    )


def _messages(result: ConversionResult, first: int, last: int) -> list[str]:
    messages = [error.error_message for error in result.errors]
    if result.status == ConversionStatus.FAILURE and not messages:
        messages = [f"pages {first}–{last} could not be read"]
    return messages


def _blank(first: int, last: int) -> DoclingDocument:
    """Return a document with empty pages in place of a window that failed."""
    from docling_core.types.doc import Size

    document = DoclingDocument(name="")
    for number in range(first, last + 1):
        document.add_page(page_no=number, size=Size(width=0, height=0))
    return document


def _joined(documents: Sequence[DoclingDocument]) -> DoclingDocument:
    if len(documents) == 1:
        return documents[0]
    return DoclingDocument.concatenate(documents)
