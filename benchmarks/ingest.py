"""What ingestion costs over the bare parser and the bare model, and re-ingest over ingest.

    python benchmarks/ingest.py [--documents 100]

The bare cost is the CPU time of Docling with its chunker and of the embedding model alone, one
document after the other in one process, divided by the number of cores: what a perfect pipeline
would need. Ratios are measured in one run on one machine; the wall time is only worth something
when nothing else runs there, so the processor time is printed beside it (ours with the start of the
conversion children, without the database server).
"""

import argparse
import asyncio
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ragcore import Rag
from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.tokenizers import load_counter
from ragcore.settings import ConversionSettings, Settings
from rendering import mixed_files


def bare_costs(files: Sequence[Path]) -> tuple[float, float]:
    """CPU seconds of parsing and chunking, and of embedding what came out, after a warm-up."""
    read, embed = bare_docling(), BundledEmbedder(threads=1)
    asyncio.run(embed.embed_documents(["warm-up"]))
    read(files[0])
    started = time.process_time()
    texts = [text for file in files for text in read(file)]
    parsed = time.process_time()
    asyncio.run(embed.embed_documents(texts))
    return parsed - started, time.process_time() - parsed


def bare_docling() -> Callable[[Path], list[str]]:
    """Docling as its manual shows it: its own PDF pipeline that needs no weights, HybridChunker."""
    from docling.datamodel.base_models import InputFormat
    from docling.datamodel.pipeline_options import NativePdfPipelineOptions
    from docling.document_converter import DocumentConverter, NativePdfFormatOption
    from docling_core.transforms.chunker.hierarchical_chunker import (
        ChunkingDocSerializer,
        ChunkingSerializerProvider,
    )
    from docling_core.transforms.chunker.hybrid_chunker import HybridChunker
    from docling_core.transforms.chunker.tokenizer.base import BaseTokenizer
    from docling_core.transforms.serializer.markdown import MarkdownTableSerializer

    count = load_counter("bundled")

    class Tokens(BaseTokenizer):
        def count_tokens(self, text: str) -> int:
            return count(text)

        def get_max_tokens(self) -> int:
            return Settings().chunking.max_tokens

        def get_tokenizer(self) -> Any:
            return count

    class MarkdownTables(ChunkingSerializerProvider):
        def get_serializer(self, doc: Any) -> Any:
            return ChunkingDocSerializer(doc=doc, table_serializer=MarkdownTableSerializer())

    options = NativePdfPipelineOptions(generate_page_images=False, generate_picture_images=False)
    native = {InputFormat.PDF: NativePdfFormatOption(pipeline_options=options)}
    converter = DocumentConverter(format_options=native)
    chunker = HybridChunker(tokenizer=Tokens(), serializer_provider=MarkdownTables())

    def read(file: Path) -> list[str]:
        document = converter.convert(file).document
        return [chunker.contextualize(chunk) for chunk in chunker.chunk(document)]

    return read


async def ingest(rag: Rag, files: Sequence[Path]) -> tuple[float, int, int]:
    """Wall seconds, chunks and failures."""
    started = time.perf_counter()
    jobs = [job async for job in rag.ingest_many(files)]
    failed = sum(job.status != "succeeded" for job in jobs)
    return time.perf_counter() - started, sum(job.chunks or 0 for job in jobs), failed


def own_cpu() -> float:
    """CPU seconds of this process and of the children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


async def measure(files: Sequence[Path], directory: Path) -> tuple[float, float, int]:
    """Wall seconds of ingesting and of ingesting again, and the chunks that came of it."""
    settings = Settings(data_dir=directory, conversion=ConversionSettings(processes=2))
    async with Rag.open(settings) as rag:
        await rag.ingest_many(files[:1]).__anext__()  # warm: one child and the model
        await rag.ingest_text("# Warm\n\nThe other child.", filename="warm.md")
        first, chunks, failed = await ingest(rag, files[1:])
        again, _, _ = await ingest(rag, files[1:])
    if failed:
        raise SystemExit(f"{failed} documents failed")
    return first, again, chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--documents", type=int, default=100)
    count = parser.parse_args().documents
    with tempfile.TemporaryDirectory(prefix="ragcore-ingest-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # the unprivileged server passes through
        files = mixed_files(directory, count + 1)
        started = own_cpu()
        first, again, chunks = asyncio.run(measure(files, directory / "data"))
        cpu = own_cpu() - started
        parse, embed = bare_costs(files[1:])
    cores = len(os.sched_getaffinity(0))
    ideal = (parse + embed) / cores
    print(f"{count} documents, {chunks} chunks, {cores} cores")
    print(f"bare parsing and chunking  {parse:8.1f} CPU s")
    print(f"bare embedding             {embed:8.1f} CPU s")
    print(
        f"ingest                     {first:8.1f} s = {first / ideal:.2f} x the ideal {ideal:.1f} s"
    )
    print(f"                           {cpu:8.1f} CPU s = {cpu / (parse + embed):.2f} x the bare")
    print(f"ingest again, unchanged    {again:8.2f} s = 1/{first / again:.0f} of the first time")


if __name__ == "__main__":
    main()
