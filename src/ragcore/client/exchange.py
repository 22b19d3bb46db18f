"""What the operations of the client say to whoever drives them, and what they hear.

An operation is a generator without any I/O: it yields commands and is sent what came of them. So
each is written once, for the synchronous and the asynchronous client alike, and tested without a
network: a failure to connect is a value like every other.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")


class Body(Protocol):
    """The body of a request. It can be sent again, from its beginning."""

    content_type: str
    length: int
    """In bytes: exactly as many as the pieces hold together."""

    def pieces(self) -> Generator[bytes, None, None]:
        """Yield it from its beginning. What reading a file needs is closed with the generator."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """One request; to be answered by a `Response` or by `NoAnswer`."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    is_repeatable: bool = False
    """Whether it may reach the service twice: the second time changes nothing and is answered as
    the first would have been."""
    is_streamed: bool = False
    """Whether the body of a good answer is asked for piece by piece, by `Read`."""
    answer_seconds: float | None = None
    """How long the service may take to say the next thing; None: as the client is told."""
    also_expected: frozenset[int] = frozenset()
    """Statuses that are no error here, besides those from 200 to 299."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a request; without its body where that is streamed."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """What became of a request or a stream that broke."""

    error: Exception
    was_sent: bool = True
    """False: the service can't have seen any of it."""
    is_timeout: bool = False
    """The service was there and took too long; perhaps it is still busy with it."""
    whom: str = "the service"
    """Who did not answer, for the message."""


@dataclass(frozen=True, slots=True)
class Read:
    """Ask for the next piece of the streamed answer: bytes, empty at its end, or `NoAnswer`."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Ask to wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """Hand the caller the next value of an iterator."""

    value: T


Command = Request | Read | Pause
Heard = Response | bytes | NoAnswer | None

Steps = Generator[Command, Heard, T]
"""An operation that ends with a value."""

Stream = Generator[Command | Item[T], Heard, None]
"""An operation that yields values on its way."""

Drive = Generator[Any, Heard, T]
"""Either, as the drivers see it."""

READ: Final = Read()


def read() -> Steps[bytes | NoAnswer]:
    """Return the next piece of the streamed answer, empty at its end."""
    heard = yield READ
    assert isinstance(heard, bytes | NoAnswer)
    return heard
