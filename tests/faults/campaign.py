"""One run: a stack, clients that send documents, faults at random, and the account at the end."""

import asyncio
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from faults import faults
from faults.clients import Client, Log
from faults.ledger import Ledger, account
from faults.stack import Stack, running, wait_until

_TICK_SECONDS: Final = 0.05
_READY_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done at least, and how long it may take at most."""

    seed: int
    kills: int
    documents: int
    """Different ones that have to be acknowledged; new versions come on top."""
    longest_seconds: float
    """Of the killing: then it stops, whatever has been reached."""
    drain_seconds: float = 900.0
    takeovers: int = 0
    """Workers killed in the calm before it, to see how soon their jobs run again."""
    emptyings: int = 0
    """Times that Redis is emptied with every message in it, in the calm before it."""
    clients: int = 3


@dataclass(slots=True)
class Report:
    """What was done, what was measured, what was found."""

    plan: Plan
    ledger: Ledger = field(default_factory=Ledger)
    faults: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    repeats: int = 0
    killing_seconds: float = 0.0
    drain_seconds: float = 0.0
    takeover_seconds: list[float] = field(default_factory=list)
    emptied_seconds: list[float] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    """Processes that outlived `ragcore down`, and files in its work directory."""

    @property
    def total_kills(self) -> int:
        return sum(self.kills.values())

    @property
    def is_clean(self) -> bool:
        return self.ledger.is_balanced and not self.orphans


_SUPERVISORS_END_WITHIN_SECONDS = 30
"""Their grace of three, on a machine with other things to do."""


@contextmanager
def data_directory() -> Iterator[Path]:
    """Make a directory that the servers' unprivileged user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="ragcore-faults-"))
    directory.chmod(0o711)
    try:
        yield directory / "data"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def run(plan: Plan, *, keep_wrong: Path | None = None) -> Report:
    """Carry a plan out. What a run that is not clean left goes to `keep_wrong`, to be looked at."""
    report = Report(plan)
    with data_directory() as data_dir, _kept(data_dir, report, keep_wrong):
        stack = Stack.small(data_dir)
        with running(stack):
            log = Log()
            _measure_takeovers(stack, log, report)
            _measure_emptyings(stack, log, report)
            _kill_while_documents_come(stack, log, report)
            report.drain_seconds = drain(stack, seconds=plan.drain_seconds)
            report.requests, report.repeats = log.requests, log.repeats
            report.ledger = asyncio.run(account(stack, log))
            report.orphans = left_after_stopping(stack)
    return report


@contextmanager
def _kept(data_dir: Path, report: Report, keep_wrong: Path | None) -> Iterator[None]:
    """Copy the data directory when the block fails, or the report is not clean."""
    is_wrong = True
    try:
        yield
        is_wrong = not report.is_clean
    finally:
        if is_wrong and keep_wrong is not None:
            shutil.copytree(data_dir, keep_wrong, dirs_exist_ok=True)


# --- the killing -----------------------------------------------------------------------------


def _kill_while_documents_come(stack: Stack, log: Log, report: Report) -> None:
    plan = report.plan
    started = time.monotonic()
    stop_by = started + plan.longest_seconds
    clients = [
        Client(
            stack,
            log,
            seed=1000 * plan.seed + number,
            pause_seconds=_HASTE * plan.longest_seconds * plan.clients / plan.documents,
            name=f"client{number}",
        )
        for number in range(plan.clients)
    ]
    for client in clients:
        client.start()
    try:
        choice = random.Random(plan.seed)
        for name in _schedule(plan, choice):
            if time.monotonic() > stop_by or _is_enough(report):
                break
            _strike(name, stack, choice, report)
            _raise_failure(clients)
            time.sleep(_rest(plan, choice, started, report))
        while log.documents < plan.documents and time.monotonic() < stop_by:
            _raise_failure(clients)
            time.sleep(_TICK_SECONDS)
    finally:
        for client in clients:
            client.stop()
        faults.thaw(stack.processes("worker"))
    for client in clients:
        client.join(timeout=2 * _READY_SECONDS)
    _raise_failure(clients)
    report.killing_seconds = time.monotonic() - started


_SPREAD: Final = 0.8
"""Part of the time that the faults are spread over; the rest is for delays."""

_HASTE: Final = 0.1
"""Pause of a client, as a part of what it could afford if its requests took no time."""


def _schedule(plan: Plan, choice: random.Random) -> Iterator[str]:
    """Yield names of faults: each one once, then at random, more of them than are needed."""
    names = list(faults.FAULTS)
    once = choice.sample(names, k=len(names))
    yield from once
    weights = [weight for _, weight in faults.FAULTS.values()]
    yield from choice.choices(names, weights, k=10 * plan.kills)


def _is_enough(report: Report) -> bool:
    """Whether everything went wrong once, and enough was killed."""
    return report.faults.keys() == faults.FAULTS.keys() and report.total_kills >= report.plan.kills


def _strike(name: str, stack: Stack, choice: random.Random, report: Report) -> None:
    fault, _ = faults.FAULTS[name]
    killed = fault(stack, choice)
    report.faults[name] += 1
    report.kills[name] += killed


def _rest(plan: Plan, choice: random.Random, started: float, report: Report) -> float:
    """Return seconds to the next fault; now and then none, so that two come at once."""
    if choice.random() < 0.15:
        return 0.0
    share = report.total_kills / plan.kills
    ahead = started + share * _SPREAD * plan.longest_seconds - time.monotonic()
    mean = _SPREAD * plan.longest_seconds / plan.kills
    return max(0.5 * mean, min(ahead, 3 * mean)) * choice.uniform(0.5, 1.5)


def _raise_failure(clients: list[Client]) -> None:
    for client in clients:
        if client.failure is not None:
            raise client.failure


# --- before and after it -----------------------------------------------------------------------


def _measure_takeovers(stack: Stack, log: Log, report: Report) -> None:
    """Kill the worker that holds a job, and see how soon another runs it."""
    client = Client(stack, log, seed=report.plan.seed, pause_seconds=0, name="takeover")
    for _ in range(report.plan.takeovers):
        _measure_takeover(stack, client.ingest_long(paragraphs=_LONG).job_id, report)
        drain(stack, seconds=_READY_SECONDS)


_LONG: Final = 120
"""Paragraphs of a document that a worker is busy with when it is killed."""


def _measure_takeover(stack: Stack, job_id: str, report: Report) -> None:
    """Kill the worker that holds a job, and wait until it runs for the second time."""
    wait_until(lambda: _holder(stack, job_id)[0], seconds=_READY_SECONDS, what="job taken")
    victim, _ = _holder(stack, job_id)
    for worker in stack.processes("worker"):
        if worker.pid == victim:
            report.kills["worker"] += worker.signal(signal.SIGKILL)
            report.faults["worker"] += 1
    seconds = wait_until(
        lambda: _holder(stack, job_id)[1] > 1, seconds=_READY_SECONDS, what="job taken over"
    )
    report.takeover_seconds.append(seconds)


def _holder(stack: Stack, job_id: str) -> tuple[int, int]:
    """Process id of the worker that runs a job now, or 0, and how often it was begun."""
    query = (
        "SELECT coalesce(split_part(lease_owner, ':', 2)::int, 0), attempts FROM ragcore.jobs"
        " WHERE job_id = %s"
    )
    ((pid, attempts),) = stack.rows(query, job_id)
    return pid, attempts


def _measure_emptyings(stack: Stack, log: Log, report: Report) -> None:
    """Empty Redis while nobody has heard of twenty documents, and see how soon all are done."""
    client = Client(stack, log, seed=report.plan.seed + 1, pause_seconds=0, name="emptied")
    for _ in range(report.plan.emptyings):
        drain(stack, seconds=_READY_SECONDS)
        workers = stack.processes("worker")
        try:
            for worker in workers:
                worker.signal(signal.SIGSTOP)
            for _ in range(20):
                client.ingest_new()
            stack.empty_redis()
            report.faults["FLUSHALL"] += 1
        finally:
            faults.thaw(workers)
        report.emptied_seconds.append(drain(stack, seconds=_READY_SECONDS))


def drain(stack: Stack, *, seconds: float) -> float:
    """Wait until no job is queued or running, or until it takes too long; return how long it took.

    What is left then is the ledger's to tell.
    """
    started = time.monotonic()
    while _waiting(stack) and time.monotonic() < started + seconds:
        time.sleep(_TICK_SECONDS)
    return time.monotonic() - started


def _waiting(stack: Stack) -> bool:
    query = "SELECT 1 FROM ragcore.jobs WHERE status IN ('queued', 'running') LIMIT 1"
    try:
        return bool(stack.rows(query)) or not stack.is_ready()
    except psycopg.OperationalError:
        return True


def left_after_stopping(stack: Stack) -> list[str]:
    """Stop in order; return what outlives that and must not.

    A supervisor ends some seconds after its last user, and by itself: an orphan is what stays.
    """
    stack.stop()
    ended_by = time.monotonic() + _SUPERVISORS_END_WITHIN_SECONDS
    while stack.processes() and time.monotonic() < ended_by:
        time.sleep(0.2)
    processes = [f"{process.role}: {' '.join(process.command)}" for process in stack.processes()]
    return processes + [str(path) for path in (stack.data_dir / "work").iterdir()]
