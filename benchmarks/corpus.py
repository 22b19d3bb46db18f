"""Synthetic collections of real sentences, the same on every machine: fixed data, fixed seed."""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ragcore.model import Chunk, Vectors

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
DIMENSION = 384
_TOPICS = 500


def sentences() -> list[str]:
    """Every sentence of XQuAD (English and Russian) and NPL, in a fixed order."""
    texts = [*_xquad("en"), *_xquad("ru"), *npl_documents().values()]
    found = {s.strip() for text in texts for s in re.split(r"(?<=[.!?])\s+", text)}
    return sorted(s for s in found if len(s.split()) >= 4)


def npl_documents() -> dict[str, str]:
    """NPL's abstracts by their number."""
    lines = (SHARED / "npl" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return {str(row["id"]): row["text"] for row in map(json.loads, lines)}


def unit_vectors(count: int, *, seed: int, dimension: int = DIMENSION) -> Vectors:
    """Vectors around common topics with a shared mean, as text embeddings are."""
    generator = np.random.default_rng(seed)
    topics = np.random.default_rng(0).standard_normal((_TOPICS, dimension)).astype(np.float32)
    mean = np.random.default_rng(1).standard_normal(dimension).astype(np.float32)
    noise = generator.standard_normal((count, dimension)).astype(np.float32)
    vectors = 1.1 * mean + topics[generator.integers(0, _TOPICS, count)] + 0.7 * noise
    unit: Vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def chunks(
    count: int, pool: Sequence[str], *, seed: int, prefix: str = "c", words: int = 150
) -> Iterator[Chunk]:
    """Chunks of about so many words, each of real sentences of one language put together anew."""
    generator = random.Random(seed)
    russian = [s for s in pool if is_russian(s)]
    english = [s for s in pool if not is_russian(s)]
    languages = [("ru", russian), ("en", english)] if russian else [("en", english)]
    for number in range(count):
        language, sentences_ = generator.choice(languages)
        chosen: list[str] = []
        while sum(len(s.split()) for s in chosen) < words:
            chosen.append(generator.choice(sentences_))
        yield one(f"{prefix}{number}", " ".join(chosen), language=language)


def one(chunk_id: str, text: str, *, language: str = "en") -> Chunk:
    return Chunk(chunk_id, 0, text, text, tokens=len(text.split()), language=language)


def is_russian(text: str) -> bool:
    return re.search("[а-яё]", text) is not None


def questions(count: int, pool: Sequence[str], *, words: int, seed: int) -> list[str]:
    """Questions of so many longish words, each set taken from one sentence."""
    generator = random.Random(seed)
    found: list[str] = []
    while len(found) < count:
        candidates = re.findall(r"\w{4,}", generator.choice(pool))
        if len(candidates) >= words:
            found.append(" ".join(generator.sample(candidates, words)))
    return found


def _xquad(language: str) -> list[str]:
    path = SHARED / "xquad" / f"xquad.{language}.json"
    articles = json.loads(path.read_text(encoding="utf-8"))["data"]
    return [p["context"] for article in articles for p in article["paragraphs"]]
