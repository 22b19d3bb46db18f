"""The committed samples are what samples/make_samples.py makes."""

import importlib.util
import json
import zipfile
from pathlib import Path
from types import ModuleType

import pypdfium2
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SAMPLES = REPOSITORY / "samples"
DOCUMENTS = SAMPLES / "documents"
NAMES = sorted(path.name for path in DOCUMENTS.iterdir())


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_samples", SAMPLES / "make_samples.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def remade(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        generator.font_file("DejaVuSans.ttf")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder: Path = tmp_path_factory.mktemp("samples")
    generator.main(folder)
    return folder


def content_of(path: Path) -> object:
    """What a reader gets from a file, apart from compression and the date of writing."""
    if path.suffix == ".pdf":
        return pdf_content(path)
    if path.suffix in (".docx", ".xlsx"):
        with zipfile.ZipFile(path) as archive:
            return {
                name: archive.read(name)
                for name in archive.namelist()
                if name.startswith(("word/document", "xl/worksheets", "xl/sharedStrings"))
            }
    return path.read_text(encoding="utf-8")


def pdf_content(path: Path) -> list[object]:
    """Text of each page, and the pixels of a page without text."""
    document = pypdfium2.PdfDocument(path)
    try:
        pages: list[object] = []
        for page in document:
            text = page.get_textpage().get_text_bounded()
            pages.append(text or page.render(scale=0.5).to_numpy().tobytes())
        return pages
    finally:
        document.close()


def test_the_generator_makes_exactly_the_committed_files(generator: ModuleType) -> None:
    assert sorted(generator.SAMPLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_committed_sample_is_what_the_generator_makes(name: str, remade: Path) -> None:
    assert content_of(DOCUMENTS / name) == content_of(remade / name)


def test_the_scan_has_no_text_layer() -> None:
    document = pypdfium2.PdfDocument(DOCUMENTS / "объявление-скан.pdf")
    try:
        assert document[0].get_textpage().get_text_bounded() == ""
    finally:
        document.close()


def test_the_samples_are_small() -> None:
    assert sum(path.stat().st_size for path in DOCUMENTS.iterdir()) < 300_000


def test_every_question_names_a_sample_and_both_languages_are_asked() -> None:
    questions = json.loads((SAMPLES / "questions.json").read_text(encoding="utf-8"))
    assert {question["file"] for question in questions} <= set(NAMES)
    assert {question["language"] for question in questions} == {"en", "ru"}
