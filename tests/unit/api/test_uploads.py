import hashlib

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Message

from ragcore.errors import DocumentTooLarge, InvalidInput
from ragcore_api.uploads import body_of, field_of, files_of, form_of, metadata_of, pieces_of

MAX_BYTES = 3 * 2**20


async def _upload(request: Request) -> JSONResponse:
    try:
        async with form_of(request, max_bytes=MAX_BYTES) as form:
            digests = []
            for file in files_of(form):
                digest = hashlib.sha256()
                async for piece in pieces_of(file):
                    digest.update(piece)
                digests.append(digest.hexdigest())
            return JSONResponse(
                {"files": digests, "title": field_of(form, "title"), "metadata": metadata_of(form)}
            )
    except (DocumentTooLarge, InvalidInput) as error:
        return JSONResponse({"code": error.code, "detail": str(error)}, 400)


@pytest.fixture
def client() -> httpx.AsyncClient:
    app = Starlette(routes=[Route("/", _upload, methods=["POST"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_files_arrive_whole_and_in_order(client: httpx.AsyncClient) -> None:
    contents = [b"a" * 2_000_000, b"", "é".encode()]
    answer = await client.post("/", files=[("file", ("name", content)) for content in contents])
    assert answer.json()["files"] == [hashlib.sha256(content).hexdigest() for content in contents]


async def test_fields_come_with_the_files(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/", files={"file": b"x"}, data={"title": "Маяк", "metadata": '{"year": 1931}'}
    )
    assert answer.json()["title"] == "Маяк"
    assert answer.json()["metadata"] == {"year": 1931}


async def test_an_upload_over_the_limit_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/", files={"file": b"x" * (MAX_BYTES + 2**21)})
    assert answer.json()["code"] == "document_too_large"


@pytest.mark.parametrize(
    ("files", "data", "complaint"),
    [
        ({"other": b"x"}, {}, "no file"),
        ({"file": b"x"}, {"metadata": "{"}, "not JSON"),
        ({"file": b"x"}, {"metadata": "[1]"}, "must be a JSON object"),
        ({"file": b"x", "title": b"y"}, {}, "must be text"),
    ],
)
async def test_a_wrong_form_is_told_what_is_wrong(
    client: httpx.AsyncClient, files: dict[str, bytes], data: dict[str, str], complaint: str
) -> None:
    answer = await client.post("/", files=files, data=data)
    assert answer.json()["code"] == "invalid_input"
    assert complaint in answer.json()["detail"]


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    sent = 0

    async def receive() -> Message:
        nonlocal sent
        sent += 2**20
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": True}

    with pytest.raises(DocumentTooLarge):
        await body_of(Request({"type": "http"}, receive), max_bytes=MAX_BYTES)
    assert sent <= MAX_BYTES + 2 * 2**20
