from collections.abc import Iterator
from pathlib import Path

import pytest

from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.adapters.docling.tesseract import installed_languages


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The only directory where programs are found."""
    monkeypatch.setenv("PATH", str(tmp_path))
    installed_languages.cache_clear()
    yield tmp_path
    installed_languages.cache_clear()


def fingerprint(**options: object) -> str:
    return DoclingConverter(ConversionOptions(**options)).fingerprint  # type: ignore[arg-type]


def install_tesseract(programs: Path, *languages: str) -> None:
    program = programs / "tesseract"
    program.write_text("#!/bin/sh\n" + "".join(f"echo {line}\n" for line in ("List", *languages)))
    program.chmod(0o755)
    installed_languages.cache_clear()


def test_documents_are_read_again_once_their_language_can_be_recognised(programs: Path) -> None:
    without = fingerprint()
    install_tesseract(programs, "eng")
    english = fingerprint()
    install_tesseract(programs, "eng", "rus", "deu")
    both = fingerprint()
    assert len({without, english, both}) == 3
    assert "ocr=off" in without and "ocr=auto:rus+eng" in both


def test_without_recognition_nobody_asks_for_languages(programs: Path) -> None:
    off = fingerprint(ocr="off")
    install_tesseract(programs, "eng", "rus")
    assert fingerprint(ocr="off") == off
