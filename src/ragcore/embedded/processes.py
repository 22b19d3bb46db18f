"""The programs of `ragcore up`: started together, restarted when they crash, stopped together."""

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType

from ragcore.embedded.children import dies_with_parent
from ragcore.errors import Unavailable

_STOP_SECONDS = 30.0
_LONGEST_PAUSE_SECONDS = 30.0
_STEADY_SECONDS = 10.0
"""A program that ran so long is started again at once, whatever happened before: it can start."""

_log = logging.getLogger(__name__)


class Processes:
    """Keeps programs running inside an `async with`; their lines go to stderr.

    Each line has its program's name before it, unless `named_lines` is off: a line of JSON would be
    none with it. `own` holds variables of single programs, over the common environment. They die
    with this process, also when it is killed: enter from the main thread.
    """

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        *,
        environment: Mapping[str, str],
        own: Mapping[str, Mapping[str, str]] | None = None,
        named_lines: bool = True,
    ) -> None:
        self._commands = commands
        self._named_lines = named_lines
        self._environment = dict(environment)
        self._own = own or {}
        self._width = max(map(len, commands))
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._may_restart = False
        self._ended: asyncio.Future[Unavailable] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> "Processes":
        self._tasks = [asyncio.create_task(self._keep(name)) for name in self._commands]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, by name."""
        return {name: process.pid for name, process in self._running.items()}

    def allow_restarts(self) -> None:
        """From now on a program that ends is started again; before, its end is the end of all."""
        self._may_restart = True

    async def until_one_ends(self) -> None:
        """Wait, and raise Unavailable when a program ends that may not be started again."""
        raise await asyncio.shield(self._ended)

    async def _keep(self, name: str) -> None:
        pause = 0.5
        while True:
            started = time.monotonic()
            code = await self._run(name)
            if not self._may_restart:
                self._give_up(name, code)
                return
            pause = 0.5 if time.monotonic() - started > _STEADY_SECONDS else pause
            _log.error("%s ended with code %s; starting it again in %.1f s", name, code, pause)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _give_up(self, name: str, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(
                Unavailable(f"{name} ended with code {code} while starting; its lines say why")
            )

    async def _run(self, name: str) -> int:
        """Run the program to its end; when cancelled, stop it in order."""
        process = await asyncio.create_subprocess_exec(
            *self._commands[name],
            env={**self._environment, **self._own.get(name, {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for us alone
            preexec_fn=dies_with_parent(signal.SIGTERM),
        )
        self._running[name] = process
        lines = asyncio.create_task(self._pass_on(name, process))
        try:
            return await process.wait()
        except asyncio.CancelledError:
            await _stop(name, process)
            raise
        finally:
            del self._running[name]
            await lines

    async def _pass_on(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        label = f"{name:<{self._width}} | " if self._named_lines else ""
        while line := await _read_line(process.stdout):
            text = line.decode(errors="replace").rstrip()
            # A log that can't be written, as on a full disk, must not stop the reading: the program
            # would wait for ever once its pipe is full.
            with suppress(OSError):
                sys.stderr.write(f"{label}{text}\n")
                sys.stderr.flush()


async def _read_line(stream: asyncio.StreamReader) -> bytes:
    """A line, or a piece of one that is too long to be held."""
    try:
        return await stream.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        return await stream.readexactly(error.consumed)


async def _stop(name: str, process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _STOP_SECONDS)
    except TimeoutError:
        _log.error("%s did not stop in %.0f s: killed", name, _STOP_SECONDS)
        process.kill()
        await process.wait()
