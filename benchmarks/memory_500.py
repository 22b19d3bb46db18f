"""Memory of one conversion child and of its owner over 500 mixed documents.

    python benchmarks/memory_500.py [--documents 500] [--processes 1]

Real documents of all formats but scans, over and over, through children that are never recycled:
the curve is flat when the last quarter holds hardly more than the second.
"""

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter
from ragcore.adapters.docling.processes import resident_mb
from ragcore.ports import ConversionRequest

DOCUMENTS = Path(__file__).resolve().parents[2] / "shared" / "data" / "documents"
LEFT_OUT = ("scan", "index.json")  # recognising a page takes seconds and happens in tesseract


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--processes", type=int, default=1)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.documents, arguments.processes))


async def measure(documents: int, processes: int) -> None:
    files = mixed_files(documents)
    converter = DoclingConverter(
        ConversionOptions(processes=processes, recycle_after=documents + 1, ocr="off")
    )
    await converter.warm()
    before = converter.process_ids
    print(f"{len(files)} documents of {len(set(files))} kinds, {processes} children\n")
    print("documents  children MiB  owner MiB")
    curve = []
    for first in range(0, documents, 25):
        await read_all(converter, files[first : first + 25])
        curve.append(sum(map(resident_mb, converter.process_ids)))
        print(f"{first + 25:9}  {curve[-1]:12}  {resident_mb(own_pid()):9}", flush=True)
    assert converter.process_ids == before, "a child was replaced: the curve is not one child's"
    await converter.aclose()
    quarter = len(curve) // 4
    early, late = statistics.mean(curve[quarter : 2 * quarter]), statistics.mean(curve[-quarter:])
    print(f"\nlast quarter / second quarter: {late / early:.3f}")


def mixed_files(count: int) -> Sequence[Path]:
    """Repeat the documents in an order that mixes formats."""
    files = sorted(
        (file for file in DOCUMENTS.rglob("*") if file.is_file()), key=lambda file: file.stem
    )
    kept = [file for file in files if not file.name.startswith(LEFT_OUT)]
    return [kept[number % len(kept)] for number in range(count)]


async def read_all(converter: DoclingConverter, files: Sequence[Path]) -> None:
    await asyncio.gather(*(read(converter, file) for file in files))


async def read(converter: DoclingConverter, file: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        document = await converter.convert(request_for(file, Path(directory)))
    assert document.chunks


def request_for(file: Path, directory: Path) -> ConversionRequest:
    return ConversionRequest(
        path=file, filename=file.name, mime_type=None, directory=directory,
        max_tokens=384, tokenizer="bytes",
    )  # fmt: skip


def own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


if __name__ == "__main__":
    main()
