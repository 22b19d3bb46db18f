"""Old Office formats: by LibreOffice, else by docling-rs, else refused with the way out."""

from pathlib import Path

import pytest
from docx import Document

from ragcore.adapters.docling import office
from ragcore.adapters.docling.formats import SourceFormat, binary_format
from ragcore.adapters.docling.reading import ReadingOptions
from ragcore.errors import ConversionFailed, UnsupportedFormat

RTF = (
    rb"{\rtf1\ansi\ansicpg1251\deff0{\fonttbl{\f0 Times New Roman;}}\f0\fs24 "
    rb"The harbour master keeps a journal.\par \'cf\'f0\'e8\'e2\'e5\'f2.\par}"
)


@pytest.fixture
def rtf(tmp_path: Path) -> Path:
    path = tmp_path / "letter"
    path.write_bytes(RTF)
    return path


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory in which programs are found."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/bin")
    return directory


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


def read(path: Path, scratch: Path) -> str:
    source_format = binary_format(path)
    assert source_format is SourceFormat.RTF
    result = office.read(path, source_format, options=ReadingOptions(), scratch=scratch)
    return result.document.export_to_markdown()


@pytest.mark.usefixtures("programs")
def test_docling_rs_reads_rtf_with_its_code_page(rtf: Path, scratch: Path) -> None:
    text = read(rtf, scratch)
    assert "The harbour master keeps a journal." in text
    assert "Привет." in text


def test_libreoffice_goes_first(rtf: Path, scratch: Path, programs: Path, tmp_path: Path) -> None:
    """A stand-in with LibreOffice's command line: it saves a ready DOCX where it is told to."""
    document = Document()
    document.add_paragraph("Saved by LibreOffice.")
    document.save(str(tmp_path / "ready.docx"))
    soffice = programs / "soffice"
    soffice.write_text(
        "#!/bin/sh\n"
        'while [ $# -gt 1 ]; do [ "$1" = --outdir ] && outdir=$2; shift; done\n'
        f'mkdir -p "$outdir" && cp {tmp_path}/ready.docx "$outdir/source.docx"\n'
    )
    soffice.chmod(0o755)
    assert "Saved by LibreOffice." in read(rtf, scratch)


def test_a_refusal_of_libreoffice_is_told(rtf: Path, scratch: Path, programs: Path) -> None:
    soffice = programs / "soffice"
    soffice.write_text("#!/bin/sh\necho 'source file could not be loaded' >&2\n")
    soffice.chmod(0o755)
    with pytest.raises(ConversionFailed, match="could not be loaded"):
        read(rtf, scratch)


@pytest.mark.usefixtures("programs")
def test_without_either_the_message_says_what_to_install(
    rtf: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedFormat, match=r"ragcore\[old-office\]"):
        read(rtf, scratch)
