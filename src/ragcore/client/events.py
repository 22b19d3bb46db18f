"""Server-sent events, read as they arrive."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    name: str
    data: str


class EventReader:
    """Makes events of pieces of bytes, wherever these were cut: in a line, in a character."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._line = ""
        self._ended_in_return = False
        self._name = ""
        self._data: list[str] = []

    def feed(self, piece: bytes) -> Iterator[Event]:
        """Yield the events that are whole with this piece; what is left waits for the next."""
        text = self._decoder.decode(piece)
        if self._ended_in_return and text:
            text = text.removeprefix("\n")  # the other half of an end of line
            self._ended_in_return = False
        if text.endswith("\r"):
            self._ended_in_return = True
        lines = (self._line + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._line = lines.pop()
        for line in lines:
            if line:
                self._take(line)
            elif event := self._whole():
                yield event

    def _take(self, line: str) -> None:
        """Take in one field; comments, which keep the connection open, begin with a colon."""
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)

    def _whole(self) -> Event | None:
        event = Event(self._name or "message", "\n".join(self._data)) if self._data else None
        self._name, self._data = "", []
        return event
