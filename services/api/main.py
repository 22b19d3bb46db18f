"""The application: what is open while it serves, and what stands before its routes."""

import asyncio
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from ragcore import __version__, logs
from ragcore.errors import (
    Forbidden,
    InvalidInput,
    ModelUnavailable,
    NotConfigured,
    RagError,
    RateLimited,
    Unauthenticated,
)
from ragcore.rag import Rag
from ragcore.runtime import open_doorbell, open_limits
from ragcore.settings import Settings
from ragcore_api import errors, openapi
from ragcore_api.auth import Authentication
from ragcore_api.bodies import BoundedBodies
from ragcore_api.guard import CutOff, LoopbackOnly, RequestIds, SecurityHeaders, UnreadBodies
from ragcore_api.limits import RateLimits
from ragcore_api.metrics import ApiMetrics, Measured, gauges_of
from ragcore_api.readiness import Readiness
from ragcore_api.routes import (
    audit,
    buckets,
    collections,
    convert,
    documents,
    feedback,
    health,
    hooks,
    ingest,
    jobs,
    keys,
    mcp,
    openai,
    process,
    questions,
    reindex,
    tools,
)
from ragcore_api.turnstile import Turnstile
from ragcore_api.watching import JobWatch

_REQUEST_HEADERS: Final = (
    "Authorization", "X-API-Key", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"
)  # fmt: skip
_ANSWER_HEADERS: Final = ("Location", "Retry-After", "X-Request-ID", "Content-Disposition")

_MOST_JSON_BYTES: Final = 4 * 2**20
_UPLOADS: Final = ("/ingest", "/convert", "/process")

log = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exits with another code than 0 when it can't start."""
    settings = Settings()
    logs.configure(level=settings.log_level, log_format=settings.log_format)
    config = uvicorn.Config(
        create_app(settings, is_stopping=lambda: server.should_exit),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,  # `Measured` logs requests, with more to them
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(1)


class Api(FastAPI):
    """FastAPI with more around it, and with an OpenAPI document that tells of errors and keys."""

    around: Sequence[Callable[[ASGIApp], ASGIApp]] = ()
    """What stands around everything, also around the answer to a bug; the last one outermost."""

    def build_middleware_stack(self) -> ASGIApp:
        stack = super().build_middleware_stack()
        for layer in self.around:
            stack = layer(stack)
        return stack

    def openapi(self) -> dict[str, Any]:
        return openapi.complete(super().openapi())


def create_app(settings: Settings, *, is_stopping: Callable[[], bool] = lambda: False) -> FastAPI:
    """Make the application; nothing is opened before it serves.

    `is_stopping` says whether the server was told to stop: requests that wait end then.
    """
    metrics = ApiMetrics()
    app = Api(
        title="ragcore",
        version=__version__,
        description=openapi.DESCRIPTION,
        lifespan=_lifespan(settings, metrics, is_stopping),
        responses=errors.problems(  # whatever has parameters may refuse them
            InvalidInput, Unauthenticated, Forbidden, RateLimited
        ),
    )
    errors.install(app)
    _add_middleware(app, settings, metrics)
    # In this order a path is looked for: questions are asked most often.
    for module in (
        questions, openai, documents, ingest, buckets, convert, process, jobs, collections, reindex,
        feedback, keys, audit, hooks, tools, health,
    ):  # fmt: skip
        app.include_router(module.router)
    app.router.routes.append(mcp.route)
    return app


def _add_middleware(app: Api, settings: Settings, metrics: ApiMetrics) -> None:
    """Each request comes through these from the last to the first."""
    access = settings.access
    app.add_middleware(BoundedBodies, max_bytes=_MOST_JSON_BYTES, uploads=_UPLOADS)
    app.add_middleware(RateLimits, per_minute=access.requests_per_minute)
    app.add_middleware(
        Authentication, needs_key=settings.needs_key, open_metrics=access.open_metrics
    )
    if not settings.needs_key:
        app.add_middleware(LoopbackOnly, hosts=access.hosts, origins=access.cors_origins)
    cross_origin = partial(
        CORSMiddleware,
        allow_origins=access.cors_origins,
        allow_methods=("GET", "POST", "PUT", "PATCH", "DELETE"),
        allow_headers=_REQUEST_HEADERS,
        expose_headers=_ANSWER_HEADERS,
    )
    app.around = (
        *((cross_origin,) if access.cors_origins else ()),
        CutOff,
        SecurityHeaders,
        UnreadBodies,
        partial(Measured, metrics=metrics),
        RequestIds,
    )


def _lifespan(
    settings: Settings, metrics: ApiMetrics, is_stopping: Callable[[], bool]
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            try:
                doorbell = await stack.enter_async_context(open_doorbell(settings))
                rag = await stack.enter_async_context(
                    Rag.open(settings, doorbell=doorbell, meter=metrics.meter)
                )
                limits = await stack.enter_async_context(open_limits(settings))
                await _require_administrator(rag, settings)
                await _warm_up(rag)
                watch = await stack.enter_async_context(
                    JobWatch.open(rag.runtime.catalog, is_stopping=is_stopping)
                )
                tools = await stack.enter_async_context(mcp.open_mcp(rag, watch))
            except RagError as error:
                log.error("%s: %s", error.code, error)
                logging.getLogger("uvicorn.error").addFilter(_without_traceback)
                raise
            readiness = Readiness.of(rag, doorbell)
            yield {
                "rag": rag,
                "doorbell": doorbell,
                "limits": limits,
                "readiness": readiness,
                "watch": watch,
                "mcp": tools,
                "conversions": _turnstile(settings),
                "metrics": metrics,
                "gauges": gauges_of(rag.runtime, doorbell),
            }

    return lifespan


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave out what the server says of a failure to start that was told in one line already."""
    return "Traceback" not in record.getMessage()


def _turnstile(settings: Settings) -> Turnstile:
    """Before `/convert`: as many at once as there are children, and twice as many that wait."""
    children = settings.conversion.processes
    return Turnstile(at_once=children, waiting=2 * children)


async def _require_administrator(rag: Rag, settings: Settings) -> None:
    """Raise NotConfigured where other machines reach the service, and nobody can make keys."""
    if not settings.needs_key or await rag.runtime.keys.has_administrator():
        return
    fix = (
        "run `ragcore keys create NAME --scope admin` with these settings, "
        "or set RAGCORE_ACCESS__ADMIN_KEY"
    )
    if not settings.is_loopback:
        raise NotConfigured(
            f"RAGCORE_HOST {settings.host!r} can be reached from other machines and there is no "
            f"administrator's key: {fix}; or listen on 127.0.0.1"
        )
    log.warning("every request needs a key and there is no administrator's: %s", fix)


async def _warm_up(rag: Rag) -> None:
    """Load what the first question would otherwise wait seconds for."""
    await asyncio.to_thread(importlib.import_module, "ragcore.llamaindex.query_engine")
    try:
        await rag.runtime.model.embed_query("ready?")
    except ModelUnavailable as error:
        log.warning("questions can't be answered yet: %s", error)
