"""`/mcp`: the abilities of the service as tools, where the extra `mcp` is installed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Final

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ragcore.errors import MissingExtra
from ragcore.rag import Rag
from ragcore_api.watching import JobWatch

PATH: Final = "/mcp"


@asynccontextmanager
async def open_mcp(rag: Rag, watch: JobWatch) -> AsyncIterator[ASGIApp | None]:
    """Serve the tools until the block ends; None without the extra `mcp`."""
    if find_spec("mcp") is None:
        yield None
        return
    from ragcore_api.mcp import serving_tools

    async with serving_tools(rag, watch) as tools:
        yield tools


class _Tools:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tools: ASGIApp | None = scope["state"]["mcp"]
        if tools is None:
            raise MissingExtra(
                "the service has no MCP tools: run `pip install 'ragcore[mcp]'` where it runs"
            )
        scope["route"] = route  # for the metrics: the framework names only routes of its own kind
        await tools(scope, receive, send)


# No session is kept, so there is nothing to listen to with GET, and nothing to end with DELETE.
route = Route(PATH, _Tools(), methods=["POST"], include_in_schema=False)
