"""What a worker tells Prometheus, on a small port of its own, and whether it lives."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

from ragcore import __version__
from ragcore.adapters.prometheus import Gauges, PrometheusMeter
from ragcore.errors import NotConfigured
from ragcore.model import Job

_SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 3600)
_REQUEST_SECONDS: Final = 5.0

Page = Callable[[], Awaitable[bytes]]

log = logging.getLogger(__name__)


class WorkerMetrics:
    """Everything that a worker counts. One per process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.meter = PrometheusMeter(self.registry, component="worker", version=__version__)
        self.gauges: Gauges | None = None
        """Of what the worker depends on; None as long as it is not open."""
        self._ended = Counter(
            "ragcore_jobs_ended",
            "How did jobs end, and why did those fail?",
            ["status", "outcome", "code"],
            registry=self.registry,
        )
        self._retries = Counter(
            "ragcore_job_retries",
            "Why are jobs tried again?",
            ["code"],
            registry=self.registry,
        )
        self._waited = Histogram(
            "ragcore_job_waited_seconds",
            "How long did jobs wait until a worker took them?",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stages = Histogram(
            "ragcore_job_stage_seconds",
            "Where does the time of a document go? By stage.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._documents = Counter(
            "ragcore_documents_stored",
            "How many versions of documents were put in place.",
            registry=self.registry,
        )
        self._pages = Counter(
            "ragcore_pages_stored", "How many pages they had.", registry=self.registry
        )
        self._chunks = Counter(
            "ragcore_chunks_stored", "How many chunks they had.", registry=self.registry
        )
        self.busy = Gauge(
            "ragcore_worker_busy",
            "How many jobs does this worker have in hand?",
            registry=self.registry,
        )

    def job_ended(self, job: Job) -> None:
        """Count a job that has ended, or that waits for another attempt."""
        code = "" if job.error is None else job.error.code
        if not job.is_finished:
            self._retries.labels(code).inc()
            return
        self._ended.labels(job.status, job.outcome or "", code).inc()
        if job.created_at is not None and job.started_at is not None:
            self._waited.observe((job.started_at - job.created_at).total_seconds())
        if job.status != "succeeded" or not job.timings_ms:
            return  # nothing was converted
        self._documents.inc()
        self._pages.inc(job.pages or 0)
        self._chunks.inc(job.chunks or 0)
        for stage, milliseconds in job.timings_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    async def exposition(self) -> bytes:
        """Return all of it as Prometheus reads it."""
        own = generate_latest(self.registry)
        return own if self.gauges is None else own + await self.gauges.exposition()


async def alive() -> bytes:
    """Answer, which a worker does as long as its event loop turns."""
    return b"ok\n"


@asynccontextmanager
async def served(pages: Mapping[str, Page], *, host: str, port: int) -> AsyncIterator[int]:
    """Answer GET of these paths until the block ends, and give the port; 0 takes a free one.

    On the worker's own event loop: one that hangs does not answer. Knows of HTTP what Prometheus
    and a health check need: one request a connection. Raises NotConfigured for an address that
    can't be had.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                writer.write(await _answer(reader, pages))
                await writer.drain()
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.debug("a request for metrics was not answered: %r", error)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    try:
        server = await asyncio.start_server(answer, host, port)
    except OSError as error:
        raise NotConfigured(
            f"the worker's metrics can't be served on {host}:{port} ({error.strerror}): choose "
            "another port with RAGCORE_WORKER__METRICS_PORT, 0 for none"
        ) from error
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _answer(reader: asyncio.StreamReader, pages: Mapping[str, Page]) -> bytes:
    method, path, *_ = (await reader.readuntil(b"\r\n")).decode("latin-1").split(" ")
    while (await reader.readuntil(b"\r\n")).strip():
        pass  # headers
    page = pages.get(path.partition("?")[0])
    if method != "GET" or page is None:
        return _response(HTTPStatus.NOT_FOUND, b"see /metrics and /health\n", "text/plain")
    return _response(HTTPStatus.OK, await page(), CONTENT_TYPE_LATEST)


def _response(status: HTTPStatus, body: bytes, media_type: str) -> bytes:
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {media_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
