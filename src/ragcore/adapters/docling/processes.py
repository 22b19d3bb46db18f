"""One conversion child as its owner sees it: started, asked, killed."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path

from ragcore.adapters.docling import wire
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import ConversionFailed, ConversionTimeout, RagError, UnsupportedMachine
from ragcore.model import Chunk, ConvertedDocument, Stage
from ragcore.ports import ChildEnd

log = logging.getLogger(__name__)

OnProgress = Callable[[Stage, float], None]

_CHILD = "ragcore.adapters.docling.child"
_START_SECONDS = 120.0
"""Importing Docling takes 2 s, or 20 on a machine that is short of memory or processors."""

# What a child inherits of our environment: enough to find programs and libraries, no secrets.
_INHERITED = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "PYTHONHOME",
    "LD_LIBRARY_PATH", "TESSDATA_PREFIX", "VIRTUAL_ENV",
)  # fmt: skip
_IMPOSED = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # parallel documents, not parallel loops
    "OMP_THREAD_LIMIT": "1",  # tesseract
    "MALLOC_ARENA_MAX": "2",  # an arena for each thread would eat the address space
    "PYTHONFAULTHANDLER": "1",
    "PYTHONUTF8": "1",
}


class ChildKilled(Exception):
    """Somebody else killed the child, by hand or for want of memory: its file may be read again."""


class ConversionProcess:
    """A child process that converts one file at a time. Use `start`, not the constructor."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        lifeline: int,
    ) -> None:
        self.conversions = 0
        self._process = process
        self._reader, self._writer = streams
        self._lifeline = lifeline
        self._is_broken = False
        self._killed_for: ChildEnd | None = None
        self._output = _Output(process.pid)
        assert process.stdout is not None
        self._draining = asyncio.create_task(self._output.drain(process.stdout))

    @classmethod
    async def start(cls, *, memory_mb: int) -> "ConversionProcess":
        """Return a child that is ready for work.

        Raises UnsupportedMachine when it does not start, ChildKilled when it was not let. A kill of
        this process at any line leaves no child: its lifeline closes with us.
        """
        child = await cls._spawn(memory_mb)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await wire.read_reply(child._reader)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            was_killed = await child._was_killed()
            await child.aclose()
            if was_killed:
                raise ChildKilled("the conversion process was killed while it started") from error
            raise UnsupportedMachine(
                f"the conversion process does not start; its last words: {child._output.tail!r}"
            ) from error
        except BaseException:
            await child.aclose()
            raise
        return child

    @classmethod
    async def _spawn(cls, memory_mb: int) -> "ConversionProcess":
        lifeline_end, lifeline = os.pipe()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    # -P: no module of the working directory shadows one of ours
                    *(sys.executable, "-P", "-m", _CHILD),
                    *(str(theirs.fileno()), str(lifeline_end), str(memory_mb)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=(theirs.fileno(), lifeline_end),
                    start_new_session=True,  # a process group of its own, to be killed as one
                    env=child_environment(os.environ),
                )
            return cls(process, await asyncio.open_connection(sock=ours), lifeline)
        except BaseException:
            ours.close()
            os.close(lifeline)
            raise
        finally:
            os.close(lifeline_end)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def end(self) -> ChildEnd:
        """Why it is gone, or about to go."""
        return self._killed_for or ("crashed" if self.has_died else "recycled")

    @property
    def has_died(self) -> bool:
        """Whether it is gone or doomed; asks the kernel, as asyncio learns of it a moment later."""
        if self._is_broken or self._process.returncode is not None:
            return True
        try:
            status = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True  # asyncio has buried it already
        return status is not None

    def is_spent(self, *, recycle_after: int, memory_mb: int) -> bool:
        """Say whether a fresh child should take over: dead, worked long enough, or grown."""
        return (
            self.has_died
            or self.conversions >= recycle_after
            or resident_mb(self.pid) > memory_mb * _GROWN
        )

    async def _was_killed(self) -> bool:
        """Say whether SIGKILL ended it; one that is about to end by itself gets a moment for it."""
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                return await self._process.wait() == -signal.SIGKILL
        except TimeoutError:
            return False

    async def convert(self, order: wire.Order, on_progress: OnProgress | None) -> ConvertedDocument:
        """Have the child read one file. Whatever goes wrong but a refusal, the child is killed.

        Raises the child's own RagError, ConversionTimeout when it ran over the time limit,
        ConversionFailed when it died, ChildKilled when that was somebody else's doing. Cancelling
        the call kills the child.
        """
        self.conversions += 1
        name = order.request.filename or order.request.path.name
        try:
            async with (
                asyncio.timeout(order.options.timeout_seconds),
                self._watched_memory(order.options.memory_mb),
            ):
                reply = await self._exchange(order, on_progress)
        except TimeoutError:
            self.kill("timeout")
            raise ConversionTimeout(
                f"reading {name!r} took longer than the {order.options.timeout_seconds:g} s "
                "allowed and was stopped; split the document or raise the limit"
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await self._death(name, order.options) from error
        except asyncio.CancelledError:
            self.kill("cancelled")
            raise
        except BaseException:
            self.kill("crashed")
            raise
        if isinstance(reply, wire.Failed):
            raise reply.as_error()
        return reply

    @contextlib.asynccontextmanager
    async def _watched_memory(self, memory_mb: int) -> AsyncIterator[None]:
        """Kill the child as soon as it holds more memory than it may."""

        async def watch() -> None:
            while resident_mb(self.pid) <= memory_mb:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(_WATCH_SECONDS)
            self.kill("memory")

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _exchange(
        self, order: wire.Order, on_progress: OnProgress | None
    ) -> ConvertedDocument | wire.Failed:
        self._output.begin()
        self._writer.write(wire.order_frame(order))
        await self._writer.drain()
        chunks: list[Chunk] = []
        while True:
            match await wire.read_reply(self._reader):
                case wire.Progress(stage, fraction):
                    if on_progress is not None:
                        on_progress(stage, fraction)
                case wire.Chunks(part):
                    chunks.extend(part)
                case wire.Done(document):
                    return replace(document, chunks=tuple(chunks))
                case wire.Failed() as failure:
                    return failure
                case wire.Ready():
                    raise ConversionFailed("the conversion process broke the protocol")

    async def _death(self, name: str, options: ConversionOptions) -> RagError | ChildKilled:
        """Find out what killed the child in the middle of a file."""
        were_we = self._is_broken
        self.kill("crashed")  # what it started may live on
        status = await self._process.wait()
        await self._draining
        if any(sign in self._output.tail for sign in _SIGNS_OF_HUNGER):
            self._killed_for = "memory"
        if self._killed_for == "memory":
            return ConversionTimeout(
                f"{name!r} needs more than the {options.memory_mb} MiB of memory allowed for a "
                "conversion; split the document or raise the limit"
            )
        if status == -signal.SIGKILL and not were_we:
            return ChildKilled(f"the process reading {name!r} {_how_it_ended(status)}")
        return ConversionFailed(
            f"the process reading {name!r} {_how_it_ended(status)}; the file may be damaged"
        )

    def kill(self, reason: ChildEnd | None = None) -> None:
        """End the child and everything it started, at once. Safe to repeat: the first counts."""
        if self._is_broken:
            return  # by now its number may be another process's
        self._is_broken = True
        self._killed_for = reason
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """Kill the child and wait until it is gone. Safe to repeat."""
        if self._process.returncode is None:
            self.kill()
        await self._process.wait()
        await self._draining
        self._writer.close()
        with contextlib.suppress(ConnectionError):  # an order was on its way
            await self._writer.wait_closed()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


_GROWN = 0.6
"""Part of its memory that a child may keep after a file; more would starve the next one."""

_WATCH_SECONDS = 0.1

_LAST_SECONDS = 2.0
"""Between closing its channel and its end."""


def resident_mb(pid: int) -> int:
    """Return the memory a process holds, in MiB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") // (1024 * 1024)


_SIGNS_OF_HUNGER = ("MemoryError", "bad_alloc", "Cannot allocate memory", "out of memory")


def _how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    name = signal.Signals(-status).name
    if name == "SIGKILL":
        return "was killed (SIGKILL: by hand, or the machine ran out of memory)"
    return f"crashed ({name})"


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the little of our environment that a conversion child needs, and no secret."""
    kept = {name: environment[name] for name in _INHERITED if name in environment}
    if search_path := kept.get("PYTHONPATH"):
        kept["PYTHONPATH"] = os.pathsep.join(
            str(Path(entry).absolute()) for entry in search_path.split(os.pathsep) if entry
        )
    return kept | _IMPOSED


class _Output:
    """What a child prints: some lines of each conversion for the log, and always the last words."""

    _LINES, _LINE_BYTES, _TAIL_LINES = 50, 500, 40

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._left = self._LINES
        self._last: deque[str] = deque(maxlen=self._TAIL_LINES)

    @property
    def tail(self) -> str:
        return "\n".join(self._last)

    def begin(self) -> None:
        """Allow the next conversion its share of log lines."""
        self._left = self._LINES
        self._last.clear()

    async def drain(self, stream: asyncio.StreamReader) -> None:
        pending = b""
        while piece := await stream.read(64 * 1024):
            *lines, pending = (pending + piece).split(b"\n")
            pending = pending[-self._LINE_BYTES :]
            for line in lines:
                self._take(line)
        if pending:
            self._take(pending)

    def _take(self, line: bytes) -> None:
        text = line[: self._LINE_BYTES].decode(errors="replace")
        self._last.append(text)
        if self._left > 0:
            self._left -= 1
            log.debug("child %d: %s", self._pid, text)
