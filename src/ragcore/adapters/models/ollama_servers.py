"""One or several Ollama servers as one: the transport under every request to a model.

Whoever speaks to a model (LlamaIndex's classes, ollama's own client) gets a client of
`OllamaServers.client`. Its requests wait for their turn, go to the address that has the least to
do, are tried again where that is safe, and fail with errors of ours.
"""

import asyncio
import json
import logging
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx

from ragcore.adapters.models.breaker import CircuitBreaker
from ragcore.adapters.models.limiter import Turn, Turns
from ragcore.adapters.models.ollama_errors import error_of_status, missing_model, translated
from ragcore.errors import (
    MissingExtra,
    ModelMissing,
    ModelOutOfMemory,
    ModelTimeout,
    ModelUnavailable,
    NotConfigured,
    RagError,
)
from ragcore.ports import UNMETERED, Meter, ModelCallEnd, SharedSlots

if TYPE_CHECKING:
    import ollama

log = logging.getLogger(__name__)

_WORK: Final = ("/api/embed", "/api/chat", "/api/generate")
"""What keeps a model busy, and waits for its turn."""
_STREAMED: Final = ("/api/chat", "/api/generate")
_CONNECT_SECONDS: Final = 5.0
_FIRST_PAUSE_SECONDS: Final = 0.2
"""Before the same address is tried again; doubles, and a random part of it is waited."""
_LACKING_SECONDS: Final = 60.0
"""For so long an address that lacks a model is asked for it only where no other has it."""
_CONNECTION_ENDS: Final = 1 / 16
"""One request in so many is the last of its connection: behind one name there may be several
servers, among which connections are dealt out once, when they are made."""


class OllamaServers:
    """Balances, retries and gives up; for one event loop, closed with `aclose`.

    A request goes to the address with the fewest requests of this process in flight; one that
    failed last is avoided. It is tried again, elsewhere at once and on the same address after a
    pause, when the connection failed or broke before the first word, and on answers of 5xx and 429:
    embedding and answering change nothing on the server, so that is safe. What took too long is
    not tried again. An address whose calls fail again and again is left out for a while.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        concurrency: int = 4,
        wait_seconds: float = 30.0,
        attempts: int = 3,
        failures: int = 5,
        pause_seconds: float = 5.0,
        slots: SharedSlots | None = None,
        meter: Meter = UNMETERED,
    ) -> None:
        """`concurrency`: documents at a time at one model of one address, by all processes.

        `wait_seconds`: how long a question waits for its turn. `attempts`: most tries of a request.
        `failures` calls in a row that fail have an address left out for `pause_seconds`. Loads
        certificates, which takes a moment. Raises MissingExtra, NotConfigured (an address that is
        none).
        """
        try:
            import ollama
        except ImportError as error:
            raise MissingExtra("Ollama needs `pip install 'ragcore[ollama]'`") from error
        self._make_client = ollama.AsyncClient
        self._verify = httpx.create_ssl_context()
        self._meter = meter
        self._concurrency = concurrency
        self._attempts = attempts
        self.endpoints = tuple(
            Endpoint(
                url=_checked(url),
                client=httpx.AsyncClient(
                    base_url=url,
                    timeout=None,  # noqa: S113  # the request brings its own
                    verify=self._verify,
                    follow_redirects=True,
                ),
                breaker=CircuitBreaker(failures=failures, pause_seconds=pause_seconds),
            )
            for url in dict.fromkeys(urls)
        )
        self._turns = Turns(
            most=concurrency * len(self.endpoints),
            patience_seconds=wait_seconds,
            shared=slots,
            meter=meter,
        )
        self._digests: dict[str, str] = {}
        for endpoint in self.endpoints:
            meter.endpoint_changed(endpoint.name, is_used=True)

    def client(self, *, is_question: bool, timeout_seconds: float) -> "ollama.AsyncClient":
        """Return a client of ollama's over all addresses; it needs no closing.

        `timeout_seconds` may pass between two pieces of an answer. Its requests raise
        ModelUnavailable, ModelMissing, ModelTimeout, ModelOutOfMemory (all retryable),
        ContextOverflow, Rejected and NotConfigured; an error in the middle of a stream is
        ollama's own ResponseError.
        """
        return self._make_client(
            host=self.endpoints[0].shown_url,
            timeout=timeout_seconds,
            transport=_Transport(self, is_question=is_question),
        )

    @property
    def verify(self) -> ssl.SSLContext:
        """The certificates, for those who would load them again."""
        return self._verify

    def pin(self, model: str, digest: str) -> None:
        """Have a model used only where its digest is this one: vectors of two are no match."""
        self._digests[model] = digest

    async def show(self, model: str) -> "Shown":
        """Return what the first address that has a model says of it.

        Raises ModelMissing when every one lacks it, and ModelUnavailable.
        """
        failure: RagError | None = None
        for endpoint in sorted(self.endpoints, key=lambda endpoint: endpoint.load):
            try:
                return await _show(endpoint, model)
            except ModelMissing as error:
                failure = failure or error
            except ModelUnavailable as error:
                failure = error  # it may have the model
        assert failure is not None  # there is at least one address
        raise failure

    async def send(self, request: httpx.Request, *, is_question: bool) -> httpx.Response:
        """Send a request to the best address. Raises as `client` tells."""
        asked = await _Asked.read(request, self.endpoints[0].url)
        turn: Turn | None = None
        if asked.path in _WORK:
            turn = await self._turns.take(
                asked.model, most=self._concurrency * self._usable(), is_question=is_question
            )
        call = _Call(turn)
        try:
            return await self._try(asked, call)
        except ModelUnavailable:
            call.end(failed=True if call.failures else None)
            raise
        except BaseException:
            call.end(failed=None)
            raise

    async def aclose(self) -> None:
        """Close the connections to all addresses."""
        for endpoint in self.endpoints:
            await endpoint.client.aclose()

    # --- where to ----------------------------------------------------------------------

    def _usable(self) -> int:
        return max(1, sum(endpoint.breaker.state == "closed" for endpoint in self.endpoints))

    async def _try(self, asked: "_Asked", call: "_Call") -> httpx.Response:
        """Ask one address after another, until one answers or it makes no sense any more."""
        failure: ModelUnavailable | None = None
        while call.failures < self._attempts:
            endpoint = self._choose(asked.model, call)
            if endpoint is None:
                break
            if endpoint in call.failed_at:
                await asyncio.sleep(_pause(call.failures))
            try:
                return await self._ask(endpoint, asked, call)
            except ModelMissing as error:
                if not endpoint.is_lacking(asked.model):
                    log.warning("%s", error)
                endpoint.lacks(asked.model)
                call.hopeless.add(endpoint)
                failure = failure or error
            except ModelTimeout as error:
                call.failed(endpoint, error)
                raise  # the caller has waited long enough
            except ModelUnavailable as error:
                call.failed(endpoint, error)
                failure = error
                log.info("asking for %r again: %s", asked.model, error)
        is_left = len(call.hopeless) < len(self.endpoints)
        if failure is None or (isinstance(failure, ModelMissing) and is_left):
            raise self._nobody(call)
        raise failure

    def _choose(self, model: str, call: "_Call") -> "Endpoint | None":
        """Return the address with the least to do that may be asked; None: there is none left."""
        candidates = [e for e in self.endpoints if e not in call.hopeless and e.breaker.may_call()]
        with_model = [e for e in candidates if not e.is_lacking(model)] or candidates
        fresh = [e for e in with_model if e not in call.failed_at] or with_model
        return min(fresh, key=lambda e: (e.load, random.random()), default=None)  # noqa: S311

    def _nobody(self, call: "_Call") -> ModelUnavailable:
        waits = [e.breaker.retry_after_seconds for e in self.endpoints if e not in call.hopeless]
        names = ", ".join(endpoint.name for endpoint in self.endpoints)
        return ModelUnavailable(
            f"Ollama at {names} failed again and again: it is asked again in "
            f"{min(waits):.0f} s; look into its log",
            retry_after_seconds=max(min(waits), 1.0),
        )

    # --- one try -----------------------------------------------------------------------

    async def _ask(self, endpoint: "Endpoint", asked: "_Asked", call: "_Call") -> httpx.Response:
        try_ = _Try(endpoint, self._meter, counts=endpoint not in call.failed_at)
        try:
            with translated(_where(endpoint, asked.model)):
                return await self._answer(endpoint, asked, try_, call)
        except BaseException as error:
            try_.end(error)
            raise

    async def _answer(
        self, endpoint: "Endpoint", asked: "_Asked", try_: "_Try", call: "_Call"
    ) -> httpx.Response:
        await self._verify_digest(endpoint, asked)
        answer = await endpoint.client.send(asked.request_to(endpoint), stream=True)
        if answer.status_code >= 400:
            await answer.aread()
            raise _error_of(answer, asked.model, endpoint)
        if asked.is_stream:
            return await _begun(answer, asked.model, endpoint, try_, call)
        content = await answer.aread()
        try_.end(None)
        call.end(failed=False)
        return httpx.Response(answer.status_code, headers=_type_of(answer), content=content)

    async def _verify_digest(self, endpoint: "Endpoint", asked: "_Asked") -> None:
        """Look, once after each outage, whether an address has the model that is pinned."""
        wanted = self._digests.get(asked.model)
        if wanted is None or asked.path not in _WORK or asked.model in endpoint.verified:
            return
        try:
            found = digest_of(asked.model, await listed_at(endpoint))
        except ModelTimeout as error:  # a short one: there is time left to ask elsewhere
            raise ModelUnavailable(str(error)) from error
        if found is None:
            raise missing_model(asked.model, endpoint.where)
        if found != wanted:
            raise ModelMissing(
                f"{endpoint.where} has another {asked.model!r} than the one in use (digest "
                f"{found[:12]}, not {wanted[:12]}), whose vectors are no match: pull it anew at "
                "every address, and start again",
                model=asked.model,
            )
        endpoint.verified.add(asked.model)


@dataclass(eq=False, slots=True)
class Endpoint:
    """One address of a server, and how it fares."""

    url: httpx.URL
    client: httpx.AsyncClient
    breaker: CircuitBreaker
    in_flight: int = 0
    verified: set[str] = field(default_factory=set)
    """Models whose digest was found to be the right one."""
    _lacking_until: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Host and port: what may be shown, in numbers and in errors."""
        return self.url.netloc.decode()

    @property
    def where(self) -> str:
        return f"Ollama at {self.name}"

    @property
    def shown_url(self) -> str:
        """The URL without a user and a password."""
        return f"{self.url.scheme}://{self.name}{self.url.path}"

    @property
    def load(self) -> int:
        """Requests in flight; failures in a row weigh like so many more, until it is time to try
        again."""
        is_tried = self.breaker.state == "half_open"
        return self.in_flight + (0 if is_tried else self.breaker.failures)

    def lacks(self, model: str) -> None:
        """Remember for a while that the model is not here."""
        self._lacking_until[model] = time.monotonic() + _LACKING_SECONDS

    def is_lacking(self, model: str) -> bool:
        return time.monotonic() < self._lacking_until.get(model, 0.0)


@dataclass(slots=True)
class _Call:
    """One request, however often it is tried, and its turn."""

    turn: Turn | None
    failures: int = 0
    failed_at: set[Endpoint] = field(default_factory=set)
    hopeless: set[Endpoint] = field(default_factory=set)
    """Not worth asking again: they lack the model, or the memory for it."""

    def failed(self, endpoint: Endpoint, error: ModelUnavailable) -> None:
        self.failures += 1
        self.failed_at.add(endpoint)
        if isinstance(error, ModelOutOfMemory):
            self.hopeless.add(endpoint)

    def end(self, *, failed: bool | None) -> None:
        if self.turn is not None:
            self.turn.end(failed=failed)


class _Try:
    """One request to one address: tells the breaker and the meter how it ended, once."""

    def __init__(self, endpoint: Endpoint, meter: Meter, *, counts: bool) -> None:
        """`counts`: whether a failure does; the tries of one call count as one failure."""
        self._endpoint = endpoint
        self._meter = meter
        self._counts = counts
        self._is_over = False
        endpoint.in_flight += 1
        endpoint.breaker.enter()

    def end(self, error: BaseException | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._endpoint.in_flight -= 1
        breaker = self._endpoint.breaker
        was_used = breaker.state == "closed"
        if error is not None and not isinstance(error, RagError):
            breaker.abandoned()  # cancelled
            return
        if isinstance(error, ModelUnavailable) and not isinstance(error, ModelMissing):
            if self._counts or not was_used:
                breaker.failed()
            self._endpoint.verified.clear()  # it may come back as another
        else:
            breaker.succeeded()
        self._meter.model_asked(self._endpoint.name, _end_of(error))
        if (is_used := breaker.state == "closed") != was_used:
            self._tell(is_used=is_used)

    def _tell(self, *, is_used: bool) -> None:
        self._meter.endpoint_changed(self._endpoint.name, is_used=is_used)
        if is_used:
            log.warning("%s answers again", self._endpoint.where)
        else:
            log.warning(
                "%s failed again and again and is left out for %.0f s",
                self._endpoint.where,
                self._endpoint.breaker.retry_after_seconds,
            )


def _end_of(error: BaseException | None) -> ModelCallEnd:
    match error:
        case None:
            return "ok"
        case ModelMissing():
            return "missing"
        case ModelTimeout():
            return "timeout"
        case ModelOutOfMemory():
            return "memory"
        case ModelUnavailable():
            return "reset" if isinstance(error.__cause__, httpx.TransportError) else "failed"
        case _:
            return "refused"


# --- models at one address -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """What an address says of a model."""

    facts: Mapping[str, Any]
    """As `/api/show` has them."""
    digest: str | None


async def _show(endpoint: Endpoint, model: str) -> Shown:
    facts = await _facts(endpoint, "POST", "/api/show", model)
    return Shown(facts, digest_of(model, await listed_at(endpoint)))


async def listed_at(endpoint: Endpoint, *, path: str = "/api/tags") -> Sequence[Mapping[str, Any]]:
    """Return the models of an address; with `/api/ps` those in memory. Raises as `show` does."""
    return (await _facts(endpoint, "GET", path, "")).get("models") or ()


async def _facts(endpoint: Endpoint, method: str, path: str, model: str) -> Mapping[str, Any]:
    with translated(endpoint.where):
        answer = await endpoint.client.request(
            method, path, json={"model": model} if model else None, timeout=_CONNECT_SECONDS
        )
    if answer.status_code >= 400:
        raise _error_of(answer, model, endpoint)
    try:
        facts = answer.json()
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise NotConfigured(f"{endpoint.where} is no Ollama: check RAGCORE_OLLAMA__URL")
    return facts


def digest_of(model: str, listed: Sequence[Mapping[str, Any]]) -> str | None:
    """Find a model's digest in what `/api/tags` lists; a name without a tag means `latest`."""
    names = {model, f"{model}:latest"}
    found = [entry.get("digest") for entry in listed if entry.get("model") in names]
    return found[0] if found else None


# --- requests and answers ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked of whichever address."""

    method: str
    path: str
    content: bytes
    headers: Mapping[str, str]
    timeout: Mapping[str, float | None]
    model: str
    """Empty where none is named."""
    is_stream: bool

    @classmethod
    async def read(cls, request: httpx.Request, base: httpx.URL) -> "_Asked":
        content = await request.aread()
        path = "/" + request.url.path.removeprefix(base.path).lstrip("/")
        body: dict[str, Any] = json.loads(content) if content else {}
        timeout = dict(request.extensions.get("timeout", {}))
        timeout["connect"] = min(timeout.get("connect") or _CONNECT_SECONDS, _CONNECT_SECONDS)
        kept = {k: v for k, v in request.headers.items() if k not in ("host", "content-length")}
        return cls(
            method=request.method,
            path=path,
            content=content,
            headers=kept,
            timeout=timeout,
            model=str(body.get("model", "")),
            is_stream=path in _STREAMED and bool(body.get("stream", True)),
        )

    def request_to(self, endpoint: Endpoint) -> httpx.Request:
        ends = random.random() < _CONNECTION_ENDS  # noqa: S311  # spreads, and hides nothing
        return endpoint.client.build_request(
            self.method,
            self.path,
            content=self.content,
            headers={**self.headers, "Connection": "close" if ends else "keep-alive"},
            extensions={"timeout": dict(self.timeout)},
        )


async def _begun(
    answer: httpx.Response, model: str, endpoint: Endpoint, try_: _Try, call: _Call
) -> httpx.Response:
    """Return an answer whose first piece is there: until then it may be tried again."""
    pieces = answer.aiter_bytes()
    first = await anext(pieces, b"")
    if (told := _error_in(first)) is not None:
        await answer.aclose()
        raise error_of_status(500, told, model=model, where=endpoint.where)

    def end(error: RagError | None) -> None:
        try_.end(error)
        call.end(failed=error is not None)

    stream = _Stream(first, pieces, answer, where=_where(endpoint, model), on_end=end)
    return httpx.Response(answer.status_code, headers=_type_of(answer), stream=stream)


def _where(endpoint: Endpoint, model: str) -> str:
    return f"{endpoint.where} ({model})" if model else endpoint.where


def _type_of(answer: httpx.Response) -> dict[str, str]:
    """Return the only header that is still true of an answer that was decoded."""
    return {"Content-Type": answer.headers.get("Content-Type", "application/json")}


class _Stream(httpx.AsyncByteStream):
    """The pieces of an answer; holds the turn of its request until it is read or closed."""

    def __init__(
        self,
        first: bytes,
        rest: AsyncIterator[bytes],
        answer: httpx.Response,
        *,
        where: str,
        on_end: Callable[[RagError | None], None],
    ) -> None:
        self._first = first
        self._rest = rest
        self._answer = answer
        self._where = where
        self._on_end = on_end

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            with translated(self._where):
                yield self._first
                async for piece in self._rest:
                    yield piece
        except ModelUnavailable as error:
            self._on_end(error)
            raise
        self._on_end(None)

    async def aclose(self) -> None:
        self._on_end(None)  # left by its reader: the server did what it was asked
        await self._answer.aclose()


def _error_of(answer: httpx.Response, model: str, endpoint: Endpoint) -> RagError:
    try:
        told = str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        told = answer.text
    return error_of_status(answer.status_code, told, model=model, where=endpoint.where)


def _error_in(piece: bytes) -> str | None:
    """Return the error that a stream begins with, if it does."""
    if not piece.lstrip().startswith(b'{"error"'):
        return None
    try:
        return str(json.loads(piece.split(b"\n", 1)[0])["error"])
    except (ValueError, KeyError, TypeError):
        return None


def _pause(failures: int) -> float:
    longest: float = _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
    return random.uniform(0.5, 1) * longest  # noqa: S311 jitter


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise NotConfigured(f"an address of Ollama can't be read: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise NotConfigured(
            f"{url!r} is no address of Ollama: write http://host:11434 in RAGCORE_OLLAMA__URL"
        )
    return parsed


class _Transport(httpx.AsyncBaseTransport):
    """The same servers for requests of one kind."""

    def __init__(self, servers: OllamaServers, *, is_question: bool) -> None:
        self._servers = servers
        self._is_question = is_question

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._servers.send(request, is_question=self._is_question)
