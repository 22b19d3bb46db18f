"""Clients that send documents whatever breaks, and write down what was acknowledged."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx

from faults.payloads import Payload, Payloads
from faults.stack import Stack

COLLECTION = "faults"

_PASSING = (429, 503, 507)
"""What the contract tells a caller to send again."""
_PATIENCE_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Ingested:
    """A document, or a new version of it, was acknowledged with a 202."""

    job_id: str
    payload: Payload


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deletion was acknowledged."""


@dataclass(slots=True)
class History:
    """What one document's owner was told, in order. One client owns a document, so it is total."""

    document_id: str
    events: list[Ingested | Deleted] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Jobs that somebody asked to cancel."""
    is_done: bool = False
    """No further request names it: a repeated deletion might arrive late and hit what is newer."""

    @property
    def payloads(self) -> Iterator[Payload]:
        return (event.payload for event in self.events if isinstance(event, Ingested))

    @property
    def living(self) -> list[Ingested]:
        """What was ingested since the last deletion, oldest first."""
        since: list[Ingested] = []
        for event in self.events:
            since = [*since, event] if isinstance(event, Ingested) else []
        return since


@dataclass(slots=True)
class Log:
    """What all clients were told."""

    histories: dict[str, History] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)
    """Answers that the contract knows nothing of."""
    requests: int = 0
    repeats: int = 0
    """Requests that had to be sent again."""

    @property
    def documents(self) -> int:
        """Of which at least one version was acknowledged."""
        return sum(bool(history.events) for history in list(self.histories.values()))

    @property
    def acknowledged(self) -> int:
        """Uploads that were answered with 202: new documents and new versions of them."""
        return sum(
            isinstance(event, Ingested)
            for history in list(self.histories.values())
            for event in history.events
        )


class Client(threading.Thread):
    """Does one thing after the other to documents of its own, until told to stop."""

    def __init__(
        self, stack: Stack, log: Log, *, seed: int, pause_seconds: float, name: str
    ) -> None:
        super().__init__(name=name, daemon=True)
        self._stack, self._log, self._pause_seconds = stack, log, pause_seconds
        self._random = random.Random(seed)
        self._payloads = Payloads(seed)
        self._mine: list[History] = []
        self._told_to_stop = threading.Event()
        self.failure: Exception | None = None

    def run(self) -> None:
        """Go on until told to stop; what was begun is finished first."""
        deeds: tuple[tuple[Callable[[], object], int], ...] = (
            (self.ingest_new, 60),
            (self._update, 14),
            (self._repeat, 6),
            (self._delete, 8),
            (self._ingest_hostile, 4),
            (self._update_with_hostile, 4),
            (self._cancel, 4),
        )
        try:
            while not self._told_to_stop.wait(self._random.uniform(0, 2 * self._pause_seconds)):
                (deed,) = self._random.choices(
                    [deed for deed, _ in deeds], weights=[weight for _, weight in deeds]
                )
                deed()
        except Exception as error:  # noqa: BLE001 - told to who waits for this thread
            self.failure = error

    def stop(self) -> None:
        self._told_to_stop.set()

    # --- what it does --------------------------------------------------------------------------

    def ingest_new(self) -> Ingested:
        """Send a new document."""
        payload = self._payloads.good()
        as_text = payload.filename.endswith(".md") and self._random.random() < 0.8
        return self._ingest(payload, self._new(), as_text=as_text)

    def ingest_long(self, *, paragraphs: int) -> Ingested:
        """Send a new document that takes a worker some time."""
        return self._ingest(self._payloads.long(paragraphs), self._new())

    def _ingest(self, payload: Payload, history: History, *, as_text: bool = False) -> Ingested:
        """Send a version of a document until it is acknowledged, and write that down."""
        key = str(uuid4())
        target = {"collection": COLLECTION, "document_id": history.document_id}
        if as_text:
            body: dict[str, Any] = {
                "json": {**target, "text": payload.content.decode(), "filename": payload.filename}
            }
        else:
            body = {"data": target, "files": {"file": (payload.filename, payload.content)}}
        answer = self._send("POST", "/ingest", headers={"Idempotency-Key": key}, **body)
        (job,) = answer.json()["jobs"]
        ingested = Ingested(job["job_id"], payload)
        if job["document_id"] != history.document_id:
            self._wrong(f"{history.document_id} was taken as {job['document_id']}")
        history.events.append(ingested)
        if self._random.random() < 0.1:  # as if the answer had not arrived
            again = self._send("POST", "/ingest", headers={"Idempotency-Key": key}, **body)
            if again.json()["jobs"][0]["job_id"] != ingested.job_id:
                self._wrong(f"{history.document_id} was taken twice under one idempotency key")
        return ingested

    def _ingest_hostile(self) -> None:
        self._ingest(self._payloads.hostile(), self._new())

    def _update(self) -> None:
        if history := self._any():
            self._ingest(self._payloads.good(), history)

    def _update_with_hostile(self) -> None:
        if history := self._any():
            self._ingest(self._payloads.hostile(), history)

    def _repeat(self) -> None:
        if history := self._any():
            self._ingest(self._random.choice(list(history.payloads)), history)

    def _cancel(self) -> None:
        if history := self._any():
            ingested = self._ingest(self._payloads.good(), history)
            history.cancelled.add(ingested.job_id)
            self._send("POST", f"/jobs/{ingested.job_id}/cancel")

    def _delete(self) -> None:
        if not (history := self._any()):
            return
        before = self._log.repeats
        path = f"/documents/{history.document_id}?collection={COLLECTION}"
        self._send("DELETE", path, fine=(200, 404))
        history.is_done = self._log.repeats > before or self._random.random() < 0.8
        history.events.append(Deleted())

    def _new(self) -> History:
        history = History(f"{self.name}-{len(self._mine):05}")
        self._mine.append(history)
        self._log.histories[history.document_id] = history
        return history

    def _any(self) -> History | None:
        """One of its documents, rather a young one, whose job may be under way."""
        young = [history for history in self._mine if not history.is_done and history.events]
        return self._random.choice(young[-self._random.choice((3, 30, 3000)) :]) if young else None

    # --- how it sends ----------------------------------------------------------------------------

    def _send(
        self, method: str, path: str, *, fine: tuple[int, ...] = (200, 202), **request: Any
    ) -> httpx.Response:
        """Send a request until it gets an answer that counts."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            self._log.requests += 1
            try:
                answer = httpx.request(method, f"{self._stack.url}{path}", timeout=30, **request)
            except (httpx.TransportError, httpx.UnsupportedProtocol):
                pass  # nobody there, or gone in the middle of it
            else:
                if answer.status_code in fine:
                    return answer
                if answer.status_code not in _PASSING:
                    self._wrong(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
            self._log.repeats += 1
            time.sleep(self._random.uniform(0.1, 0.6))
        raise AssertionError(f"{method} {path}: no answer in {_PATIENCE_SECONDS:.0f} s")

    def _wrong(self, what: str) -> None:
        self._log.wrongs.append(f"{time.strftime('%H:%M:%S')} {what}")
