"""Traces of questions to Langfuse; a missing or hanging server never slows or stops a caller.

LlamaIndex's retrievers, query engines and models are traced by OpenInference's instrumentation;
the Langfuse SDK sends the spans in batches from a thread of its own. What can't be sent is dropped.
"""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ragcore.errors import MissingExtra

_GOODBYE_SECONDS = 5.0
"""How long spans still in memory may take to leave when the process ends."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def langfuse_tracing(
    *, public_key: str, secret_key: str, url: str, timeout_seconds: int = 5
) -> AsyncIterator[None]:
    """Trace LlamaIndex in this process while the block runs.

    Raises MissingExtra without the `langfuse` extra. Imports LlamaIndex, which takes seconds.
    """
    try:
        from langfuse import Langfuse
        from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as error:
        raise MissingExtra("tracing needs `pip install 'ragcore[langfuse]'`") from error
    # A provider of our own: an application that traces itself keeps its global one.
    provider = TracerProvider()
    client = Langfuse(
        public_key=public_key,
        secret_key=secret_key,
        base_url=url,
        timeout=timeout_seconds,
        tracer_provider=provider,
    )
    instrumentor = LlamaIndexInstrumentor()
    instrumentor.instrument(tracer_provider=provider, skip_dep_check=True)
    try:
        yield
    finally:
        instrumentor.uninstrument()
        await _bounded(client.shutdown, seconds=_GOODBYE_SECONDS)


async def _bounded(call: Callable[[], object], *, seconds: float) -> None:
    """Run a call that may hang for ever in a daemon thread, and wait for it only so long."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            call()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="langfuse-goodbye", daemon=True).start()
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        log.warning("Langfuse did not take the last traces within %s s; they are dropped", seconds)
