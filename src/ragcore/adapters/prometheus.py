"""What Prometheus is told by every process, in a registry of the process's own.

Labels have few values, fixed by the code: never a collection, a document or a caller's text.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final, Literal, Protocol, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from ragcore.errors import RagError
from ragcore.model import QueueState, SearchMode
from ragcore.ports import CallbackResult, ChildEnd, ModelCallEnd

_SHORT: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)

Result = TypeVar("Result")

log = logging.getLogger(__name__)


class PrometheusMeter:
    """`ports.Meter` into a registry."""

    def __init__(self, registry: CollectorRegistry, *, component: str, version: str) -> None:
        # Of each number there would be a second one that says since when it is told.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=registry)
        info = Info("ragcore", "Which version runs, and as what.", registry=registry)
        info.info({"component": component, "version": version})
        self._search_seconds = Histogram(
            "ragcore_search_seconds",
            "Where does the time of a search go? By stage; `retrieve` holds both legs.",
            ["mode", "stage"],
            buckets=_SHORT,
            registry=registry,
        )
        self._shortfall = Counter(
            "ragcore_search_shortfall_rows",
            "Do filtered searches lose matching rows? Must stay 0.",
            registry=registry,
        )
        self._texts = Counter(
            "ragcore_embedding_texts",
            "How many texts were embedded, and how many the cache spared.",
            ["source"],
            registry=registry,
        )
        self._tokens = Counter(
            "ragcore_embedding_tokens",
            "How many tokens of documents went to the embedding model.",
            registry=registry,
        )
        self._batch_seconds = Histogram(
            "ragcore_embedding_batch_seconds",
            "How long does a batch of texts take to embed?",
            buckets=_LONG,
            registry=registry,
        )
        self._embedding_errors = Counter(
            "ragcore_embedding_errors",
            "Does the embedding model fail (`model_unavailable`) or refuse texts (`rejected`)?",
            ["code"],
            registry=registry,
        )
        self._model_wait_seconds = Histogram(
            "ragcore_model_wait_seconds",
            "How long do requests to Ollama wait for their turn? Of questions, and of documents.",
            ["kind"],
            buckets=_LONG,
            registry=registry,
        )
        self._model_requests = Counter(
            "ragcore_model_requests",
            "How do requests to Ollama end? By address; a request is tried again on some failures.",
            ["endpoint", "end"],
            registry=registry,
        )
        self._endpoint_used = Gauge(
            "ragcore_model_endpoint_used",
            "Is this address of Ollama in use (1), or left out because it failed (0)?",
            ["endpoint"],
            registry=registry,
        )
        self._children_started = Counter(
            "ragcore_conversion_children_started",
            "How many conversion children were started.",
            registry=registry,
        )
        self._children_ended = Counter(
            "ragcore_conversion_children_ended",
            "Why did conversion children end: at a limit, by a crash, or after long service?",
            ["reason"],
            registry=registry,
        )
        self._callbacks = Counter(
            "ragcore_callbacks",
            "Are those who gave a `callback_url` told? By how a try ended.",
            ["result"],
            registry=registry,
        )
        self._bucket_objects = Counter(
            "ragcore_bucket_objects",
            "What became of the objects of buckets? By outcome, when a bucket's job has ended.",
            ["outcome"],
            registry=registry,
        )

    def searched(
        self, mode: SearchMode, timings_ms: Mapping[str, float], *, shortfall: int
    ) -> None:
        for stage, milliseconds in timings_ms.items():
            self._search_seconds.labels(mode, stage).observe(milliseconds / 1000)
        self._shortfall.inc(shortfall)

    def recalled(self, *, known: int, missing: int, missing_tokens: int) -> None:
        self._texts.labels("cache").inc(known)
        self._texts.labels("model").inc(missing)
        self._tokens.inc(missing_tokens)

    def embedded(self, texts: int, *, seconds: float) -> None:
        self._batch_seconds.observe(seconds)

    def embedding_failed(self, code: str) -> None:
        self._embedding_errors.labels(code).inc()

    def model_awaited(self, kind: Literal["question", "document"], *, seconds: float) -> None:
        self._model_wait_seconds.labels(kind).observe(seconds)

    def model_asked(self, endpoint: str, end: ModelCallEnd) -> None:
        self._model_requests.labels(endpoint, end).inc()

    def endpoint_changed(self, endpoint: str, *, is_used: bool) -> None:
        self._endpoint_used.labels(endpoint).set(is_used)

    def child_started(self) -> None:
        self._children_started.inc()

    def child_ended(self, reason: ChildEnd) -> None:
        self._children_ended.labels(reason).inc()

    def called_back(self, result: CallbackResult) -> None:
        self._callbacks.labels(result).inc()

    def synced(self, counts: Mapping[str, int]) -> None:
        for outcome, objects in counts.items():
            self._bucket_objects.labels(outcome).inc(objects)


class PoolStatistics(Protocol):
    """What is asked of a connection pool."""

    def get_stats(self) -> dict[str, int]: ...


class Gauges:
    """States that lie elsewhere: the queue, the pool, the disk. Looked up when somebody asks.

    At most every `every_seconds`, and never for longer than `patience_seconds`: a database that
    hangs must not take the metrics with it. A number that could not be had is told as NaN, not as
    it was.
    """

    def __init__(
        self,
        *,
        queue_state: Callable[[], Awaitable[QueueState]],
        unheard: Callable[[], Awaitable[int]],
        pool: PoolStatistics,
        free_bytes: Callable[[], int],
        sync_ages: Callable[[], Awaitable[Mapping[str, float | None]]] | None = None,
        every_seconds: float = 5.0,
        patience_seconds: float = 2.0,
    ) -> None:
        self._queue_state = queue_state
        self._unheard = unheard
        self._pool = pool
        self._free_bytes = free_bytes
        self._sync_ages = sync_ages
        self._every_seconds = every_seconds
        self._patience_seconds = patience_seconds
        self._looked_at = -math.inf
        self.registry = registry = CollectorRegistry()
        self._looking = asyncio.Lock()
        self._up = Gauge(
            "ragcore_dependency_up",
            "Does what this process depends on answer? 1 or 0.",
            ["dependency"],
            registry=registry,
        )
        self._jobs = Gauge(
            "ragcore_jobs",
            "How many jobs are there by status? Finished ones as long as they are kept.",
            ["status"],
            registry=registry,
        )
        self._oldest = Gauge(
            "ragcore_queue_oldest_waiting_seconds",
            "How long has the oldest job waited that a worker could take now? 0: none waits.",
            registry=registry,
        )
        self._unheard_rings = Gauge(
            "ragcore_queue_unheard_rings",
            "How many rings of the doorbell has no worker heard yet?",
            registry=registry,
        )
        self._connections = Gauge(
            "ragcore_database_connections",
            "How many connections of this process's pool are in use, idle, and allowed at most?",
            ["state"],
            registry=registry,
        )
        self._waiting = Gauge(
            "ragcore_database_waiting",
            "How many calls wait for a free connection?",
            registry=registry,
        )
        self._free = Gauge(
            "ragcore_disk_free_bytes",
            "How much room is left in the data directory?",
            registry=registry,
        )
        self._sync_age = Gauge(
            "ragcore_bucket_sync_age_seconds",
            "How long ago did each configured sync of a bucket last end well? NaN: never.",
            ["sync"],
            registry=registry,
        )

    async def exposition(self) -> bytes:
        """Return them as Prometheus reads them; whoever comes during a look waits for that one."""
        async with self._looking:
            if monotonic() - self._looked_at >= self._every_seconds:
                await asyncio.gather(
                    self._look_at_queue(), self._look_at_doorbell(), self._look_at_syncs()
                )
                self._look_at_pool()
                self._free.set(self._free_bytes())
                self._looked_at = monotonic()
        return generate_latest(self.registry)

    async def _look_at_queue(self) -> None:
        state = await self._answer("database", self._queue_state())
        if state is None:
            self._jobs.clear()
            self._oldest.set(math.nan)
            return
        for status, count in state.jobs.items():
            self._jobs.labels(status).set(count)
        self._oldest.set(state.oldest_waiting_seconds)

    async def _look_at_doorbell(self) -> None:
        unheard = await self._answer("queue", self._unheard())
        self._unheard_rings.set(math.nan if unheard is None else unheard)

    async def _look_at_syncs(self) -> None:
        ages = (
            None if self._sync_ages is None else await self._answer("database", self._sync_ages())
        )
        if ages is None:
            self._sync_age.clear()
            return
        for name, seconds in ages.items():
            self._sync_age.labels(name).set(math.nan if seconds is None else seconds)

    async def _answer(self, dependency: str, question: Awaitable[Result]) -> Result | None:
        try:
            answer = await asyncio.wait_for(question, self._patience_seconds)
        except (RagError, TimeoutError) as error:
            log.debug("%s does not answer the metrics: %s", dependency, error)
            self._up.labels(dependency).set(0)
            return None
        self._up.labels(dependency).set(1)
        return answer

    def _look_at_pool(self) -> None:
        numbers = self._pool.get_stats()
        size, idle = numbers.get("pool_size", 0), numbers.get("pool_available", 0)
        self._connections.labels("idle").set(idle)
        self._connections.labels("in_use").set(size - idle)
        self._connections.labels("allowed").set(numbers.get("pool_max", 0))
        self._waiting.set(numbers.get("requests_waiting", 0))
