"""The models that Ollama servers have: looked at, pulled and deleted, at every address."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx

from ragcore.adapters.models.ollama_errors import (
    error_of_status,
    translated,
)
from ragcore.adapters.models.ollama_servers import Endpoint, OllamaServers, listed_at
from ragcore.errors import ModelUnavailable, NotFound, RagError

_SILENCE_SECONDS: Final = 600.0
"""What a pull may keep silent: sums of large files are checked without a word."""
_TIMEOUT_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """A model at one address."""

    name: str
    address: str
    """Host and port."""
    size_bytes: int
    digest: str
    family: str | None
    parameters: str | None
    """How many it has, as in `3.2B`."""
    quantization: str | None
    modified_at: str | None
    is_loaded: bool
    """Whether it is in memory now."""

    def is_named(self, name: str) -> bool:
        """Whether a name means it; without a tag it means `latest`."""
        return self.name in (name, f"{name}:latest")


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How far a pull is at one address."""

    model: str
    address: str
    status: str
    """In Ollama's words."""
    done_bytes: int
    total_bytes: int
    """Of the files that are known so far; 0: none is."""


class OllamaModels:
    """Of all addresses of `servers`, which stay their owner's to close."""

    def __init__(self, servers: OllamaServers) -> None:
        self._endpoints = servers.endpoints

    async def installed(self) -> tuple[Sequence[InstalledModel], Sequence[ModelUnavailable]]:
        """Return what is there by name, and the failures of addresses that are away.

        Raises ModelUnavailable when all are.
        """
        found = await asyncio.gather(*map(_installed, self._endpoints), return_exceptions=True)
        models: list[InstalledModel] = []
        failures: list[ModelUnavailable] = []
        for each in found:
            if isinstance(each, ModelUnavailable):
                failures.append(each)
            elif isinstance(each, BaseException):
                raise each
            else:
                models += each
        if len(failures) == len(self._endpoints):
            raise failures[0]
        return sorted(models, key=lambda model: (model.name, model.address)), failures

    async def pull(
        self, model: str, *, on_progress: Callable[[PullProgress], None] | None = None
    ) -> None:
        """Bring a model to every address, or up to date; safe to repeat, and goes on after a break.

        Raises NotFound for a name that Ollama's registry does not know, ModelUnavailable for an
        address that is away or could not get it: others may have it by then.
        """
        pulls = [_pull(endpoint, model, on_progress) for endpoint in self._endpoints]
        for end in await asyncio.gather(*pulls, return_exceptions=True):
            if isinstance(end, BaseException):
                raise end

    async def delete(self, model: str) -> Sequence[str]:
        """Delete a model where it is, and return at which addresses.

        Raises NotFound when none has it, and ModelUnavailable.
        """
        deleted = [e.name for e in self._endpoints if await _delete(e, model)]
        if not deleted:
            names = ", ".join(endpoint.name for endpoint in self._endpoints)
            raise NotFound(f"there is no model {model!r} at {names}: see `ragcore models list`")
        return deleted


async def _installed(endpoint: Endpoint) -> list[InstalledModel]:
    models, loaded = await asyncio.gather(listed_at(endpoint), listed_at(endpoint, path="/api/ps"))
    in_memory = {each.get("model") for each in loaded}
    return [_read(each, endpoint.name, each.get("model") in in_memory) for each in models]


def _read(listed: Mapping[str, Any], address: str, is_loaded: bool) -> InstalledModel:
    details = listed.get("details") or {}
    return InstalledModel(
        name=str(listed.get("model") or listed.get("name")),
        address=address,
        size_bytes=int(listed.get("size") or 0),
        digest=str(listed.get("digest") or ""),
        family=details.get("family"),
        parameters=details.get("parameter_size"),
        quantization=details.get("quantization_level"),
        modified_at=listed.get("modified_at"),
        is_loaded=is_loaded,
    )


async def _pull(
    endpoint: Endpoint, model: str, on_progress: Callable[[PullProgress], None] | None
) -> None:
    files: dict[str, tuple[int, int]] = {}
    status = ""
    async with _lines(endpoint, "/api/pull", model) as lines:
        async for line in lines:
            if (told := line.get("error")) is not None:
                raise _refusal(str(told), model, endpoint)
            status = str(line.get("status", ""))
            if "digest" in line and "total" in line:
                files[line["digest"]] = int(line.get("completed") or 0), int(line["total"])
            if on_progress is not None:
                done = sum(completed for completed, _ in files.values())
                total = sum(size for _, size in files.values())
                on_progress(PullProgress(model, endpoint.name, status, done, total))
    if status != "success":
        raise ModelUnavailable(
            f"{endpoint.where} stopped pulling {model!r} at {status!r}: pull it again, it goes on "
            "where it stopped"
        )


def _refusal(told: str, model: str, endpoint: Endpoint) -> RagError:
    if "does not exist" in told or "not found" in told:
        return NotFound(
            f"Ollama's registry has no model {model!r} ({told}): see ollama.com/library"
        )
    return ModelUnavailable(f"{endpoint.where} could not pull {model!r}: {told}")


@asynccontextmanager
async def _lines(
    endpoint: Endpoint, path: str, model: str
) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
    """Open a stream of JSON, a line at a time."""
    timeout = httpx.Timeout(_SILENCE_SECONDS, connect=5.0)
    with translated(endpoint.where):
        async with endpoint.client.stream(
            "POST", path, json={"model": model, "stream": True}, timeout=timeout
        ) as answer:
            if answer.status_code >= 400:
                told = (await answer.aread()).decode(errors="replace")
                raise error_of_status(answer.status_code, told, model=model, where=endpoint.where)
            yield (_object(line, endpoint) async for line in answer.aiter_lines() if line.strip())


def _object(line: str, endpoint: Endpoint) -> Mapping[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{endpoint.where} answered with what is no JSON: {line[:80]!r}")
    return found


async def _delete(endpoint: Endpoint, model: str) -> bool:
    """Return whether it was there."""
    with translated(endpoint.where):
        answer = await endpoint.client.request(
            "DELETE", "/api/delete", json={"model": model}, timeout=_TIMEOUT_SECONDS
        )
    if answer.status_code == 404:
        return False
    if answer.status_code >= 400:
        raise error_of_status(answer.status_code, answer.text, model=model, where=endpoint.where)
    return True
