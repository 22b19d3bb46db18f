"""DOC, XLS, PPT and RTF → their successors, by LibreOffice where it is installed."""

import shutil
import subprocess
from pathlib import Path

from ragcore.adapters.docling.formats import SourceFormat
from ragcore.errors import ConversionFailed, UnsupportedFormat

WARNING = "read by way of LibreOffice"

_SUCCESSORS = {
    SourceFormat.DOC: SourceFormat.DOCX,
    SourceFormat.RTF: SourceFormat.DOCX,
    SourceFormat.XLS: SourceFormat.XLSX,
    SourceFormat.PPT: SourceFormat.PPTX,
}


def modernise(path: Path, source_format: SourceFormat, scratch: Path) -> tuple[SourceFormat, Path]:
    """Convert a file and return what it became and where it lies.

    LibreOffice gets a profile of its own in `scratch`, so that children don't wait for each other,
    and dies with the child's process group. Raises UnsupportedFormat where it is not installed,
    ConversionFailed when it can't read the file.
    """
    program = shutil.which("soffice") or shutil.which("libreoffice")
    if program is None:
        raise UnsupportedFormat(
            f"reading {source_format.value!r} takes LibreOffice: `apt install libreoffice-core "
            "libreoffice-writer libreoffice-calc libreoffice-impress`, or save the file as "
            f"{_SUCCESSORS[source_format].value!r}"
        )
    target = _SUCCESSORS[source_format]
    source = scratch / f"source.{source_format.value}"  # the name tells LibreOffice the format
    shutil.copyfile(path, source)
    result = subprocess.run(
        [
            program, f"-env:UserInstallation={(scratch / 'profile').as_uri()}",
            "--headless", "--norestore", "--convert-to", target.value,
            "--outdir", str(scratch / "converted"), str(source),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    converted = scratch / "converted" / f"source.{target.value}"
    if not converted.exists():
        reason = (result.stderr or result.stdout).strip()[-300:] or "no reason given"
        raise ConversionFailed(f"LibreOffice can't read the {source_format.value}: {reason}")
    return target, converted
