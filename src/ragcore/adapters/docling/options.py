"""What a converter can be told, in plain numbers: adapters never see the settings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class ConversionOptions:
    """Limits and ways of reading; the same for every file of one converter."""

    processes: int = 2
    """Most children at a time."""
    timeout_seconds: float = 300.0
    """Wall-clock limit of one file; the child's whole process group is killed."""
    memory_mb: int = 3072
    """Memory limit of a child, in MiB; Docling alone takes 250."""
    max_file_mb: int = 200
    small_file_kb: int = 1024
    """Files up to so many KiB have a child of their own when larger ones keep the others; 0: no."""
    max_pages: int = 2000
    max_image_megapixels: int = 100
    window_pages: int = 20
    recycle_after: int = 200
    """Files after which a fresh child replaces the old one."""
    pdf_profile: Literal["fast", "layout", "full"] = "fast"
    ocr: Literal["auto", "off", "force"] = "auto"
    ocr_languages: tuple[str, ...] = ("rus", "eng")
    artifacts: Path | None = None
    """Folder with Docling's own models, for the profile `full`."""
    counters: str | None = None
    """`module:function` that makes a token counter of its name; imported in the child only.

    Adapters don't know one another: this is how the runtime lends the models' tokenizers to the
    conversion child. Without it only the counter `bytes` is known.
    """
