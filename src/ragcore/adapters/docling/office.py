"""DOC, XLS, PPT and RTF, by whichever of two programs is installed.

LibreOffice turns them into their successors, which keep slides and sheets apart, so it goes first.
`docling-rs` reads them directly and comes with pip; it is young and may crash, which costs only
this child.
"""

import shutil
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

from ragcore.adapters.docling import metadata, reading
from ragcore.adapters.docling.formats import SourceFormat
from ragcore.errors import ConversionFailed, PasswordRequired, UnsupportedFormat

_SUCCESSORS = {
    SourceFormat.DOC: SourceFormat.DOCX,
    SourceFormat.RTF: SourceFormat.DOCX,
    SourceFormat.XLS: SourceFormat.XLSX,
    SourceFormat.PPT: SourceFormat.PPTX,
}


def read(
    path: Path, source_format: SourceFormat, *, options: reading.ReadingOptions, scratch: Path
) -> reading.Reading:
    """Read a file of an older Office.

    Raises UnsupportedFormat where neither program is installed, PasswordRequired,
    ConversionFailed where the program can't read the file.
    """
    if program := shutil.which("soffice") or shutil.which("libreoffice"):
        newer = _modernised(path, source_format, program, scratch)
        result = reading.read(newer, format=_SUCCESSORS[source_format], options=options)
        return replace(result, profile="libreoffice")
    if find_spec("docling_rs") is not None:
        return _read_by_docling_rs(path, source_format)
    raise UnsupportedFormat(
        f"reading {source_format.value!r} takes one more program: `pip install "
        "'ragcore[old-office]'`, or LibreOffice (`apt install libreoffice-core libreoffice-writer "
        "libreoffice-calc libreoffice-impress`); or save the file as "
        f"{_SUCCESSORS[source_format].value!r}"
    )


def _modernised(path: Path, source_format: SourceFormat, program: str, scratch: Path) -> Path:
    """Have LibreOffice save the file in its newer format.

    It gets a profile of its own, so that children don't wait for each other, and dies with the
    child's process group.
    """
    target = _SUCCESSORS[source_format].value
    source = scratch / f"source.{source_format.value}"  # the name tells LibreOffice the format
    shutil.copyfile(path, source)
    result = subprocess.run(
        [
            program, f"-env:UserInstallation={(scratch / 'profile').as_uri()}",
            "--headless", "--norestore", "--convert-to", target,
            "--outdir", str(scratch / "converted"), str(source),
        ],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    converted = scratch / "converted" / f"source.{target}"
    if not converted.exists():
        reason = (result.stderr or result.stdout).strip()[-300:] or "no reason given"
        raise ConversionFailed(f"LibreOffice can't read the {source_format.value}: {reason}")
    return converted


def _read_by_docling_rs(path: Path, source_format: SourceFormat) -> reading.Reading:
    import docling_rs

    source = docling_rs.DocumentStream(
        name=f"source.{source_format.value}", stream=BytesIO(path.read_bytes())
    )
    try:
        document = docling_rs.DocumentConverter().convert(source).document
    except docling_rs.EncryptionError as error:
        raise PasswordRequired("the document is encrypted; save it without a password") from error
    except docling_rs.ConversionError as error:
        raise ConversionFailed(f"the {source_format.value} can't be read: {error}") from error
    return reading.Reading(
        document=document,
        title=metadata.first_heading(document),
        extracted={},
        profile="docling-rs",
    )
