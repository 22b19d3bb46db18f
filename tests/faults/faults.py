"""What can go wrong, as functions that make it so.

Each returns how many processes it killed, 0 when there was nothing to kill at that moment.
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

from faults.stack import Process, Stack, wait_until

Fault = Callable[[Stack, random.Random], int]

FROZEN_SECONDS: Final = 8.0
"""Longer than a lease lasts: the jobs of a worker frozen so long are taken over."""

_BACK_SECONDS: Final = 120.0
_APPEARS_SECONDS: Final = 3.0


def kill_one(role: str) -> Fault:
    """Return the fault of killing one process of a role."""

    def kill(stack: Stack, choice: random.Random) -> int:
        give_up_at = time.monotonic() + _APPEARS_SECONDS
        while not (found := stack.processes(role)) and time.monotonic() < give_up_at:
            time.sleep(0.05)  # it is just being started again
        return int(bool(found) and choice.choice(found).signal(signal.SIGKILL))

    return kill


def kill_up(stack: Stack, choice: random.Random) -> int:
    """Kill `ragcore up`, see everything go with it, and start it again."""
    killed = kill_one("up")(stack, choice)
    start_again(stack)
    return killed


def kill_everything(stack: Stack, choice: random.Random) -> int:
    """Kill every process at once, as a power cut would, and start again; counts as one kill."""
    victims = stack.processes()
    choice.shuffle(victims)
    killed = [process.signal(signal.SIGKILL) for process in victims]
    start_again(stack)
    return int(any(killed))


def restart(stack: Stack, choice: random.Random) -> int:
    """Stop and start in order; kills nothing."""
    thaw(stack.processes("worker"))
    stack.stop()
    stack.start()
    return 0


def empty_redis(stack: Stack, choice: random.Random) -> int:
    """FLUSHALL; kills nothing."""
    stack.empty_redis()
    return 0


def freeze_worker(stack: Stack, choice: random.Random) -> int:
    """Stop a worker past its lease, and let it go on while others do; kills nothing."""
    if workers := stack.processes("worker"):
        worker = choice.choice(workers)
        worker.signal(signal.SIGSTOP)
        threading.Timer(FROZEN_SECONDS, thaw, ([worker],)).start()
    return 0


def thaw(processes: list[Process]) -> None:
    """Let frozen processes go on; does nothing to others."""
    for process in processes:
        process.signal(signal.SIGCONT)


def start_again(stack: Stack) -> None:
    """Start what was killed, once the last process of it has gone by itself."""
    thaw(stack.processes("worker"))
    wait_until(lambda: not stack.processes(), seconds=_BACK_SECONDS, what="orphans gone")
    stack.start()


FAULTS: Final[dict[str, tuple[Fault, int]]] = {
    "conversion child": (kill_one("child"), 28),
    "worker": (kill_one("worker"), 22),
    "database connection": (kill_one("backend"), 14),
    "API": (kill_one("api"), 10),
    "Valkey": (kill_one("valkey"), 10),
    "PostgreSQL": (kill_one("postgres"), 8),
    "supervisor of a server": (kill_one("supervisor"), 4),
    "`ragcore up`": (kill_up, 1),
    "everything at once": (kill_everything, 1),
    "stop and start": (restart, 1),
    "FLUSHALL": (empty_redis, 6),
    "worker frozen past its lease": (freeze_worker, 4),
}
"""Every fault by name, with how often it comes in a hundred or so."""
