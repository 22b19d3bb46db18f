"""Pages drawn by real children, from good files and from hostile ones."""

import asyncio
import io
from pathlib import Path

import pytest
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from ragcore.adapters.docling.rendering import PageRenderer
from ragcore.errors import ConversionError, ConversionTimeout, PageNotFound, RagError


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "marked.pdf"
    canvas = Canvas(str(path), pagesize=A4)
    canvas.drawString(72, 700, "The first page.")
    canvas.showPage()
    canvas.setFillColorRGB(1, 0, 0)
    canvas.rect(100, A4[1] - 250, 200, 50, stroke=0, fill=1)  # 200 to 250 points from the top
    canvas.showPage()
    canvas.save()
    return path


def opened(png: bytes) -> Image.Image:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


async def test_a_page_of_a_pdf_is_drawn_where_its_boxes_are(pdf: Path, tmp_path: Path) -> None:
    drawn = await PageRenderer().render(pdf, page=2, dots_per_inch=72, directory=tmp_path)
    image = opened(drawn.png)
    assert (drawn.width, drawn.height) == pytest.approx(A4, abs=0.1)
    assert image.size == pytest.approx((drawn.width, drawn.height), abs=1)
    assert image.getpixel((200, 225)) == (255, 0, 0)
    assert image.getpixel((200, 180)) == (255, 255, 255)


async def test_more_dots_make_a_larger_picture_of_the_same_page(pdf: Path, tmp_path: Path) -> None:
    drawn = await PageRenderer().render(pdf, page=1, dots_per_inch=144, directory=tmp_path)
    assert opened(drawn.png).size[0] == pytest.approx(2 * drawn.width, abs=2)


@pytest.fixture
def poster(tmp_path: Path) -> Path:
    path = tmp_path / "poster.pdf"
    canvas = Canvas(str(path), pagesize=(14_000, 14_000))
    canvas.drawString(72, 700, "large")
    canvas.save()
    return path


async def test_a_huge_page_is_drawn_smaller(poster: Path, tmp_path: Path) -> None:
    drawn = await PageRenderer().render(poster, page=1, dots_per_inch=300, directory=tmp_path)
    width, height = opened(drawn.png).size
    assert width * height <= 26_000_000
    assert drawn.width == 14_000


@pytest.mark.parametrize("page", [0, 3, 10**6])
async def test_a_page_out_of_range_is_not_found(pdf: Path, tmp_path: Path, page: int) -> None:
    with pytest.raises(PageNotFound, match="the document has 2"):
        await PageRenderer().render(pdf, page=page, dots_per_inch=72, directory=tmp_path)


async def test_each_frame_of_a_picture_is_a_page(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (300, 150), color) for color in ("white", "blue")]
    path = tmp_path / "scan.tiff"
    frames[0].save(path, save_all=True, append_images=frames[1:], dpi=(150, 150))
    drawn = await PageRenderer().render(path, page=2, dots_per_inch=72, directory=tmp_path)
    image = opened(drawn.png)
    assert (drawn.width, drawn.height) == (144, 72)
    assert (image.size, image.getpixel((5, 5))) == ((144, 72), (0, 0, 255))


async def test_a_text_has_no_pages_to_draw(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("a text")
    with pytest.raises(PageNotFound, match="only pages of PDF files and pictures"):
        await PageRenderer().render(path, page=1, dots_per_inch=72, directory=tmp_path)


async def test_hostile_files_end_as_refusals_or_pictures(shared_data: Path, tmp_path: Path) -> None:
    """Nothing but a known error comes out of them, and the next page is drawn as ever."""
    renderer = PageRenderer(timeout_seconds=60)
    for path in sorted((shared_data / "hostile").iterdir()):
        directory = tmp_path / path.name
        directory.mkdir()
        try:
            drawn = await renderer.render(path, page=1, dots_per_inch=72, directory=directory)
        except RagError as error:
            assert isinstance(error, ConversionError | PageNotFound) or error.code in {
                "unsupported_format"
            }, (path.name, error)
        else:
            opened(drawn.png)


async def test_a_drawing_that_takes_too_long_is_stopped(pdf: Path, tmp_path: Path) -> None:
    renderer = PageRenderer(timeout_seconds=0.001)
    with pytest.raises(ConversionTimeout, match=r"longer than 0\.001 s"):
        await renderer.render(pdf, page=1, dots_per_inch=72, directory=tmp_path)
    assert not _children()


async def test_a_drawing_that_needs_too_much_memory_fails(poster: Path, tmp_path: Path) -> None:
    renderer = PageRenderer(memory_mb=-944)  # 80 MiB of address space in all
    with pytest.raises(ConversionError):
        await renderer.render(poster, page=1, dots_per_inch=300, directory=tmp_path)


async def test_cancelling_kills_the_child(pdf: Path, tmp_path: Path) -> None:
    drawing = asyncio.create_task(
        PageRenderer().render(pdf, page=1, dots_per_inch=72, directory=tmp_path)
    )
    while not _children():  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0.01)
    drawing.cancel()
    await asyncio.wait([drawing])
    assert not _children()


def _children() -> str:
    """The process ids of our own children that draw."""
    children = Path("/proc/self/task")
    found = []
    for task in children.iterdir():
        for pid in (task / "children").read_text().split():
            try:
                command = Path("/proc", pid, "cmdline").read_text()
            except OSError:
                continue
            if "rendering_child" in command:
                found.append(pid)
    return " ".join(found)
