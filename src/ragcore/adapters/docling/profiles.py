"""The three ways to lay out PDF pages, each a Docling pipeline kept warm in the process."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from docling.datamodel.accelerator_options import AcceleratorDevice, AcceleratorOptions
from docling.datamodel.pipeline_options import ThreadedPdfPipelineOptions
from docling.pipeline.standard_pdf_pipeline import StandardPdfPipeline

from ragcore.adapters.docling import layouts
from ragcore.errors import MissingExtra, NotConfigured


class FullPipeline(StandardPdfPipeline):
    """Docling's own layout and table models, where they are provisioned."""

    needs_pictures = True

    @contextmanager
    def recognising(self, model: Any) -> Iterator[None]:
        with layouts.recognising(self, model):
            yield

    def take_heading_styles(self) -> layouts.HeadingStyles:
        """Return none: Docling's layout model tells no sizes, levels come from numbering."""
        return {}


@cache
def pipeline_for(
    profile: Literal["fast", "layout", "full"], artifacts_path: Path | None = None
) -> Any:
    """Return the pipeline of a profile, built once a process.

    Raises MissingExtra where a profile's packages are absent, NotConfigured where its weights are.
    """
    if profile == "full":
        return _full_pipeline(artifacts_path)
    layouts.install()
    if profile == "layout":
        from ragcore.adapters.docling.onnx_layout import (
            OnnxLayout,
            OnnxLayoutOptions,
            OnnxPipeline,
        )

        layouts.register(OnnxLayout)
        return OnnxPipeline(_options(layout_options=OnnxLayoutOptions()))
    return layouts.FastPipeline(_options(layout_options=layouts.RulesLayoutOptions()))


def _options(**chosen: Any) -> ThreadedPdfPipelineOptions:
    return ThreadedPdfPipelineOptions(
        do_ocr=False,
        table_structure_options=layouts.RulesTableOptions(),
        batch_polling_interval_seconds=0.01,
        queue_max_size=4,
        accelerator_options=_accelerator(),
        **chosen,
    )


def _full_pipeline(artifacts_path: Path | None) -> FullPipeline:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            "pdf_profile='full' needs Docling with torch: pip install 'ragcore[docling-full]', "
            "or set pdf_profile to 'fast' or 'layout'"
        ) from error
    if artifacts_path is None or not artifacts_path.is_dir():
        raise NotConfigured(
            f"pdf_profile='full' needs Docling's models, and {str(artifacts_path)!r} is no folder "
            "with them: run `docling-tools models download` and set RAGCORE_CONVERSION__ARTIFACTS"
        )
    return FullPipeline(
        ThreadedPdfPipelineOptions(
            do_ocr=False, artifacts_path=artifacts_path, accelerator_options=_accelerator()
        )
    )


def _accelerator() -> AcceleratorOptions:
    """One thread on the CPU: a child is one of several, and parallelism is between documents."""
    return AcceleratorOptions(num_threads=1, device=AcceleratorDevice.CPU)
