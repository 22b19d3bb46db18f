"""The API on a free port of loopback, in a thread of the test's own process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from ragcore.settings import Settings
from ragcore_api.main import create_app


@contextmanager
def serving(settings: Settings, *, app: ASGIApp | None = None, port: int = 0) -> Iterator[str]:
    """Serve until the block ends, and give the address; `app` replaces the settings' own."""
    config = uvicorn.Config(
        app or create_app(settings), host="127.0.0.1", port=port, log_config=None, lifespan="on"
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    server.tried.wait()
    try:
        assert server.started, "the API did not start: the log says why"
        (listening,) = server.servers
        port = listening.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.tried = threading.Event()

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.tried.set()
