"""What the service depends on, and whether it answers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.errors import ModelMissing, RagError
from ragcore.rag import Rag

_TIME_LIMIT_SECONDS: Final = 2.0
_FRESH_SECONDS: Final = 1.0
_NEEDED: Final = frozenset({"database", "embedding_model"})
"""Without these no question is answered; without the others documents wait or are refused, and
answers quote the passages."""

OK: Final = "ok"
TIMEOUT: Final = "timeout"


@dataclass(slots=True)
class Readiness:
    """Asks every dependency at once, each for a short time, and at most once a second.

    So probes, however many, can't hammer what is already struggling, and one that hangs does not
    hang the probe. Neither names nor addresses of servers are told: anybody may ask. A language
    model that is missing is named, as every answer names it.
    """

    checks: Mapping[str, Callable[[], Awaitable[object]]]
    time_limit_seconds: float = _TIME_LIMIT_SECONDS
    _states: Mapping[str, str] = field(default_factory=dict, init=False)
    _asked_at: float = field(default=float("-inf"), init=False)
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _late: set[asyncio.Task[object]] = field(default_factory=set, init=False)

    @classmethod
    def of(cls, rag: Rag, doorbell: RedisDoorbell) -> "Readiness":
        runtime = rag.runtime
        checks: dict[str, Callable[[], Awaitable[object]]] = {
            "database": lambda: runtime.catalog.are_live([]),
            "queue": doorbell.unheard,
            "blob_store": lambda: anext(runtime.blobs.list("none/"), None),
            "embedding_model": lambda: runtime.model.embed_query("ready?"),
            "disk": lambda: asyncio.to_thread(runtime.room.require),
        }
        if runtime.require_language_models is not None:
            checks["language_model"] = runtime.require_language_models
        return cls(checks)

    async def __call__(self) -> Mapping[str, str]:
        """Return the state of each dependency: `ok`, `timeout`, or the code of its error.

        After the code `model_missing` come the model and the command that brings it.
        """
        async with self._asking:
            if monotonic() - self._asked_at > _FRESH_SECONDS:
                states = await asyncio.gather(*map(self._state, self.checks.values()))
                self._states = dict(zip(self.checks, states, strict=True))
                self._asked_at = monotonic()
            return self._states

    async def _state(self, check: Callable[[], Awaitable[object]]) -> str:
        async def checking() -> object:
            return await check()

        task = asyncio.create_task(checking())
        done, _ = await asyncio.wait({task}, timeout=self.time_limit_seconds)
        if not done:
            # A driver may take its time to give up: it is told to, and not waited for.
            task.cancel()
            self._late.add(task)
            task.add_done_callback(self._forget)
            return TIMEOUT
        try:
            task.result()
        except ModelMissing as error:
            return f"{error.code}: {error.model}, run `ragcore models pull {error.model}`"
        except RagError as error:
            return error.code
        return OK

    def _forget(self, task: asyncio.Task[object]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, so that asyncio does not complain of it


def can_answer(states: Mapping[str, str]) -> bool:
    """Whether questions can be answered in these states."""
    return all(states.get(name, OK) == OK for name in _NEEDED)
