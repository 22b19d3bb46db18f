"""What the disposable children cost over the same work done in one process without any protection.

    python benchmarks/conversion.py [--documents 100] [--processes 2]

Bare: the child's own function, called here, one file after the other, warmed up. CPU seconds are
compared (neighbours on the machine matter little), and the wall time with what a perfect division
of the bare CPU time among the processors would take.
"""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from memory_500 import mixed_files, read_all, request_for
from ragcore.adapters.docling import work
from ragcore.adapters.docling.converter import ConversionOptions, DoclingConverter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    files = mixed_files(arguments.documents)
    bare = bare_cpu_seconds(files)
    wall, working, starting = asyncio.run(with_children(files, arguments.processes))
    cores = min(arguments.processes, os.cpu_count() or 1)
    print(f"{len(files)} documents of {len(set(files))} kinds, {arguments.processes} children")
    print(f"bare:          {bare:6.1f} CPU s")
    print(f"with children: {working:6.1f} CPU s ({working / bare:.2f} x bare)")
    print(f"starting them: {starting:6.1f} CPU s, once")
    print(f"wall time:     {wall:6.1f} s ({wall / (bare / cores):.2f} x bare / {cores} processors)")


def bare_cpu_seconds(files: Sequence[Path]) -> float:
    work.preload()
    read_bare(files[0])
    started = time.process_time()
    for file in files:
        read_bare(file)
    return time.process_time() - started


def read_bare(file: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        request = request_for(file, Path(directory))
        work.convert(request, ConversionOptions(ocr="off"), lambda stage, share: None)


async def with_children(files: Sequence[Path], processes: int) -> tuple[float, float, float]:
    """Return wall seconds, CPU seconds of the work, and CPU seconds of starting."""
    converter = DoclingConverter(ConversionOptions(processes=processes, ocr="off"))
    await converter.warm()
    starting = sum(map(cpu_seconds, converter.process_ids))
    own = time.process_time()
    started = time.perf_counter()
    await read_all(converter, files)
    wall = time.perf_counter() - started
    own = time.process_time() - own
    await converter.aclose()
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, usage.ru_utime + usage.ru_stime - starting + own, starting


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
