"""Drives the client's steps by a script instead of a network."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ragcore.client.exchange import Command, Heard, Item, NoAnswer, Pause, Read, Request, Response

REFUSED = NoAnswer(ConnectionRefusedError("refused"), was_sent=False)
BROKEN = NoAnswer(ConnectionResetError("reset"))
SILENT = NoAnswer(TimeoutError("silent"), is_timeout=True)


def answered(told: Any, status: int = 200, **headers: str) -> Response:
    """An answer in JSON; `retry_after="3"` is a header."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, named, json.dumps(told).encode())


def problem(status: int, code: str, detail: str = "why", **headers: str) -> Response:
    told = {"status": status, "code": code, "detail": detail, "request_id": "r1"}
    return answered(told, status, **headers)


@dataclass
class Script:
    """Answers requests and reads in order, and keeps what was asked."""

    heard: Sequence[Heard]
    asked: list[Command] = field(default_factory=list)
    items: list[Any] = field(default_factory=list)

    def run(self, steps: Any) -> Any:
        """Run steps to their end, and return their value."""
        script = iter(self.heard)
        heard: Heard = None
        while True:
            try:
                command = steps.send(heard)
            except StopIteration as end:
                assert not list(script), "it asked for less than the script has"
                return end.value
            heard = None
            if isinstance(command, Item):
                self.items.append(command.value)
                continue
            self.asked.append(command)
            if not isinstance(command, Pause):
                heard = next(script)

    @property
    def requests(self) -> list[Request]:
        return [each for each in self.asked if isinstance(each, Request)]

    @property
    def pauses(self) -> list[float]:
        return [each.seconds for each in self.asked if isinstance(each, Pause)]

    @property
    def reads(self) -> int:
        return sum(isinstance(each, Read) for each in self.asked)


def body_of(request: Request) -> bytes:
    assert request.body is not None
    content = b"".join(request.body.pieces())
    assert len(content) == request.body.length
    return content


def sent_json(request: Request) -> Any:
    return json.loads(body_of(request))
