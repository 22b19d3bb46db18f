"""Embedding models behind Ollama, by LlamaIndex's `OllamaEmbedding`."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ragcore.adapters.models import e5_file, tokenizers
from ragcore.adapters.models.known_models import KnownModel, known_model
from ragcore.adapters.models.ollama_servers import OllamaServers
from ragcore.errors import (
    ContextOverflow,
    MissingExtra,
    ModelUnavailable,
    NotConfigured,
    Rejected,
)
from ragcore.model import EmbeddingSpec, Vector, Vectors

if TYPE_CHECKING:
    import ollama
    from llama_index.embeddings.ollama import OllamaEmbedding

DEFAULT_MODEL = "nomic-embed-text-v2-moe"
"""Multilingual; `nomic-embed-text` alone is v1.5, which reads English only."""

_ONE_REQUEST = 2048  # texts; LlamaIndex's own limit of a batch
_UNKNOWN_MAX_TOKENS = 512


class OllamaEmbedder:
    """One model of Ollama as `ports.Embedder`; made by `open`.

    Texts over the model's limit are refused before they are sent, where their tokens can be counted
    exactly; otherwise the server is told to refuse them rather than to cut them off in silence. The
    model is used only at addresses where it is the very same one.
    """

    def __init__(self, client: "OllamaEmbedding", *, spec: EmbeddingSpec, counter: str) -> None:
        self.counter_name = counter
        """The token counter that fits, for `tokenizers.load_counter`."""
        self._client = client
        self._spec = spec

    @classmethod
    async def open(
        cls,
        servers: OllamaServers,
        *,
        model: str | None = None,
        query_prefix: str | None = None,
        document_prefix: str | None = None,
        tokenizer_file: Path | None = None,
        max_tokens: int | None = None,
        timeout_seconds: float = 60.0,
    ) -> "OllamaEmbedder":
        """Ask about the model; what is given here overrides what its server and we know.

        `servers` stay their owner's to close. Raises MissingExtra without the integration,
        ModelMissing when none has the model (the message says how to pull it), ModelUnavailable
        when all are away, NotConfigured for a model that can't embed.
        """
        name = model or DEFAULT_MODEL
        client = await asyncio.to_thread(_client, servers, name, timeout_seconds)
        described = await _describe(servers, client, timeout_seconds)
        if described.digest is not None:
            servers.pin(name, described.digest)
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
        return cls(client, spec=spec, counter=counter)

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
        return await self._answer(
            lambda: self._client.aget_text_embedding_batch(prefixed), len(texts)
        )

    async def embed_query(self, text: str) -> Vector:
        prefixed = self._spec.query_prefix + tokenizers.cleaned(text)

        async def ask() -> list[list[float]]:
            return [await self._client.aget_query_embedding(prefixed)]

        vectors = await self._answer(ask, 1)
        return np.asarray(vectors[0], np.float32)

    async def aclose(self) -> None:
        """Do nothing: the servers are their owner's to close."""

    def _refuse_long(self, texts: Sequence[str]) -> None:
        if self.counter_name == "bytes":
            return
        for text in texts:
            if (tokens := self.count_tokens(text)) > self._spec.max_tokens:
                raise ContextOverflow(
                    f"a text of {tokens} tokens is over the {self._spec.max_tokens} that "
                    f"{self._spec.model!r} reads: lower RAGCORE_CHUNKING__MAX_TOKENS"
                )

    async def _answer(
        self, ask: Callable[[], Awaitable[list[list[float]]]], expected: int
    ) -> Vectors:
        try:
            answer = await ask()
        except ValueError as error:  # no JSON, or another's
            raise ModelUnavailable(
                f"{self._spec.model!r} answered with what is no embedding ({error}): is what "
                "RAGCORE_OLLAMA__URL names an Ollama?"
            ) from error
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


def _client(servers: OllamaServers, model: str, timeout_seconds: float) -> "OllamaEmbedding":
    try:
        from llama_index.embeddings.ollama import OllamaEmbedding
    except ImportError as error:
        raise MissingExtra(
            "embedding with Ollama needs its integration: pip install 'ragcore[ollama]'"
        ) from error

    class BalancedEmbedding(OllamaEmbedding):
        """LlamaIndex's class over clients of ours, and with nothing cut off in silence."""

        async def aget_general_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return await _embed(documents, model, texts)

        async def aget_general_text_embedding(self, prompt: str) -> list[float]:
            return (await _embed(questions, model, [prompt]))[0]

    documents = servers.client(is_question=False, timeout_seconds=timeout_seconds)
    questions = servers.client(is_question=True, timeout_seconds=timeout_seconds)
    # Prefixes are put before the texts by us: the class would add a space of its own to them.
    # Clients of its own, which nobody uses, it makes all the same: from certificates that are
    # loaded already.
    return BalancedEmbedding(
        model_name=model,
        base_url=servers.endpoints[0].shown_url,
        embed_batch_size=_ONE_REQUEST,
        client_kwargs={"verify": servers.verify},
    )


async def _embed(client: "ollama.AsyncClient", model: str, texts: list[str]) -> list[list[float]]:
    answer = await client.embed(model=model, input=texts, truncate=False)
    return [list(vector) for vector in answer.embeddings]


async def _describe(
    servers: OllamaServers, client: "OllamaEmbedding", timeout_seconds: float
) -> _Description:
    name = client.model_name
    shown = await servers.show(name)
    capabilities = shown.facts.get("capabilities")
    if capabilities and "embedding" not in capabilities:
        raise NotConfigured(
            f"the Ollama model {name!r} can't embed, it can {capabilities!r}: "
            f"set RAGCORE_EMBEDDING__MODEL to an embedding model such as {DEFAULT_MODEL!r}"
        )
    facts = dict(shown.facts.get("model_info") or {})
    told = _fact(facts, "embedding_length")
    return _Description(
        digest=shown.digest,
        dimension=told or len(await client.aget_query_embedding("dimension")),
        context_length=_context_length(facts, shown.facts.get("parameters") or ""),
    )


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
