"""A worker in a thread of the test's own process, whose conversions a test can hold."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ragcore.model import ConvertedDocument, Stage
from ragcore.ports import ConversionRequest, Converter
from ragcore.runtime import open_doorbell, open_runtime
from ragcore.settings import Settings
from ragcore_worker.tasks import Answer


class HeldConversions:
    """A converter that holds files named `held…` until they are let go, and reads all others."""

    def __init__(self) -> None:
        self.inner: Converter
        self.began = threading.Event()
        self.gave_up = threading.Event()
        """Set when a held conversion is cancelled."""
        self._let_go = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    def hold(self) -> None:
        """Hold those that come from now on, and forget what was seen."""
        self.began.clear()
        self.gave_up.clear()
        self._let_go = asyncio.Event()

    def let_go(self) -> None:
        """Let those that are held be read, and those that come until `hold`."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def use(self, inner: Converter) -> "HeldConversions":
        self.inner, self._loop = inner, asyncio.get_running_loop()
        return self

    @property
    def fingerprint(self) -> str:
        return self.inner.fingerprint

    async def convert(
        self, request: ConversionRequest, *, progress: Callable[[Stage, float], None] | None = None
    ) -> ConvertedDocument:
        if (request.filename or "").startswith("held"):
            assert progress is not None
            progress("converting", 0.5)
            self.began.set()
            try:
                await self._let_go.wait()
            except asyncio.CancelledError:
                self.gave_up.set()
                raise
        return await self.inner.convert(request, progress=progress)

    async def aclose(self) -> None:
        """Leave the inner one to its owner."""


@contextmanager
def working(settings: Settings) -> Iterator[HeldConversions]:
    """Answer the bell until the block ends; jobs in hand then are given back at once."""
    conversions = HeldConversions()
    is_ready, problems = threading.Event(), list[BaseException]()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with (
            open_doorbell(settings) as doorbell,
            open_runtime(settings, doorbell=doorbell) as runtime,
        ):
            ingest = replace(runtime.work.ingest, converter=conversions.use(runtime.converter))
            answer = Answer(replace(runtime.work, ingest=ingest))
            async with doorbell.answered_by(answer, at_once=3, grace_seconds=0):
                is_ready.set()
                await stop.wait()

    def run() -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())
        except BaseException as error:  # noqa: BLE001  # told to the test's own thread
            problems.append(error)
        finally:
            is_ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    is_ready.wait()
    try:
        assert not problems, problems
        yield conversions
    finally:
        if thread.is_alive():
            loop.call_soon_threadsafe(stop.set)
        thread.join()
    assert not problems, problems
