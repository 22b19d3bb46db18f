"""Numbers and log lines of requests: how many, how they ended, how long callers waited."""

import logging
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ragcore import __version__
from ragcore.adapters.prometheus import Gauges, PrometheusMeter
from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.adapters.room import free_bytes
from ragcore.runtime import Runtime

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_UNROUTED: Final = "(none)"
"""Route of what was refused before it was routed, or led nowhere: paths are anybody's."""
_ABORTED: Final = "aborted"
"""Status of a request whose caller left before the answer began."""
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})

_SLOW_SECONDS: Final = 5.0

log = logging.getLogger(__name__)


class ApiMetrics:
    """Everything that `/metrics` of the API tells. One per application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.meter = PrometheusMeter(self.registry, component="api", version=__version__)
        self.requests = Counter(
            "ragcore_http_requests",
            "How many requests were answered, and how? By route, not by path.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "ragcore_http_request_seconds",
            "How long did callers wait until the answer began?",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.in_progress = Gauge(
            "ragcore_http_requests_in_progress",
            "How many requests are being answered now?",
            registry=self.registry,
        )

    async def exposition(self, gauges: Gauges) -> bytes:
        """Return all of it as Prometheus reads it."""
        return generate_latest(self.registry) + await gauges.exposition()


def gauges_of(runtime: Runtime, doorbell: RedisDoorbell) -> Gauges:
    """Return the states of what an open service depends on."""
    return Gauges(
        queue_state=runtime.catalog.queue_state,
        unheard=doorbell.unheard,
        pool=runtime.pool,
        free_bytes=lambda: free_bytes(runtime.settings.data_dir),
    )


class Measured:
    """Count every request and log it: those that failed or took long at `info`, others at `debug`.

    The line holds no query, which may be a user's words.
    """

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        answered = _Answered()

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                answered.status = message["status"]
                answered.seconds = perf_counter() - started
            await send(message)

        self._metrics.in_progress.inc()
        try:
            await self._app(scope, receive, send_measured)
        finally:
            self._metrics.in_progress.dec()
            self._count(scope, answered)
            _log(scope, answered, perf_counter() - started)

    def _count(self, scope: Scope, answered: "_Answered") -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", _UNROUTED)
        status = _ABORTED if answered.status is None else str(answered.status)
        self._metrics.requests.labels(method, route, status).inc()
        if answered.seconds is not None:
            self._metrics.seconds.labels(method, route).observe(answered.seconds)


@dataclass(slots=True)
class _Answered:
    """How a request was answered; nothing as long as it was not."""

    status: int | None = None
    seconds: float | None = None
    """Until the answer began: what a stream, or a wait for a job, took is its caller's wish."""


def _log(scope: Scope, answered: _Answered, seconds: float) -> None:
    is_noteworthy = (answered.status or 0) >= 500 or (answered.seconds or 0) >= _SLOW_SECONDS
    level = logging.INFO if is_noteworthy else logging.DEBUG
    if not log.isEnabledFor(level):
        return
    principal = scope.get("state", {}).get("principal")
    log.log(
        level,
        "%s %s",
        scope["method"],
        scope["path"],
        extra={
            "status": answered.status or _ABORTED,
            "duration_ms": round(seconds * 1000, 1),
            "caller": "" if principal is None else principal.name,
        },
    )
