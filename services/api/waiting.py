"""Work for callers who wait for it: it stops when they leave."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")


async def answered(
    request: Request, work: Awaitable[T], respond: Callable[[T], Response]
) -> Response:
    """Respond with what the work gives, unless the caller hangs up before.

    Then the work is cancelled, and with it the language model that writes what nobody will read.
    The body of the request must have been read. Raises what the work raises.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_hung_up(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return respond(working.result()) if working.done() else _Unheard()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass  # the end of a body that was read


class _Unheard(Response):
    """Nothing, to nobody: counted as `aborted`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send nothing: the connection is closed."""
