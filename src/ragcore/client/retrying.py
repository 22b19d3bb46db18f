"""Which requests are sent again, and when."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from ragcore.client.exchange import NoAnswer, Pause, Request, Response, Steps
from ragcore.client.problems import error_of, retry_after_seconds

_TOO_MANY_REQUESTS: Final = 429
_BAD_GATEWAY: Final = 502
_UNAVAILABLE: Final = 503
_GATEWAY_TIMEOUT: Final = 504


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and after what pauses a request is sent again, where that is safe.

    Pauses double from `first_seconds` to `most_seconds`, each shortened at random by up to half,
    so that clients of a service that comes back don't all come at once. A service that names a
    pause is not asked before it is over, and not at all when it is over `most_asked_seconds`.
    """

    attempts: int = 5
    """1: nothing is ever sent again."""
    first_seconds: float = 0.5
    most_seconds: float = 10.0
    most_asked_seconds: float = 60.0
    jitter: Callable[[], float] = random.random
    """0…1."""

    def pause_after(self, attempt: int, *, asked_seconds: float | None = None) -> float | None:
        """Return the seconds to wait after this attempt, from 1; None: give up."""
        if attempt >= self.attempts or (asked_seconds or 0) > self.most_asked_seconds:
            return None
        # 2.0 ** 1000 is a number, 2.0 ** 2000 is not
        pause: float = min(self.most_seconds, self.first_seconds * 2.0 ** min(attempt - 1, 100))
        return (asked_seconds or 0) + pause * (1 - self.jitter() / 2)


NEVER: Final = Retries(attempts=1)
PATIENT: Final = Retries(attempts=75, first_seconds=0.25, most_seconds=5.0)
"""For those that wait for a job anyway: about five minutes without a service."""


def sent(request: Request, retries: Retries) -> Steps[Response]:
    """Send a request, again where that is safe, and return the answer.

    Raises the error that the last answer tells of, or Unavailable when there was none.
    """
    for attempt in count(1):
        heard = yield request
        assert isinstance(heard, Response | NoAnswer)
        if isinstance(heard, Response) and _is_good(heard, request):
            return heard
        pause = None
        if _may_go_again(request, heard):
            asked = retry_after_seconds(heard.headers) if isinstance(heard, Response) else None
            pause = retries.pause_after(attempt, asked_seconds=asked)
        if pause is None:
            raise error_of(heard)
        yield Pause(pause)
    raise AssertionError("counting has no end")


def _is_good(answer: Response, request: Request) -> bool:
    return 200 <= answer.status < 300 or answer.status in request.also_expected


def _may_go_again(request: Request, heard: Response | NoAnswer) -> bool:
    """Whether sending it again does no harm and may help.

    Refused for having come too soon, or never arrived: always. What may have been done already is
    sent again only when it is repeatable. What took too long is not, because the service may still
    be busy with it, unless it only looks something up.
    """
    if isinstance(heard, NoAnswer):
        if not heard.was_sent:
            return True
        return request.is_repeatable and (request.method == "GET" or not heard.is_timeout)
    if heard.status == _TOO_MANY_REQUESTS:
        return True
    if heard.status == _GATEWAY_TIMEOUT:
        return request.is_repeatable and request.method == "GET"
    return request.is_repeatable and heard.status in (_BAD_GATEWAY, _UNAVAILABLE)
