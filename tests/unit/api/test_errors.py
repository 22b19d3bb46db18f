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


def test_only_what_passes_may_be_tried_again() -> None:
    for kind in every_error():
        assert kind.retryable == (status_of(kind) in (429, 503, 507)), kind


def test_no_error_but_a_bug_or_a_wrong_installation_is_answered_with_500() -> None:
    for kind in every_error():
        if status_of(kind) == 500:
            assert kind is errors.RagError or issubclass(kind, errors.Unsupported)


async def answer_to(error: Exception, method: str = "GET", path: str = "/") -> httpx.Response:
    async def failing(request: Request) -> None:
        raise error

    app = FastAPI()
    app.add_api_route("/", failing)
    app.add_api_route("/v1/models", failing)
    install(app)
    app.add_middleware(RequestIds)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path)


async def test_a_limit_says_when_to_come_back() -> None:
    answer = await answer_to(errors.RateLimited("too many", retry_after_seconds=12.3))
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "13")
    assert answer.json()["code"] == "rate_limited"
    assert answer.json()["detail"] == "too many"


async def test_openai_clients_are_answered_in_their_shape() -> None:
    answer = await answer_to(errors.StoreUnavailable("PostgreSQL is away"), path="/v1/models")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/json")
    assert answer.json() == {
        "error": {
            "message": "PostgreSQL is away",
            "type": "server_error",
            "param": None,
            "code": "store_unavailable",
        }
    }
    assert int(answer.headers["Retry-After"]) > 0
    bug = await answer_to(ZeroDivisionError("secret"), path="/v1/models")
    assert (bug.status_code, bug.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in bug.text


async def test_what_is_not_installed_is_told_with_its_remedy() -> None:
    answer = await answer_to(errors.MissingExtra("pip install 'ragcore[mcp]'"))
    assert (answer.status_code, answer.json()["code"]) == (501, "missing_extra")
    assert "pip install" in answer.json()["detail"]


async def test_a_full_disk_is_told_as_such() -> None:
    answer = await answer_to(errors.StorageFull("12 MiB are left"))
    assert (answer.status_code, answer.json()["detail"]) == (507, "12 MiB are left")
    assert int(answer.headers["Retry-After"]) > 0


async def test_whoever_has_no_key_is_told_how_to_show_one() -> None:
    answer = await answer_to(errors.Unauthenticated("send a key"))
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_what_the_framework_refuses_has_the_shape_of_any_error() -> None:
    wrong = await answer_to(ValueError(), method="DELETE")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["Allow"] == "GET"
    assert (await answer_to(ValueError(), path="/nowhere")).json()["code"] == "not_found"


async def test_every_method_of_a_path_is_named_to_whoever_used_another() -> None:
    app = FastAPI()
    for method in ("GET", "PATCH"):
        app.add_api_route("/things/{name}", _nothing, methods=[method])
    app.add_api_route("/things/delete", _nothing, methods=["POST"])
    install(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.options("/things/one")).headers["Allow"] == "GET, PATCH"
        assert (await client.options("/things/delete")).headers["Allow"] == "GET, POST, PATCH"


async def _nothing() -> None: ...


async def test_a_body_that_is_no_text_is_as_invalid_as_any_other() -> None:
    async def taking(body: dict[str, int]) -> None: ...

    app = FastAPI()
    app.add_api_route("/", taking, methods=["POST"])
    install(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for body in (b"@\x12\xff", b"{", b'{"a": "\xd0"}', b""):
            json_type = {"Content-Type": "application/json"}
            answer = await client.post("/", content=body, headers=json_type)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


async def test_half_a_surrogate_pair_in_a_complaint_is_no_bug() -> None:
    answer = await answer_to(errors.InvalidInput("there is no '\ud800'"))
    assert (answer.status_code, answer.json()["detail"]) == (422, "there is no '?'")


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
    answer = await answer_to(ZeroDivisionError("secret of the inside"))
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] != ""
