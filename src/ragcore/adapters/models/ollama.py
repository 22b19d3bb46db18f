"""Embedding models behind an Ollama server, by LlamaIndex's `OllamaEmbedding`."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np

from ragcore.adapters.models import e5_file, tokenizers
from ragcore.adapters.models.known_models import KnownModel, known_model
from ragcore.adapters.models.limiter import RequestLimiter
from ragcore.errors import MissingExtra, ModelUnavailable, NotConfigured, Rejected
from ragcore.model import EmbeddingSpec, Vector, Vectors

if TYPE_CHECKING:
    from llama_index.embeddings.ollama import OllamaEmbedding

DEFAULT_MODEL = "nomic-embed-text-v2-moe"
"""Multilingual; `nomic-embed-text` alone is v1.5, which reads English only."""

_ONE_REQUEST = 2048  # texts; LlamaIndex's own limit of a batch
_UNKNOWN_MAX_TOKENS = 512
# Answers of status 500 that are about the text, not about the server's health.
_TEXT_AT_FAULT = re.compile(r"NaN|context length|exceeds|too large to process", re.IGNORECASE)


class OllamaEmbedder:
    """One model of an Ollama server as `ports.Embedder`; made by `open`.

    It belongs to the event loop it was opened on. Requests are not repeated here: the caller
    (`flows.embedding`) decides that. Texts over the model's limit are refused before they are sent,
    where their tokens can be counted exactly; otherwise the server's own refusal is passed on.
    """

    def __init__(
        self, client: "OllamaEmbedding", *, spec: EmbeddingSpec, counter: str, concurrency: int
    ) -> None:
        self.counter_name = counter
        """The token counter that fits, for `tokenizers.load_counter`."""
        self._client = client
        self._spec = spec
        self._limiter = RequestLimiter(concurrency)

    @classmethod
    async def open(
        cls,
        *,
        url: str,
        model: str | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        tokenizer_file: Path | None = None,
        max_tokens: int | None = None,
        timeout_seconds: float = 60.0,
        concurrency: int = 4,
    ) -> "OllamaEmbedder":
        """Ask the server about the model; what is given here overrides what it and we know.

        Raises MissingExtra without the integration, ModelUnavailable when the server is away or
        lacks the model (the message says how to pull it), NotConfigured for one that can't embed.
        """
        name = model or DEFAULT_MODEL
        client = await asyncio.to_thread(_client, url, name, timeout_seconds)
        try:
            described = await _describe(client)
        except BaseException:
            await _close(client)
            raise
        known = known_model(name)
        expected = known or KnownModel(max_tokens=_UNKNOWN_MAX_TOKENS)
        spec = EmbeddingSpec(
            model=f"ollama:{name}",
            dimension=described.dimension,
            max_tokens=max_tokens or min(expected.max_tokens, described.context_length),
            query_prefix=expected.query_prefix if query_prefix is None else query_prefix,
            document_prefix=(
                expected.document_prefix if document_prefix is None else document_prefix
            ),
            digest=described.digest,
            languages=expected.languages,
        )
        counter = await asyncio.to_thread(_counter_name, expected, tokenizer_file)
        return cls(client, spec=spec, counter=counter, concurrency=concurrency)

    @property
    def spec(self) -> EmbeddingSpec:
        return self._spec

    def count_tokens(self, text: str) -> int:
        """Exact for XLM-RoBERTa's vocabulary and with a tokenizer file, else an upper bound."""
        return tokenizers.load_counter(self.counter_name)(self._spec.document_prefix + text)

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        if not texts:
            return np.empty((0, self._spec.dimension), np.float32)
        await asyncio.to_thread(self._refuse_long, texts)
        prefixed = [self._spec.document_prefix + tokenizers.cleaned(text) for text in texts]
        async with self._limiter.slot(is_question=False):
            return await self._answer(
                lambda: self._client.aget_text_embedding_batch(prefixed), len(texts)
            )

    async def embed_query(self, text: str) -> Vector:
        prefixed = self._spec.query_prefix + tokenizers.cleaned(text)
        async with self._limiter.slot(is_question=True):

            async def ask() -> list[list[float]]:
                return [await self._client.aget_query_embedding(prefixed)]

            vectors = await self._answer(ask, 1)
            return np.asarray(vectors[0], np.float32)

    async def aclose(self) -> None:
        await _close(self._client)

    def _refuse_long(self, texts: Sequence[str]) -> None:
        if self.counter_name == "bytes":
            return
        for text in texts:
            if (tokens := self.count_tokens(text)) > self._spec.max_tokens:
                raise Rejected(
                    f"a text of {tokens} tokens is over the {self._spec.max_tokens} that "
                    f"{self._spec.model!r} reads: lower RAGCORE_CHUNKING__MAX_TOKENS"
                )

    async def _answer(
        self, ask: Callable[[], Awaitable[list[list[float]]]], expected: int
    ) -> Vectors:
        with _translated(self._client):
            answer = await ask()
        vectors = np.array(answer, np.float32)
        if vectors.shape != (expected, self._spec.dimension):
            raise Rejected(
                f"{self._spec.model!r} answered {expected} texts with an array of shape "
                f"{vectors.shape}; {(expected, self._spec.dimension)} was expected"
            )
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.all(np.isfinite(lengths) & (lengths > 0)):
            raise Rejected(f"{self._spec.model!r} answered with a vector that has no direction")
        return np.asarray(vectors / lengths, np.float32)


# --- the server ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Description:
    """What the server says about a model."""

    digest: str | None
    dimension: int
    context_length: int


def _client(url: str, model: str, timeout_seconds: float) -> "OllamaEmbedding":
    try:
        from llama_index.embeddings.ollama import OllamaEmbedding
    except ImportError as error:
        raise MissingExtra(
            "embedding with Ollama needs its integration: pip install 'ragcore[ollama]'"
        ) from error
    # Prefixes are put before the texts by us: the class would add a space of its own to them.
    return OllamaEmbedding(
        model_name=model,
        base_url=url,
        embed_batch_size=_ONE_REQUEST,
        client_kwargs={"timeout": timeout_seconds},
    )


async def _describe(client: "OllamaEmbedding") -> _Description:
    server = client._async_client  # the only way to the connection that LlamaIndex opened
    with _translated(client):
        shown = await server.show(client.model_name)
        listed = await server.list()
    if shown.capabilities and "embedding" not in shown.capabilities:
        raise NotConfigured(
            f"the Ollama model {client.model_name!r} can't embed, it can {shown.capabilities!r}: "
            f"set RAGCORE_EMBEDDING__MODEL to an embedding model such as {DEFAULT_MODEL!r}"
        )
    facts = dict(shown.modelinfo or {})
    names = {client.model_name, f"{client.model_name}:latest"}
    digests = [model.digest for model in listed.models if model.model in names]
    return _Description(
        digest=digests[0] if digests else None,
        dimension=await _dimension(client, facts),
        context_length=_context_length(facts, shown.parameters or ""),
    )


async def _dimension(client: "OllamaEmbedding", facts: Mapping[str, Any]) -> int:
    told = _fact(facts, "embedding_length")
    if told is not None:
        return told
    with _translated(client):
        return len(await client.aget_query_embedding("dimension"))


def _context_length(facts: Mapping[str, Any], parameters: str) -> int:
    """Return the smaller of what the model was built for and what its Modelfile sets."""
    limits = [_fact(facts, "context_length") or _UNKNOWN_MAX_TOKENS]
    if (found := re.search(r"^num_ctx\s+(\d+)", parameters, re.MULTILINE)) is not None:
        limits.append(int(found[1]))
    return min(limits)


def _fact(facts: Mapping[str, Any], name: str) -> int | None:
    """Look up a number whose key begins with the architecture, `nomic-bert.context_length`."""
    found = [value for key, value in facts.items() if key.endswith(f".{name}")]
    return int(found[0]) if found else None


def _counter_name(model: KnownModel, tokenizer_file: Path | None) -> str:
    if tokenizer_file is not None:
        return f"file:{tokenizer_file.resolve()}"
    if model.vocabulary == "xlm-roberta":
        try:
            e5_file.weights_path()
        except MissingExtra:
            return "bytes"
        return "bundled"
    return "bytes"


async def _close(client: "OllamaEmbedding") -> None:
    # LlamaIndex offers no way to close what it opened; ollama leaves both methods without types.
    await client._async_client.close()  # type: ignore[no-untyped-call]
    client._client.close()  # type: ignore[no-untyped-call]


@contextmanager
def _translated(client: "OllamaEmbedding") -> Iterator[None]:
    """Turn the client's errors into ours; programming errors pass through."""
    import ollama

    where = f"Ollama at {client.base_url!r}"
    try:
        yield
    except ollama.ResponseError as error:
        raise _response_error(error, client.model_name, where) from error
    except (httpx.TransportError, ConnectionError) as error:
        reason = (
            "did not answer in time" if isinstance(error, httpx.TimeoutException) else "is away"
        )
        raise ModelUnavailable(
            f"{where} {reason} ({error!r}): start it, or set RAGCORE_OLLAMA__URL"
        ) from error


def _response_error(error: Any, model: str, where: str) -> Exception:
    status: int = error.status_code
    if status == 404:
        return ModelUnavailable(f"{where} has no model {model!r}: run `ollama pull {model}`")
    if status in (400, 413) or (status == 500 and _TEXT_AT_FAULT.search(error.error)):
        return Rejected(f"{where} refused the text for {model!r}: {error.error}")
    if status == 429 or status >= 500:
        return ModelUnavailable(f"{where} failed with {status}: {error.error}; look into its log")
    return NotConfigured(f"{where} answered {status}: {error.error}; check RAGCORE_OLLAMA__URL")
