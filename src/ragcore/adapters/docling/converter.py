"""Files → chunks, in disposable child processes: the `Converter` of production.

Docling has no time limit that holds, some formats can make it eat all memory, and C libraries
crash. So each file is read by a child that can be killed: warm (its imports done), reused, replaced
after some hundred files or when it has grown, under hard limits of wall-clock time and memory.
Start reading at `DoclingConverter.convert`; `processes` is one child, `child` its main loop, `work`
what it does with a file.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version

from ragcore.adapters.docling import wire
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.adapters.docling.processes import ChildKilled, ConversionProcess, OnProgress
from ragcore.adapters.docling.tesseract import choose_languages
from ragcore.errors import ConversionFailed, NotConfigured
from ragcore.model import ConvertedDocument
from ragcore.ports import UNMETERED, ConversionRequest, Meter

__all__ = ["ConversionOptions", "DoclingConverter"]

READER_VERSION = 1
"""Raise it when the same bytes come out as other text than before."""


_PAUSES_SECONDS = (0.25, 1.0, 4.0, 4.0, 4.0)
"""Before a file is read for the second time, the third …: whoever kills may be at it still. After
the last one it is given up. What the machine killed for want of memory it kills again; more often
than not it is somebody's doing, and no fault of the file's."""

_CLOSED = "the converter is closed; open another one"

log = logging.getLogger(__name__)


class DoclingConverter:
    """Reads files in at most `options.processes` children; further calls queue, first come first.

    Large files can take minutes, small ones don't wait for them: when large ones keep every child
    busy, one child more is started for small files. Children start with the first conversion, or
    with `warm`. Bound to the event loop it is used in.
    """

    def __init__(self, options: ConversionOptions, *, meter: Meter = UNMETERED) -> None:
        self._options = options
        self._seats = [_Seat(options, meter) for _ in range(options.processes)]
        self._small_seat = _Seat(options, meter)
        self._small_turn = asyncio.Lock()
        self._large_waiting = 0
        # Last in, first out: a warm child before one that has yet to start.
        self._free: asyncio.LifoQueue[_Seat] = asyncio.LifoQueue()
        for seat in self._seats:
            self._free.put_nowait(seat)
        self._is_closed = False

    @property
    def fingerprint(self) -> str:
        """Parser and options in one string; equal strings mean equal text.

        Tesseract's languages count as far as they are installed, so that a document read without
        them is read again once they are. Asks Tesseract, once a process.
        """
        options = self._options
        languages = () if options.ocr == "off" else choose_languages(options.ocr_languages).usable
        ocr = f"{options.ocr}:{'+'.join(languages)}" if languages else "off"
        return (
            f"docling-slim-{version('docling-slim')}:{READER_VERSION}"
            f" pdf={options.pdf_profile} ocr={ocr}"
        )

    async def warm(self) -> None:
        """Start every child and wait until all are ready. Raises UnsupportedMachine."""
        await asyncio.gather(*(seat.occupant() for seat in self._seats))

    @property
    def process_ids(self) -> tuple[int, ...]:
        """Of the children that are ready or at work, for whoever watches the machine."""
        seats = (*self._seats, self._small_seat)
        return tuple(pid for seat in seats if (pid := seat.process_id) is not None)

    @property
    def busy_process_ids(self) -> tuple[int, ...]:
        """Of the children that read a file at this moment."""
        return tuple(
            pid
            for seat in (*self._seats, self._small_seat)
            if seat.is_busy and (pid := seat.process_id) is not None
        )

    async def convert(
        self, request: ConversionRequest, *, progress: OnProgress | None = None
    ) -> ConvertedDocument:
        """Read one file. Results and scratch files lie in `request.directory`, also after a kill.

        Deterministic, safe to repeat. A file whose child somebody kills is read again, a few times.
        Raises UnsupportedFormat, DocumentTooLarge, ConversionError or one of its children;
        UnsupportedMachine when no child can be started. Cancelling the call kills the child.
        """
        order = wire.Order(_with_absolute_paths(request), self._options)
        is_small = self._is_small(request)
        killed = 0
        while True:
            try:
                async with self._seat(is_small=is_small) as seat:
                    if self._is_closed:
                        raise NotConfigured(_CLOSED)
                    return await seat.convert(order, progress, is_small=is_small)
            except ChildKilled as error:
                killed += 1
                if killed > len(_PAUSES_SECONDS):
                    raise ConversionFailed(f"{error}, as it was {killed} times in a row") from error
                log.warning("%s; the file is read again", error)
                await asyncio.sleep(_PAUSES_SECONDS[killed - 1])

    @asynccontextmanager
    async def _seat(self, *, is_small: bool) -> "AsyncIterator[_Seat]":
        if is_small and self._is_behind_large_files():
            async with self._small_turn:
                yield self._small_seat
            return
        self._large_waiting += not is_small
        try:
            seat = await self._free.get()
        finally:
            self._large_waiting -= not is_small
        try:
            yield seat
        finally:
            self._free.put_nowait(seat)

    def _is_small(self, request: ConversionRequest) -> bool:
        try:
            return request.path.stat().st_size <= self._options.small_file_kb * 1024
        except OSError:
            return False  # the child says what is wrong with it

    def _is_behind_large_files(self) -> bool:
        """Say whether a seat becomes free for a small file only after a large one."""
        if not self._free.empty():
            return False
        return self._large_waiting > 0 or not any(seat.reads_small for seat in self._seats)

    async def aclose(self) -> None:
        """End all children; conversions under way and in the queue fail. Safe to repeat."""
        self._is_closed = True
        for seat in (*self._seats, self._small_seat):
            seat.kill()
        async with self._small_turn:
            await self._small_seat.aclose()
        seats = [await self._free.get() for _ in self._seats]  # each conversion gives its one back
        for seat in seats:
            await seat.aclose()
            self._free.put_nowait(seat)


def _with_absolute_paths(request: ConversionRequest) -> ConversionRequest:
    return replace(request, path=request.path.absolute(), directory=request.directory.absolute())


class _Seat:
    """A place for one child at a time; used by one conversion at a time."""

    def __init__(self, options: ConversionOptions, meter: Meter) -> None:
        self._options = options
        self._meter = meter
        self._occupant: asyncio.Task[ConversionProcess] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.is_busy = False
        self.reads_small = False

    @property
    def process_id(self) -> int | None:
        process = self._settled()
        return process.pid if process is not None else None

    async def convert(
        self, order: wire.Order, progress: OnProgress | None, *, is_small: bool
    ) -> ConvertedDocument:
        process = await self.occupant()
        if self._is_closed:
            raise NotConfigured(_CLOSED)
        self.is_busy, self.reads_small = True, is_small
        try:
            return await process.convert(order, progress)
        finally:
            self.is_busy = self.reads_small = False
            if self._is_spent(process):
                self._replace(process)

    async def occupant(self) -> ConversionProcess:
        """Return the child that sits here, started if there is none. Raises UnsupportedMachine."""
        process = await self._started()
        if process.has_died:  # between two files, perhaps by the hand of the machine's OOM killer
            self._replace(process)
            process = await self._started()
        return process

    async def _started(self) -> ConversionProcess:
        if self._occupant is None:
            self._occupant = self._start()
        try:
            # A start outlives the call that asked for it: the next call finds the child warm.
            return await asyncio.shield(self._occupant)
        except asyncio.CancelledError:
            if self._is_closed:
                raise NotConfigured(_CLOSED) from None
            raise
        except Exception:
            self._occupant = None
            raise

    def _start(self) -> asyncio.Task[ConversionProcess]:
        self._meter.child_started()
        return asyncio.create_task(ConversionProcess.start(memory_mb=self._options.memory_mb))

    def _is_spent(self, process: ConversionProcess) -> bool:
        return process.is_spent(
            recycle_after=self._options.recycle_after, memory_mb=self._options.memory_mb
        )

    def _replace(self, process: ConversionProcess) -> None:
        """Let the child go and have its successor import Docling while nobody waits for it."""
        self._meter.child_ended(process.end)
        leaving = asyncio.create_task(process.aclose())
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        self._occupant = None if self._is_closed else self._start()

    def kill(self) -> None:
        """End the child's work, or its start; for good."""
        self._is_closed = True
        if (process := self._settled()) is not None and not process.has_died:
            process.kill()
        elif self._occupant is not None:
            self._occupant.cancel()

    async def aclose(self) -> None:
        """Wait until every child that ever sat here is gone. Safe to repeat."""
        if self._occupant is not None:
            await asyncio.wait([self._occupant])
        if (process := self._settled()) is not None:
            await process.aclose()
        self._occupant = None
        await asyncio.gather(*self._leaving)

    def _settled(self) -> ConversionProcess | None:
        """The child, if it has started."""
        starting = self._occupant
        if starting is None or not starting.done() or starting.cancelled():
            return None
        return starting.result() if starting.exception() is None else None
