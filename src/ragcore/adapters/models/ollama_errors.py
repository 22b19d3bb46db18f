"""What an Ollama server says went wrong → our errors. The one table."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from ragcore.errors import (
    ContextOverflow,
    ModelMissing,
    ModelOutOfMemory,
    ModelTimeout,
    ModelUnavailable,
    NotConfigured,
    RagError,
    Rejected,
)

_OVERFLOW: Final = re.compile(r"context (length|window|size)|too large to process", re.IGNORECASE)
_TEXT_AT_FAULT: Final = re.compile(r"\bNaN\b", re.IGNORECASE)
"""Answers of status 500 that are about the text, not about the server's health."""
_OUT_OF_MEMORY: Final = re.compile(
    r"out of memory|more system memory|insufficient memory|cudaMalloc|unable to allocate",
    re.IGNORECASE,
)
_MOST_TOLD: Final = 300
"""Characters of what the server said."""


def pull_command(model: str) -> str:
    """Return the command that brings a missing model."""
    return f"ragcore models pull {model}"


def missing_model(model: str, where: str) -> ModelMissing:
    """Return the error for a model that the server lacks, with the command that brings it."""
    return ModelMissing(f"{where} has no model {model!r}: run `{pull_command(model)}`", model=model)


def error_of_status(status: int, text: str, *, model: str, where: str) -> RagError:
    """Return the error for an answer with a status of 400 or more, or an error within a stream.

    A stream has its status before the error is known; 500 stands for it.
    """
    told = text.strip()[:_MOST_TOLD]
    if status == 404:
        return missing_model(model, where)
    if _OVERFLOW.search(told):
        return ContextOverflow(f"{where} can't read so long a text with {model!r}: {told}")
    if status in (400, 413) or _TEXT_AT_FAULT.search(told):
        return Rejected(f"{where} refused the text for {model!r}: {told}")
    if _OUT_OF_MEMORY.search(told):
        return ModelOutOfMemory(
            f"{where} has too little memory for {model!r}: {told}; take a smaller model, or let it "
            "unload others"
        )
    if status in (401, 403):
        # Of a proxy before it. Who asks can't mend that; questions are answered by words meanwhile.
        return ModelUnavailable(
            f"{where} refused access with {status}: {told}; check user and password in"
            " RAGCORE_OLLAMA__URL, and the proxy before it"
        )
    if status == 429 or status >= 500:
        return ModelUnavailable(f"{where} failed with {status}: {told}; look into its log")
    return NotConfigured(f"{where} answered {status}: {told}; check RAGCORE_OLLAMA__URL")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise ModelTimeout or ModelUnavailable for an answer that did not come, or broke off."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise ModelUnavailable(
            f"{where} is away ({error!r}): start it, or set RAGCORE_OLLAMA__URL"
        ) from error
    except httpx.TimeoutException as error:
        raise ModelTimeout(f"{where} did not answer in time ({type(error).__name__})") from error
    except httpx.TransportError as error:
        raise ModelUnavailable(f"{where} broke off its answer ({error!r})") from error
