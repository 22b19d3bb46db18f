"""An embedding model of hashed words: no weights, the same vectors everywhere."""

import re
from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from ragcore.errors import ModelUnavailable, Rejected
from ragcore.model import EmbeddingSpec, Vector, Vectors

_WORD = re.compile(r"\w+")


class MemoryEmbedder:
    """`ports.Embedder` for tests of flows: texts that share words are close.

    A token is a word. Texts that hold `poison` are refused, as are those over `max_tokens`; the
    first `failures` calls raise ModelUnavailable. `calls` keeps what was asked.
    """

    def __init__(
        self,
        *,
        dimension: int = 64,
        max_tokens: int = 512,
        poison: str | None = None,
        failures: int = 0,
        languages: frozenset[str] | None = None,
    ) -> None:
        self.spec = EmbeddingSpec(
            model="memory:words",
            dimension=dimension,
            max_tokens=max_tokens,
            query_prefix="",
            document_prefix="",
            digest="1",
            languages=languages,
        )
        self.poison = poison
        self.failures = failures
        self.calls: list[tuple[str, ...]] = []
        self.is_closed = False

    def count_tokens(self, text: str) -> int:
        return len(_WORD.findall(text))

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        self._accept(texts)
        vectors = [self._vector(text) for text in texts]
        return np.array(vectors, np.float32).reshape(len(texts), self.spec.dimension)

    async def embed_query(self, text: str) -> Vector:
        self._accept([text])
        return self._vector(text)

    async def aclose(self) -> None:
        self.is_closed = True

    def _accept(self, texts: Sequence[str]) -> None:
        self.calls.append(tuple(texts))
        if self.failures > 0:
            self.failures -= 1
            raise ModelUnavailable("the model was told to fail")
        for text in texts:
            if self.poison is not None and self.poison in text:
                raise Rejected(f"{self.poison!r} is poison to this model")
            if self.count_tokens(text) > self.spec.max_tokens:
                raise Rejected(f"a text is over {self.spec.max_tokens} tokens")

    def _vector(self, text: str) -> Vector:
        """Add up one random direction a word, and a little of one that all texts share."""
        total = 0.1 * self._direction("")
        for word in _WORD.findall(text.lower()):
            total += self._direction(word)
        return np.asarray(total / np.linalg.norm(total), np.float32)

    def _direction(self, word: str) -> Vector:
        seed = int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little")
        return np.random.default_rng(seed).standard_normal(self.spec.dimension).astype(np.float32)
