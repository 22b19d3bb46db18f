"""What is sent again, and what never is."""

from dataclasses import replace

import pytest

from ragcore.client.exchange import NoAnswer, Request, Response
from ragcore.client.retrying import Retries, sent
from ragcore.errors import ModelUnavailable, RagError, RateLimited, StoreUnavailable, Unavailable
from scripted import BROKEN, REFUSED, SILENT, Script, answered, problem

LOOK = Request("GET", "/jobs", is_repeatable=True)
PUT = Request("PUT", "/collections/a", is_repeatable=True)
ONCE = Request("POST", "/keys")
STEADY = Retries(attempts=4, first_seconds=1.0, most_seconds=3.0, jitter=lambda: 0.0)
FINE = answered({})
AWAY = problem(503, "store_unavailable", retry_after="2")
TOO_MANY = problem(429, "rate_limited", retry_after="7")


@pytest.mark.parametrize(
    ("request_", "first"),
    [
        (LOOK, REFUSED),
        (LOOK, BROKEN),
        (LOOK, SILENT),
        (LOOK, AWAY),
        (LOOK, Response(502)),
        (LOOK, Response(504)),
        (PUT, BROKEN),
        (PUT, AWAY),
        (ONCE, REFUSED),
        (ONCE, TOO_MANY),
    ],
)
def test_what_does_no_harm_is_sent_again(request_: Request, first: Response | NoAnswer) -> None:
    script = Script([first, FINE])
    assert script.run(sent(request_, STEADY)) is FINE
    assert script.requests == [request_, request_]


@pytest.mark.parametrize(
    ("request_", "only"),
    [
        (ONCE, BROKEN),
        (ONCE, SILENT),
        (ONCE, AWAY),
        (ONCE, Response(502)),
        (PUT, SILENT),
        (LOOK, Response(500)),
        (PUT, Response(504)),
        (LOOK, problem(507, "storage_full", retry_after="5")),
        (LOOK, problem(404, "job_not_found")),
    ],
)
def test_what_may_have_been_done_or_will_not_help_is_not(
    request_: Request, only: Response | NoAnswer
) -> None:
    script = Script([only])
    with pytest.raises(RagError):
        script.run(sent(request_, STEADY))
    assert script.requests == [request_]


def test_pauses_double_up_to_a_bound_and_attempts_are_bounded() -> None:
    script = Script([REFUSED] * 4)
    with pytest.raises(Unavailable, match="can't be reached: refused") as raised:
        script.run(sent(LOOK, STEADY))
    assert script.pauses == [1.0, 2.0, 3.0]
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


def test_pauses_are_shortened_at_random_by_up_to_half() -> None:
    script = Script([REFUSED, REFUSED, FINE])
    script.run(sent(LOOK, replace(STEADY, jitter=iter([0.5, 1.0]).__next__)))
    assert script.pauses == [0.75, 1.0]


def test_a_service_that_asks_for_a_pause_is_given_all_of_it() -> None:
    script = Script([TOO_MANY, FINE])
    script.run(sent(LOOK, replace(STEADY, jitter=lambda: 1.0)))
    assert script.pauses == [7.5]


def test_a_service_that_asks_for_too_long_a_pause_is_left() -> None:
    script = Script([problem(429, "rate_limited", retry_after="3600")])
    with pytest.raises(RateLimited) as raised:
        script.run(sent(LOOK, STEADY))
    assert raised.value.retry_after_seconds == 3600


def test_the_last_answer_is_what_is_raised() -> None:
    script = Script([AWAY, BROKEN, problem(503, "model_unavailable"), AWAY])
    with pytest.raises(StoreUnavailable, match="why") as raised:
        script.run(sent(LOOK, STEADY))
    assert raised.value.request_id == "r1"
    script = Script([AWAY, problem(503, "model_unavailable")])
    with pytest.raises(ModelUnavailable):
        script.run(sent(LOOK, replace(STEADY, attempts=2)))


def test_a_status_that_is_expected_is_an_answer() -> None:
    ready = replace(LOOK, also_expected=frozenset({503}))
    assert Script([AWAY]).run(sent(ready, STEADY)) is AWAY
