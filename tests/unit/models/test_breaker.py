from dataclasses import dataclass

import pytest

from ragcore.adapters.models.breaker import CircuitBreaker


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(failures=3, pause_seconds=5, clock=clock)


def fail(breaker: CircuitBreaker, *, times: int = 1) -> None:
    for _ in range(times):
        breaker.enter()
        breaker.failed()


def test_failures_in_a_row_open_it(breaker: CircuitBreaker) -> None:
    fail(breaker, times=2)
    breaker.enter()
    breaker.succeeded()
    fail(breaker, times=2)
    assert breaker.state == "closed"
    fail(breaker)
    assert breaker.state == "open"
    assert not breaker.may_call()
    assert breaker.retry_after_seconds == 5


def test_after_a_pause_one_call_at_a_time_tries(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, times=3)
    clock.now = 5
    assert breaker.state == "half_open"
    assert breaker.may_call()
    breaker.enter()
    assert not breaker.may_call()
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.may_call()


def test_each_trial_that_fails_doubles_the_pause_up_to_twelvefold(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=3)
    pauses = []
    for _ in range(6):
        pauses.append(breaker.retry_after_seconds)
        clock.now += breaker.retry_after_seconds
        fail(breaker)
    assert pauses == [5, 10, 20, 40, 60, 60]


def test_a_trial_that_its_caller_gives_up_lets_the_next_one_try(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=3)
    clock.now = 5
    breaker.enter()
    breaker.abandoned()
    assert breaker.may_call()


def test_calls_that_began_before_it_opened_do_not_lengthen_the_pause(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, times=3)
    clock.now = 2
    breaker.failed()
    assert breaker.retry_after_seconds == 3
