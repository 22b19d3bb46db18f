"""The one place where the sync methods that LlamaIndex demands meet our async ones.

Pools and HTTP clients belong to the event loop they were opened on. A sync call may come from a
plain script, from a thread, or from a notebook whose own loop is running and must not wait for
itself. So the bridge keeps one loop of its own in a daemon thread, and what a sync call needs is
opened there a second time, on first use.
"""

import asyncio
import atexit
import logging
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 5.0


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Wait for a coroutine that runs on the bridge's loop, from anywhere but that loop."""
    loop = _bridge.loop()
    if threading.get_ident() == _bridge.thread_id:
        coroutine.close()
        raise RuntimeError(
            "a sync method was called from a coroutine that the bridge runs, and would wait for "
            "itself: call its async twin there"
        )
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    try:
        return future.result()
    except BaseException:  # a keyboard interrupt must not leave the work running
        future.cancel()
        raise


class Bridged(Generic[T]):
    """A resource that can be used from any thread, with or without a running event loop.

    On its home loop it is the very object that was given. Everywhere else it is a second one,
    opened on the bridge's loop the first time somebody asks and closed by `close`, `aclose` or
    the end of the process.
    """

    def __init__(self, resource: "_Resource", pick: Callable[[Any], T]) -> None:
        self._resource = resource
        self._pick = pick

    @classmethod
    def opened_by(
        cls, open_: Callable[[], AbstractAsyncContextManager[T]], *, home: T | None = None
    ) -> "Bridged[T]":
        """Open it with `open_` on the bridge; `home` is the running loop's own, when there is one.

        Without `home` all calls, async ones too, run on the bridge.
        """
        home_loop = None if home is None else asyncio.get_running_loop()
        resource = _Resource(open_, home=home, home_loop=home_loop)
        _resources.add(resource)
        return cls(resource, _itself)

    @classmethod
    def shared(cls, value: T) -> "Bridged[T]":
        """Use one object on every loop: only for what belongs to none."""
        return cls(_Resource(None, home=value, home_loop=None), _itself)

    def part(self, pick: Callable[[T], U]) -> "Bridged[U]":
        """Return a piece of it, `services.part(lambda it: it.search)`, sharing its life."""
        outer = self._pick
        return Bridged(self._resource, lambda value: pick(outer(value)))

    async def call(self, use: Callable[[T], Awaitable[U]]) -> U:
        """Run `use` with the resource: here on its home loop, otherwise on the bridge's."""
        if self._resource.is_at_home():
            return await use(self._pick(self._resource.home))
        loop = _bridge.loop()
        if asyncio.get_running_loop() is loop:
            return await self._use_on_bridge(use)
        return await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._use_on_bridge(use), loop)
        )

    def call_sync(self, use: Callable[[T], Awaitable[U]]) -> U:
        """Run `use` with the bridge's own resource and wait for it."""
        return run(self._use_on_bridge(use))

    async def aclose(self) -> None:
        """Close what the bridge opened; the object of the home loop is its owner's. Repeatable."""
        if self._resource.opened is not None:
            await asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(self._resource.close(), _bridge.loop())
            )

    def close(self) -> None:
        """Do what `aclose` does, without a loop."""
        if self._resource.opened is not None:
            run(self._resource.close())

    async def _use_on_bridge(self, use: Callable[[T], Awaitable[U]]) -> U:
        return await use(self._pick(await self._resource.on_bridge()))


def _itself(value: Any) -> Any:
    return value


@dataclass(eq=False)
class _Resource:
    """One object at home, and one that is opened on the bridge's loop when it is needed."""

    open_: Callable[[], AbstractAsyncContextManager[Any]] | None
    home: Any
    home_loop: asyncio.AbstractEventLoop | None
    opened: "asyncio.Future[Any] | None" = None
    _closing: asyncio.Event = field(init=False)
    _holder: "asyncio.Task[None]" = field(init=False)

    def is_at_home(self) -> bool:
        if self.open_ is None:
            return True
        return self.home_loop is not None and asyncio.get_running_loop() is self.home_loop

    async def on_bridge(self) -> Any:
        """Return the bridge's object, opened once; a failure to open is not remembered."""
        if self.open_ is None:
            return self.home
        if self.opened is None:
            self.opened = asyncio.get_running_loop().create_future()
            self._closing = asyncio.Event()
            self._holder = asyncio.create_task(self._hold(self.open_, self.opened))
        return await asyncio.shield(self.opened)

    async def _hold(
        self,
        open_: Callable[[], AbstractAsyncContextManager[Any]],
        opened: "asyncio.Future[Any]",
    ) -> None:
        """Enter and leave the context in one task, as cancel scopes inside it require."""
        try:
            async with open_() as value:
                opened.set_result(value)
                await self._closing.wait()
        except Exception as error:  # noqa: BLE001 - handed to those who wait for it
            if opened.done():
                _log.exception("closing a resource of the sync bridge failed")
            else:
                opened.set_exception(error)
        finally:
            if self.opened is opened:
                self.opened = None

    async def close(self) -> None:
        if self.opened is not None:
            self._closing.set()
            await self._holder


class _Bridge:
    """A daemon thread with an event loop, started by the first sync call of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.thread_id: int | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._loop.run_forever, name="ragcore-sync-bridge", daemon=True
                )
                thread.start()
                self.thread_id = thread.ident
            return self._loop

    def stop(self) -> None:
        """Close what is still open, for a bounded time, and end the loop."""
        loop = self._loop
        if loop is None:
            return
        closing = asyncio.run_coroutine_threadsafe(_close_all(), loop)
        try:
            closing.result(_CLOSE_SECONDS)
        except TimeoutError:
            _log.warning("the sync bridge could not close its resources in time")
        loop.call_soon_threadsafe(loop.stop)


async def _close_all() -> None:
    await asyncio.gather(*(resource.close() for resource in list(_resources)))


_resources: "weakref.WeakSet[_Resource]" = weakref.WeakSet()
_bridge = _Bridge()
atexit.register(_bridge.stop)
