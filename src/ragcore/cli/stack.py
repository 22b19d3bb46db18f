"""What `ragcore up` runs: the embedded servers, the API and the workers, until told to stop.

`python -m ragcore.cli.stack` runs it with the settings of the environment; `ragcore up --detach`
starts it so.
"""

import asyncio
import importlib.util
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from ragcore import logs
from ragcore.cli.output import tell_error
from ragcore.cli.session import load_settings
from ragcore.embedded import embedded_servers
from ragcore.embedded.machine import free_port, make_data_directory
from ragcore.embedded.processes import Processes
from ragcore.embedded.run_directory import RunDirectory
from ragcore.errors import Conflict, MissingExtra, NotConfigured, RagError
from ragcore.settings import Settings

PYTHON = (sys.executable, "-P")
"""What lies in the caller's directory must not shadow modules."""

_POLL_SECONDS = 0.1

_log = logging.getLogger(__name__)


async def run_stack(settings: Settings, *, on_ready: Callable[[str], None]) -> None:
    """Run everything until SIGINT or SIGTERM; `on_ready` gets the address of the API.

    Killing this process at any line stops the API and the workers, and with the last user of the
    data directory the servers. Raises Conflict when it is up already, NotConfigured for an address
    that can't be used, Unsupported or Unavailable when a part can't start.
    """
    stop = _stop_signal()
    make_data_directory(settings.data_dir)
    run = stack_directory(settings)
    run.make()
    lock = run.try_lock("supervisor")
    if lock is None:
        raise Conflict(f"ragcore is already up in {str(settings.data_dir)!r}; see `ragcore down`")
    try:
        settings = settings.model_copy(update={"port": _usable_port(settings)})
        url = f"http://{_authority(settings)}"
        run.write_state({"pid": os.getpid(), "url": url, "ready": False})
        async with _servers(settings), _services(settings) as services:
            await _first_of(stop.wait(), _answering(settings), services.until_one_ends())
            if not stop.is_set():
                services.allow_restarts()
                run.write_state({"pid": os.getpid(), "url": url, "ready": True})
                on_ready(url)
                await stop.wait()
            _log.info("stopping")
    finally:
        run.clear()
        lock.release()


def stack_directory(settings: Settings) -> RunDirectory:
    """The locks and the state of `ragcore up` in a data directory."""
    return RunDirectory(settings.data_dir.absolute(), "up")


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment that gives another process these very settings of `ragcore up`."""
    return {
        **os.environ,
        "RAGCORE_DATA_DIR": str(settings.data_dir.absolute()),
        "RAGCORE_HOST": settings.host,
        "RAGCORE_PORT": str(settings.port),
        "RAGCORE_WORKERS": str(settings.workers),
        "PYTHONUNBUFFERED": "1",
    }


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _usable_port(settings: Settings) -> int:
    """Return the port to listen on. Raises NotConfigured when it is taken."""
    if settings.port == 0:
        return free_port(None)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise NotConfigured(
                f"port {settings.port!r} on {settings.host} can't be used ({error.strerror}); "
                "choose another with --port or RAGCORE_PORT, 0 for a free one"
            ) from error
    return settings.port


def _authority(settings: Settings) -> str:
    """Host and port as they stand in a URL: an IPv6 address in brackets."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


@asynccontextmanager
async def _servers(settings: Settings) -> AsyncIterator[None]:
    """Hold the embedded servers that no setting replaces, so that no restart stops them."""
    postgres, valkey = settings.database_url is None, settings.redis_url is None
    if not (postgres or valkey):
        yield
        return
    async with embedded_servers(settings.data_dir, postgres=postgres, valkey=valkey):
        yield


def _services(settings: Settings) -> Processes:
    _require("fastapi", extra="api")
    _require("dramatiq", extra="worker")
    commands, own = {"api": [*PYTHON, "-m", "ragcore_api"]}, {}
    for number in range(settings.workers):
        name = f"worker-{number + 1}"
        commands[name] = [*PYTHON, "-m", "ragcore_worker"]
        if settings.worker.metrics_port:  # one each
            port = settings.worker.metrics_port + number
            own[name] = {"RAGCORE_WORKER__METRICS_PORT": str(port)}
    return Processes(
        commands,
        environment=environment_of(settings),
        own=own,
        named_lines=settings.log_format == "human",
    )


def _require(module: str, *, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise MissingExtra(f"{module} is not installed; run `pip install 'ragcore[{extra}]'`")


async def _answering(settings: Settings) -> None:
    """Return when the API says that it is ready."""
    host = _authority(settings)
    request = f"GET /health/ready HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    while True:
        try:
            reader, writer = await asyncio.open_connection(settings.host, settings.port)
            writer.write(request.encode())
            status = await reader.readline()
            writer.close()
            if b" 200 " in status:
                return
        except OSError:
            pass  # it does not listen yet
        await asyncio.sleep(_POLL_SECONDS)


async def _first_of(*waits: Awaitable[object]) -> None:
    """Wait for one of them, raise what it raised, and drop the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """Run in the background: everything that is said goes to the log that stderr is."""
    try:
        settings = load_settings()
        logs.configure(level=settings.log_level, log_format=settings.log_format)
        asyncio.run(run_stack(settings, on_ready=_log_ready))
    except RagError as error:
        tell_error(error, as_json=False)
        return 1
    return 0


def _log_ready(url: str) -> None:
    _log.info("ragcore is up at %s", url)


if __name__ == "__main__":
    sys.exit(main())
