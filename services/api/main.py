"""The application: what is open while it serves, and what stands before its routes."""

import asyncio
import importlib
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from ragcore import __version__
from ragcore.errors import InvalidInput, ModelUnavailable, NotConfigured, RagError
from ragcore.rag import Rag
from ragcore.runtime import open_doorbell
from ragcore.settings import Settings, require_loopback
from ragcore_api import errors
from ragcore_api.auth import Authentication
from ragcore_api.guard import LoopbackOnly, RequestIds
from ragcore_api.routes import documents, health, ingest, jobs, questions
from ragcore_api.schemas.values import Problem

log = logging.getLogger(__name__)


def main() -> None:
    """Serve until SIGTERM or SIGINT. Exits with 1 and one line when it can't start.

    Refuses to listen where other machines reach it: nobody is asked for a key yet.
    """
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        require_loopback(settings.host)
    except NotConfigured as error:
        log.error("%s: %s", error.code, error)
        sys.exit(1)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=settings.log_level == "debug",
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)
    server.run()
    if not server.started:
        sys.exit(1)


class Api(FastAPI):
    """FastAPI, whose OpenAPI document knows the shape of our errors."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
        return document


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is opened before it serves."""
    app = Api(
        title="ragcore",
        version=__version__,
        description="Documents in, cited answers out.",
        lifespan=_lifespan(settings),
        responses=errors.problems(InvalidInput),  # whatever has parameters may refuse them
    )
    errors.install(app)
    app.add_middleware(
        Authentication, needs_key=settings.needs_key, open_metrics=settings.access.open_metrics
    )
    if not settings.needs_key:
        app.add_middleware(
            LoopbackOnly, hosts=settings.access.hosts, origins=settings.access.cors_origins
        )
    app.add_middleware(RequestIds)  # the last one added stands first
    for module in (ingest, jobs, documents, questions, health):
        app.include_router(module.router)
    return app


def _lifespan(
    settings: Settings,
) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            try:
                doorbell = await stack.enter_async_context(open_doorbell(settings))
                rag = await stack.enter_async_context(Rag.open(settings, doorbell=doorbell))
                await _warm_up(rag)
            except RagError as error:
                log.error("%s: %s", error.code, error)
                raise
            yield {"rag": rag, "doorbell": doorbell}

    return lifespan


async def _warm_up(rag: Rag) -> None:
    """Load what the first question would otherwise wait seconds for."""
    await asyncio.to_thread(importlib.import_module, "ragcore.llamaindex.query_engine")
    try:
        await rag.runtime.model.embed_query("ready?")
    except ModelUnavailable as error:
        log.warning("questions can't be answered yet: %s", error)
