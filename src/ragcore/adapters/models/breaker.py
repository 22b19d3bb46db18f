"""A circuit breaker: who fails again and again is left alone for a while."""

import time
from collections.abc import Callable
from typing import Final, Literal

BreakerState = Literal["closed", "open", "half_open"]

_LONGEST_PAUSE: Final = 12
"""Times the first pause: each trial that fails doubles it, up to this."""


class CircuitBreaker:
    """Counts failures in a row of one server, for the calls of one event loop.

    closed: calls go through. After `failures` in a row it is open: nobody calls. After a pause it
    is half open: one call at a time tries, and closes it, or opens it for twice as long.
    """

    def __init__(
        self,
        *,
        failures: int,
        pause_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_failures = failures
        self._first_pause = pause_seconds
        self._pause = pause_seconds
        self._clock = clock
        self._open_until: float | None = None
        self._is_trying = False
        self.failures = 0
        """In a row, up to now."""

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def retry_after_seconds(self) -> float:
        """Until a call may be tried again; 0: now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def may_call(self) -> bool:
        """Whether a call would be let through by `enter`."""
        return self.state == "closed" or (self.state == "half_open" and not self._is_trying)

    def enter(self) -> None:
        """Begin a call, which must end with `succeeded`, `failed` or `abandoned`."""
        self._is_trying = self.state == "half_open"

    def succeeded(self) -> None:
        """Take note of an answer, whatever it says: the server lives."""
        self.failures = 0
        self._open_until = None
        self._pause = self._first_pause
        self._is_trying = False

    def failed(self) -> None:
        """Take note of a failure; calls that began before it opened don't lengthen the pause."""
        self.failures += 1
        is_trial, self._is_trying = self._is_trying, False
        if is_trial:
            self._pause = min(2 * self._pause, _LONGEST_PAUSE * self._first_pause)
            self._open_until = self._clock() + self._pause
        elif self._open_until is None and self.failures >= self._most_failures:
            self._open_until = self._clock() + self._pause

    def abandoned(self) -> None:
        """Take note of a call that its caller gave up: it tells nothing of the server."""
        self._is_trying = False
