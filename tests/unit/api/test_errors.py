from collections.abc import Iterator

import httpx
from fastapi import FastAPI, Request

from ragcore import errors
from ragcore_api.errors import STATUS, install, problems, status_of
from ragcore_api.guard import RequestIds


def every_error(kind: type[errors.RagError] = errors.RagError) -> Iterator[type[errors.RagError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from every_error(child)


def test_every_error_has_a_status_of_its_own_family() -> None:
    for kind in every_error():
        assert status_of(kind) == STATUS[next(a for a in kind.__mro__ if a in STATUS)]


def test_only_what_is_away_may_be_tried_again_and_only_it_is_503() -> None:
    for kind in every_error():
        assert kind.retryable == (status_of(kind) == 503)


def test_the_nearest_ancestor_decides() -> None:
    assert status_of(errors.CollectionNotFound) == 404
    assert status_of(errors.InvalidFilter) == 422
    assert status_of(errors.UnsupportedFormat) == 415
    assert status_of(errors.DocumentTooLarge) == 413
    assert status_of(errors.ForbiddenUrl) == 403
    assert status_of(errors.QueueUnavailable) == 503


def test_errors_of_one_status_are_documented_together() -> None:
    documented = problems(errors.InvalidInput, errors.InvalidFilter, errors.JobNotFound)
    assert set(documented) == {404, 422}
    assert "`invalid_input`" in documented[422]["description"]
    assert "`invalid_filter`" in documented[422]["description"]


async def test_a_bug_is_answered_without_its_details_and_with_the_requests_id() -> None:
    async def buggy(request: Request) -> None:
        raise ZeroDivisionError("secret of the inside")

    app = FastAPI()
    app.add_api_route("/", buggy)
    install(app)
    app.add_middleware(RequestIds)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] != ""
