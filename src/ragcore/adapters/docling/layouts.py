"""The `fast` PDF profile as Docling plugins: a layout model, a table model, and their pipeline.

Docling chooses a model by the type of its options; `FastPipeline` is Docling's own PDF pipeline
with the models below, so pages, reading order and assembly stay Docling's. Imported in conversion
children only. A stage that raises costs Docling the whole batch of pages, so every model here falls
back to plain lines where the rules fail on a page, and reports that page.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, ClassVar

from docling.backend.docling_parse_backend import ThreadedDoclingParseDocumentBackend
from docling.datamodel.base_models import (
    Cluster,
    DoclingComponentType,
    ErrorItem,
    FailureCategory,
    LayoutPrediction,
    Page,
    Table,
    TableStructurePrediction,
)
from docling.datamodel.document import ConversionResult
from docling.datamodel.pipeline_options import (
    BaseLayoutOptions,
    BaseTableStructureOptions,
    LayoutPostprocessorOptions,
)
from docling.models.base_layout_model import BaseLayoutModel
from docling.models.base_ocr_model import BaseOcrModel
from docling.models.base_table_model import BaseTableStructureModel
from docling.models.postprocessing.reading_order_rb import (
    PageElement,
    ReadingOrderPredictor,
    SeparatorElement,
)
from docling.models.stages.layout.layout_postprocessing_model import LayoutPostprocessingModel
from docling.models.stages.page_preprocessing.page_preprocessing_model import (
    PagePreprocessingModel,
    PagePreprocessingOptions,
)
from docling.pipeline.standard_pdf_pipeline import StandardPdfPipeline
from docling_core.types.doc import BoundingBox, DocItemLabel, Size, TableCell
from docling_core.types.doc.page import BoundingRectangle, TextCell

from ragcore.adapters.docling.order import reading_order
from ragcore.adapters.docling.rules import (
    BULLETS,
    Block,
    Line,
    Span,
    enclosing,
    enclosing_boxes,
    lay_out,
)
from ragcore.adapters.docling.tables import Cell, grid_of
from ragcore.model import Box

_log = logging.getLogger(__name__)

_LABELS = {
    "heading": DocItemLabel.SECTION_HEADER,
    "list": DocItemLabel.LIST_ITEM,
    "text": DocItemLabel.TEXT,
    "contents": DocItemLabel.TEXT,
    "caption": DocItemLabel.CAPTION,
    "code": DocItemLabel.CODE,
    "furniture": DocItemLabel.PAGE_FOOTER,
    "table": DocItemLabel.TABLE,
}
_SMALLEST_PICTURE = 40.0
"""Points: bitmaps that are smaller either way are icons and rules, not pictures."""

HeadingStyles = dict[tuple[int, int, int], float]
"""Size of a heading's letters by its page and the left and top of its box in whole points."""


class RulesLayoutOptions(BaseLayoutOptions):
    """Selects `RulesLayout`."""

    kind: ClassVar[str] = "ragcore_rules"


class RulesTableOptions(BaseTableStructureOptions):
    """Selects `RulesTables`."""

    kind: ClassVar[str] = "ragcore_rules_tables"


class RulesLayout(BaseLayoutModel):
    """Finds headings, lists, paragraphs, tables and page numbers by the rules of `rules.py`."""

    requires_layout_postprocessing = False

    def __init__(self, *, options: RulesLayoutOptions, **_: Any) -> None:
        self.options = options
        self.heading_styles: HeadingStyles = {}

    @classmethod
    def get_options_type(cls) -> type[RulesLayoutOptions]:
        return RulesLayoutOptions

    def predict_layout(
        self, conv_res: ConversionResult, pages: Sequence[Page]
    ) -> Sequence[LayoutPrediction]:
        return [self.predict_page(conv_res, page) for page in pages]

    def predict_page(self, conv_res: ConversionResult, page: Page) -> LayoutPrediction:
        """Return the page's clusters. Never raises: a failing rule costs structure, not text."""
        try:
            clusters = self._clusters(page)
        except Exception as error:  # noqa: BLE001 - one page's structure, not the document
            _log.exception("layout rules failed on page %d", page.page_no)
            conv_res.errors.append(page_warning(page.page_no, "layout rules", error))
            clusters = _plain_clusters(page)
        return LayoutPrediction(clusters=clusters)

    def _clusters(self, page: Page) -> list[Cluster]:
        cells = divided_cells(page)
        size = size_of(page)
        blocks = lay_out(spans_of(cells, size.height), rulings_of(page), page_height=size.height)
        clusters = [_cluster(number, block, cells) for number, block in enumerate(blocks)]
        for block in blocks:
            if block.label == "heading":
                self.heading_styles[style_key(page.page_no, block.box)] = block.style
        return clusters + _pictures(page, first_id=len(clusters))


class RulesTables(BaseTableStructureModel):
    """Finds rows and columns of a table by its gaps and rulings."""

    def __init__(self, *, options: RulesTableOptions, enabled: bool = True, **_: Any) -> None:
        self.options = options
        self.enabled = enabled

    @classmethod
    def get_options_type(cls) -> type[RulesTableOptions]:
        return RulesTableOptions

    def predict_tables(
        self, conv_res: ConversionResult, pages: Sequence[Page]
    ) -> Sequence[TableStructurePrediction]:
        return [self._page_tables(conv_res, page) for page in pages]

    def _page_tables(self, conv_res: ConversionResult, page: Page) -> TableStructurePrediction:
        prediction = TableStructurePrediction()
        layout = page.predictions.layout
        clusters = [
            cluster
            for cluster in (layout.clusters if layout else ())
            if cluster.label == DocItemLabel.TABLE and cluster.cells
        ]
        words = words_of(page) if clusters else None
        for cluster in clusters:
            try:
                if words:
                    cluster.cells = divided(cluster.cells, words)
                table = _table(cluster, page)
            except Exception as error:  # noqa: BLE001 - one table's structure, not the document
                _log.exception("table rules failed on page %d", page.page_no)
                conv_res.errors.append(page_warning(page.page_no, "table rules", error))
                table = _one_column(cluster, page)
            prediction.table_map[cluster.id] = table
        return prediction


# --- the pipeline --------------------------------------------------------------------------


class RenderOnDemand(PagePreprocessingModel):
    """Docling's page preparation without a picture of every page: only OCR and ONNX need one."""

    def _populate_page_images(self, page: Page) -> Page:
        return page


class LayoutAfterOcr(LayoutPostprocessingModel):
    """Lays out recognised pages; in Docling's order layout comes before OCR and sees no text."""

    def __init__(self, layout: RulesLayout) -> None:
        super().__init__(options=LayoutPostprocessorOptions(run_postprocessor=False))
        self.layout = layout

    def postprocess_layout(
        self, conv_res: ConversionResult, pages: Sequence[Page]
    ) -> Sequence[LayoutPrediction]:
        for page in pages:
            if any(cell.from_ocr for cell in page.cells):
                page.predictions.layout = self.layout.predict_page(conv_res, page)
        predictions: Sequence[LayoutPrediction] = super().postprocess_layout(conv_res, pages)
        return predictions


class BandsAndColumns(ReadingOrderPredictor):
    """Docling's reading order with `order.py` for the order itself; captions and merges stay."""

    def __init__(self) -> None:  # Docling's has no types
        super().__init__()  # type: ignore[no-untyped-call]

    def predict_reading_order(
        self,
        page_elements: list[PageElement],
        page_separators: list[SeparatorElement] | None = None,
    ) -> list[PageElement]:
        by_page: dict[int, list[PageElement]] = defaultdict(list)
        for element in page_elements:
            by_page[element.page_no].append(element)
        return [element for _, page in sorted(by_page.items()) for element in _in_order(page)]


def _in_order(elements: Sequence[PageElement]) -> list[PageElement]:
    height = elements[0].page_size.height
    boxes = [_sides(element.to_top_left_origin(height)) for element in elements]
    text = " ".join(element.text for element in elements)
    order = reading_order(boxes, right_to_left=_is_right_to_left(text))
    return [elements[position] for position in order]


class FastPipeline(StandardPdfPipeline):
    """Docling's PDF pipeline with the models of this module."""

    needs_pictures = False
    layout_model: RulesLayout

    def _init_models(self) -> None:
        super()._init_models()
        self.preprocessing_model = RenderOnDemand(PagePreprocessingOptions(images_scale=None))
        self.layout_postprocessing_model = LayoutAfterOcr(self.layout_model)
        self.reading_order_model.ro_model = BandsAndColumns()

    @contextmanager
    def recognising(self, model: BaseOcrModel | None) -> Iterator[None]:
        """Recognise pages with `model` for a while."""
        with recognising(self, model):
            yield

    def take_heading_styles(self) -> HeadingStyles:
        """Return the styles seen since the last call."""
        styles, self.layout_model.heading_styles = self.layout_model.heading_styles, {}
        return styles


@contextmanager
def recognising(pipeline: StandardPdfPipeline, model: BaseOcrModel | None) -> Iterator[None]:
    """Put `model` in the place of a pipeline's recognition, which is off, and take it out again."""
    idle = pipeline.ocr_model
    pipeline.ocr_model = model or idle
    try:
        yield
    finally:
        pipeline.ocr_model = idle


class TextAndRulings(ThreadedDoclingParseDocumentBackend):
    """Docling's PDF parser told to give text and rulings, and no picture of the page.

    Docling's own backend computes shapes only together with a rendered page, which takes twice the
    time of the parsing itself.
    """

    def __init__(self, in_doc: Any, path_or_stream: Any, options: Any = None) -> None:
        import docling.backend.docling_parse_backend as backend

        original = backend._make_docling_parse_page_content_config

        def with_rulings(**wanted: Any) -> Any:
            return original(**(wanted | {"compute_shapes": True}))

        # The constructor builds and loads the parser in one go and offers no option for this one;
        # a child reads one document at a time, so the swap is not seen by anyone else.
        backend._make_docling_parse_page_content_config = with_rulings
        try:
            super().__init__(in_doc, path_or_stream, options)
        finally:
            backend._make_docling_parse_page_content_config = original


def install() -> None:
    """Register the plugins in Docling's factories, once a process; safe to repeat.

    Docling's own table models import torch when their plugin is listed, so that list is replaced
    by ours: without it no PDF pipeline starts where torch is not installed.
    """
    import docling.models.plugins.defaults as defaults
    from docling.models.factories import get_table_structure_factory

    def tables() -> dict[str, list[type]]:
        return {"table_structure_engines": [RulesTables]}

    defaults.table_structure_engines = tables
    get_table_structure_factory(allow_external_plugins=False)
    register(RulesLayout)


def register(model: type[BaseLayoutModel]) -> None:
    """Make a layout model known to Docling, which chooses it by the type of its options."""
    from docling.models.factories import get_layout_factory

    factory = get_layout_factory(allow_external_plugins=False)
    if model.get_options_type() not in factory.classes:
        factory.register(model, "ragcore", model.__module__)


# --- between Docling's values and ours -----------------------------------------------------


def divided_cells(page: Page) -> list[TextCell]:
    """Return the page's lines, those with wide gaps as several cells.

    Docling's parser joins what stands on one baseline across gaps of more than a letter's height:
    good for prose, and the end of a table's columns. `rules.py` joins again what is no table.
    """
    return divided(page.cells, words_of(page))


def words_of(page: Page) -> "WordsByPlace":
    """Return the page's words; none where it was recognised, whose lines are divided already."""
    words = page.parsed_page.word_cells if page.parsed_page else ()
    return WordsByPlace(words, size_of(page).height)


def divided(lines: Iterable[TextCell], words: "WordsByPlace") -> list[TextCell]:
    cells: list[TextCell] = []
    for cell in lines:
        parts = [] if cell.from_ocr or " " not in cell.text else words.parts_of(cell)
        if len(parts) > 1:
            cells.extend(
                _with_text(cell, text, BoundingRectangle.from_bounding_box(_bounding(box)))
                for text, box in parts
            )
        else:
            cells.append(cell)
    return cells


class WordsByPlace:
    """The words of a page, to be found by where they stand."""

    _STEP = 8.0
    """Height in points of the strips that the page is divided into."""

    def __init__(self, words: Iterable[TextCell], page_height: float) -> None:
        self._height = page_height
        self._strips: dict[int, list[tuple[Box, str]]] = defaultdict(list)
        for word in words:
            box = _sides(word.rect.to_bounding_box().to_top_left_origin(page_height))
            self._strips[int((box[1] + box[3]) / 2 // self._STEP)].append((box, word.text))

    def parts_of(self, line: TextCell) -> list[tuple[str, Box]]:
        """Return text and box of the parts between wide gaps; one or none: it has no such gap.

        Words that don't make up the line's text exactly are not trusted to divide it.
        """
        area = _sides(line.rect.to_bounding_box().to_top_left_origin(self._height))
        strips = range(int(area[1] // self._STEP), int(area[3] // self._STEP) + 1)
        words = sorted(
            (box, text)
            for strip in strips
            for box, text in self._strips.get(strip, ())
            if area[1] <= (box[1] + box[3]) / 2 <= area[3]
            and area[0] <= (box[0] + box[2]) / 2 <= area[2]
        )
        if "".join(text for _, text in words).split() != ["".join(line.text.split())]:
            return []
        parts: list[list[tuple[Box, str]]] = []
        for box, text in words:
            if parts and box[0] - parts[-1][-1][0][2] <= _WIDE_GAP * (area[3] - area[1]):
                parts[-1].append((box, text))
            else:
                parts.append([(box, text)])
        return [
            (" ".join(text for _, text in part), enclosing_boxes([box for box, _ in part]))
            for part in parts
        ]


_WIDE_GAP = 0.8
"""Gap between words, in heights of the line, that may divide columns; a space has a quarter."""


def spans_of(cells: Iterable[TextCell], page_height: float) -> list[Span]:
    """Translate Docling's text cells; `index` is a cell's position in `cells`."""
    spans = []
    for index, cell in enumerate(cells):
        box = cell.rect.to_bounding_box().to_top_left_origin(page_height)
        font = str(getattr(cell, "font_name", "")).lower()
        spans.append(
            Span(
                *_sides(box),
                cell.text,
                is_bold=any(word in font for word in ("bold", "black", "heavy", "semibold")),
                is_italic=any(word in font for word in ("italic", "oblique")),
                is_mono=any(word in font for word in ("mono", "courier", "consol", "typewriter")),
                index=index,
            )
        )
    return spans


def size_of(page: Page) -> Size:
    """Return the page's size in points, which Docling knows from the moment it opened the page."""
    if page.size is None:
        raise ValueError(f"page {page.page_no} has no size")
    return page.size


def rulings_of(page: Page) -> list[Box]:
    """Return the straight lines drawn on the page, as thin boxes; none for a scan."""
    lines = page._backend.get_shape_lines() if page._backend is not None else None
    return [_sides(box) for box in lines or ()]


def style_key(page_no: int, box: Box) -> tuple[int, int, int]:
    return page_no, round(box[0]), round(box[1])


def _cluster(number: int, block: Block, cells: Sequence[TextCell]) -> Cluster:
    if block.label == "table":
        chosen = [cells[span.index] for span in block.spans]
    else:
        chosen = [_line_cell(line, cells) for line in block.lines]
        if block.label == "list":
            chosen[0] = _with_text(chosen[0], BULLETS.sub("• ", chosen[0].text))
    return Cluster(
        id=number,
        label=_LABELS[block.label],
        bbox=_bounding(block.box),
        confidence=1.0,
        cells=chosen,
    )


def _line_cell(line: Line, cells: Sequence[TextCell]) -> TextCell:
    """Return one cell for a line: Docling joins cells by a space, also inside a word."""
    first = cells[line.spans[0].index]
    if len(line.spans) == 1:
        return first
    rect = BoundingRectangle.from_bounding_box(_bounding(enclosing(line.spans)))
    return _with_text(first, joined(line.spans), rect)


def _with_text(cell: TextCell, text: str, rect: BoundingRectangle | None = None) -> TextCell:
    return cell.model_copy(update={"text": text, "orig": text, "rect": rect or cell.rect})


def joined(spans: Sequence[Span]) -> str:
    """Join the spans of a line, with a space where there is a gap; right to left where they are."""
    text = spans[0].text
    ordered = list(spans)
    if _is_right_to_left("".join(span.text for span in spans)):
        ordered.reverse()
        text = ordered[0].text
    for before, after in pairwise(ordered):
        gap = max(after.left - before.right, before.left - after.right)
        text += after.text if gap < 0.12 * before.height else " " + after.text
    return text


def _is_right_to_left(text: str) -> bool:
    right_to_left = sum("\u0590" <= character <= "\u08ff" for character in text)
    return right_to_left * 2 > sum(character.isalpha() for character in text)


def _plain_clusters(page: Page) -> list[Cluster]:
    """Return one paragraph per line, for a page whose layout could not be told."""
    return [
        Cluster(
            id=number,
            label=DocItemLabel.TEXT,
            bbox=cell.rect.to_bounding_box().to_top_left_origin(size_of(page).height),
            confidence=0.0,
            cells=[cell],
        )
        for number, cell in enumerate(page.cells)
        if cell.text.strip()
    ]


def _pictures(page: Page, *, first_id: int) -> list[Cluster]:
    """Return the bitmaps that are big enough to be pictures and don't fill the page (a scan)."""
    size = size_of(page)
    area = size.width * size.height
    boxes = [] if page._backend is None else page._backend.get_bitmap_rects()
    pictures = [
        box
        for box in boxes
        if min(box.width, box.height) > _SMALLEST_PICTURE and box.width * box.height < 0.8 * area
    ]
    return [
        Cluster(id=number, label=DocItemLabel.PICTURE, bbox=box, confidence=1.0)
        for number, box in enumerate(pictures, start=first_id)
    ]


def _table(cluster: Cluster, page: Page) -> Table:
    spans = spans_of(cluster.cells, size_of(page).height)
    box = _sides(cluster.bbox)
    rulings = [ruling for ruling in rulings_of(page) if _is_within(ruling, box)]
    grid = grid_of(spans, rulings, body=_median_height(spans))
    return _docling_table(cluster, page, grid.cells, rows=grid.rows, columns=grid.columns)


def _one_column(cluster: Cluster, page: Page) -> Table:
    spans = spans_of(cluster.cells, size_of(page).height)
    cells = [Cell(row, 0, [span]) for row, span in enumerate(spans)]
    return _docling_table(cluster, page, cells, rows=len(cells), columns=1)


def _docling_table(
    cluster: Cluster, page: Page, cells: Sequence[Cell], *, rows: int, columns: int
) -> Table:
    return Table(
        otsl_seq=[],
        table_cells=[_docling_cell(cell) for cell in cells],
        num_rows=rows,
        num_cols=columns,
        id=cluster.id,
        page_no=page.page_no,
        cluster=cluster,
        label=cluster.label,
    )


def _docling_cell(cell: Cell) -> TableCell:
    return TableCell(
        text=cell.text,
        bbox=_bounding(enclosing(cell.spans)),
        col_span=cell.columns,
        start_row_offset_idx=cell.row,
        end_row_offset_idx=cell.row + 1,
        start_col_offset_idx=cell.column,
        end_col_offset_idx=cell.column + cell.columns,
        column_header=cell.row == 0,
    )


def page_warning(page_no: int, what: str, error: Exception) -> ErrorItem:
    return ErrorItem(
        component_type=DoclingComponentType.MODEL,
        module_name=__name__,
        error_message=f"{what} failed on page {page_no}: {error}",
        category=FailureCategory.INFERENCE_FAILURE,
        page_no=page_no,
    )


def _sides(box: BoundingBox) -> Box:
    return box.l, min(box.t, box.b), box.r, max(box.t, box.b)


def _bounding(box: Box) -> BoundingBox:
    return BoundingBox(l=box[0], t=box[1], r=box[2], b=box[3])


def _is_within(inner: Box, outer: Box, slack: float = 3.0) -> bool:
    return (
        inner[0] >= outer[0] - slack
        and inner[1] >= outer[1] - slack
        and inner[2] <= outer[2] + slack
        and inner[3] <= outer[3] + slack
    )


def _median_height(spans: Sequence[Span]) -> float:
    return sorted(span.height for span in spans)[len(spans) // 2]
