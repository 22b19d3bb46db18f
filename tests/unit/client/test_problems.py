"""Answers that are errors, as the errors of the library."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ragcore import errors
from ragcore.client.exchange import Response
from ragcore.client.problems import error_of, error_of_event, retry_after_seconds
from ragcore_api.errors import status_of
from scripted import problem


def family(kind: type[errors.RagError]) -> list[type[errors.RagError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in family(child))]


@pytest.mark.parametrize("kind", family(errors.RagError), ids=lambda kind: kind.__name__)
def test_every_error_of_the_service_is_raised_as_it_was(kind: type[errors.RagError]) -> None:
    error = error_of(problem(status_of(kind).value, kind.code, "what and why"))
    assert isinstance(error, kind) or error.code == kind.code
    assert str(error) == "what and why"
    assert error.request_id == "r1"


def test_of_two_errors_with_one_code_the_more_specific_is_raised() -> None:
    assert type(error_of(problem(422, "conversion_failed"))) is errors.ConversionFailed


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (404, errors.NotFound),
        (405, errors.Rejected),
        (413, errors.DocumentTooLarge),
        (418, errors.Rejected),
        (429, errors.RateLimited),
        (500, errors.RagError),
        (502, errors.Unavailable),
        (504, errors.Unavailable),
    ],
)
def test_a_code_that_is_not_known_is_told_and_the_status_decides(
    status: int, kind: type[errors.RagError]
) -> None:
    error = error_of(problem(status, "of_next_year"))
    assert type(error) is kind
    assert str(error) == "why (of_next_year)"


def test_a_page_of_a_proxy_is_told_in_short() -> None:
    answer = Response(502, {"x-request-id": "r9"}, b"<h1>Bad\n Gateway</h1>" + b"x" * 5000)
    error = error_of(answer)
    assert str(error).startswith("<h1>Bad Gateway</h1>")
    assert len(str(error)) < 300
    assert error.request_id == "r9"
    assert str(error_of(Response(500))) == "the answer is empty (status 500)"
    assert str(error_of(Response(503, {}, b"[1]"))) == "[1] (status 503)"


def test_an_address_that_leads_on_is_told() -> None:
    error = error_of(Response(308, {"location": "https://rag.example.org/jobs"}))
    assert "'https://rag.example.org/jobs'; use that one" in str(error)


def test_an_event_of_a_stream_tells_an_error_too() -> None:
    told = {"status": 503, "code": "model_unavailable", "detail": "away", "request_id": "r2"}
    error = error_of_event(told)
    assert isinstance(error, errors.ModelUnavailable)
    assert (str(error), error.request_id) == ("away", "r2")
    assert type(error_of_event({})) is errors.RagError


def test_a_pause_is_named_in_seconds_or_by_a_date() -> None:
    assert retry_after_seconds({"retry-after": "12"}) == 12
    later = format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)
    assert 290 < (retry_after_seconds({"retry-after": later}) or 0) <= 300
    assert retry_after_seconds({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    for nonsense in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}, {"retry-after": "²"}):
        assert retry_after_seconds(nonsense) is None
