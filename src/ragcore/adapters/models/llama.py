"""Any LlamaIndex embedding model as `ports.Embedder`."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ragcore.adapters.models import tokenizers
from ragcore.errors import ModelUnavailable, RagError, Rejected
from ragcore.model import EmbeddingSpec, Vector, Vectors

if TYPE_CHECKING:
    from llama_index.core.base.embeddings.base import BaseEmbedding

_Result = TypeVar("_Result")

_BUGS = (AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError)
_MAY_SUCCEED_LATER = frozenset({408, 409, 425, 429})


class LlamaIndexEmbedder:
    """A `BaseEmbedding` that the caller made and keeps; made into an embedder by `open`.

    Its sync methods run in a small pool of threads, since the async ones of many models compute on
    the event loop; questions have a thread of their own. So it may be used from several loops.
    Prefixes (`query_instruction` …) are the model's own settings.
    """

    def __init__(
        self, model: "BaseEmbedding", *, spec: EmbeddingSpec, counter: str, concurrency: int
    ) -> None:
        self.counter_name = counter
        """The token counter that fits, for `tokenizers.load_counter`."""
        self._model = model
        self._spec = spec
        self._documents = ThreadPoolExecutor(concurrency, thread_name_prefix="embed-document")
        self._questions = ThreadPoolExecutor(1, thread_name_prefix="embed-question")

    @classmethod
    async def open(
        cls,
        model: "BaseEmbedding",
        *,
        max_tokens: int = 512,
        counter: str = "bytes",
        languages: frozenset[str] | None = None,
        concurrency: int = 1,
    ) -> "LlamaIndexEmbedder":
        """Embed one word to learn the dimension. Raises ModelUnavailable, Rejected.

        `max_tokens` and `counter` say what the model reads and how its tokens are counted; the
        default is safe for any model of 512 tokens and cuts short chunks.
        """
        probe = await asyncio.to_thread(_translated, lambda: model.get_query_embedding("dimension"))
        spec = EmbeddingSpec(
            model=f"{model.class_name()}:{model.model_name}",
            dimension=len(probe),
            max_tokens=max_tokens,
            languages=languages,
        )
        return cls(model, spec=spec, counter=counter, concurrency=concurrency)

    @property
    def spec(self) -> EmbeddingSpec:
        return self._spec

    def count_tokens(self, text: str) -> int:
        return tokenizers.load_counter(self.counter_name)(text)

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self._spec.dimension), np.float32)
        cleaned = [tokenizers.cleaned(text) for text in texts]
        answer = await _in_thread(
            self._documents, lambda: self._model.get_text_embedding_batch(cleaned)
        )
        return self._unit(answer)

    async def embed_query(self, text: str) -> Vector:
        cleaned = tokenizers.cleaned(text)
        answer = await _in_thread(self._questions, lambda: self._model.get_query_embedding(cleaned))
        return np.asarray(self._unit([answer])[0], np.float32)

    async def aclose(self) -> None:
        """Wait for calls under way; the model itself is its owner's."""
        for pool in (self._documents, self._questions):
            await asyncio.to_thread(pool.shutdown)

    def _unit(self, answer: Sequence[Sequence[float]]) -> Vectors:
        vectors = np.array(answer, np.float32)
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if vectors.shape[1:] != (self._spec.dimension,) or not np.all(lengths > 0):
            raise Rejected(
                f"{self._spec.model!r} answered with an array of shape {vectors.shape}, or with a "
                f"vector that has no direction; its dimension is {self._spec.dimension}"
            )
        return np.asarray(vectors / lengths, np.float32)


async def _in_thread(pool: ThreadPoolExecutor, call: Callable[[], _Result]) -> _Result:
    return await asyncio.get_running_loop().run_in_executor(pool, _translated, call)


def _translated(call: Callable[[], _Result]) -> _Result:
    """Call somebody else's model, whose errors nobody lists, and make them ours.

    Bugs pass through; a refusal (ValueError, a 4xx status) is Rejected; anything else is taken for
    a failure that may pass.
    """
    try:
        return call()
    except (RagError, *_BUGS):
        raise
    except Exception as error:
        status = getattr(error, "status_code", None)
        refused = isinstance(status, int) and 400 <= status < 500
        if isinstance(error, ValueError) or (refused and status not in _MAY_SUCCEED_LATER):
            raise Rejected(f"the embedding model refused the text: {error!r}") from error
        raise ModelUnavailable(
            f"the embedding model failed: {error!r}; look into its log"
        ) from error
