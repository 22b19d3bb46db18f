"""Forms and their files, as the service's own parser reads them."""

import io
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request

from ragcore.client.bodies import (
    PIECE_BYTES,
    FilePart,
    FormBody,
    InMemory,
    JsonBody,
    OnDisk,
    OpenFile,
)
from ragcore.errors import InvalidInput
from ragcore_api.uploads import FormField, FormFile, parts_of


async def parsed(body: FormBody) -> list[tuple[str, Any]]:
    """The parts as the service reads them: text of fields, name and content of files."""
    pieces = list(body.pieces())
    assert sum(map(len, pieces)) == body.length

    async def receive() -> dict[str, Any]:
        piece = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    headers = [(b"content-type", body.content_type.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    found: list[tuple[str, Any]] = []
    async for part in parts_of(request, max_bytes=2**30):
        if isinstance(part, FormField):
            found.append((part.name, part.text))
        else:
            assert isinstance(part, FormFile)
            content = b"".join([piece async for piece in part.pieces])
            found.append((part.name, (part.filename, content)))
    return found


async def test_fields_come_before_files_and_arrive_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "scan.bin"
    path.write_bytes(content := bytes(range(256)) * 2000)
    body = FormBody(
        {"title": "Расписание", "metadata": '{"a": "\r\n--"}'},
        [FilePart("scan.bin", OnDisk(path)), FilePart("empty.txt", InMemory(b""))],
    )
    expected = [
        ("title", "Расписание"),
        ("metadata", '{"a": "\r\n--"}'),
        ("file", ("scan.bin", content)),
        ("file", ("empty.txt", b"")),
    ]
    assert await parsed(body) == expected
    assert await parsed(body) == expected  # sent again


@pytest.mark.parametrize("name", ['a"b.txt', "a\r\nX-Evil: 1.txt", "договор №5.pdf", "a;b=c.txt"])
async def test_a_name_can_not_end_its_header(name: str) -> None:
    body = FormBody({}, [FilePart(name, InMemory(b"x"))])
    assert await parsed(body) == [("file", (name, b"x"))]


def test_a_file_is_read_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"x" * (PIECE_BYTES * 2 + 5))
    assert list(map(len, OnDisk(path).pieces())) == [PIECE_BYTES, PIECE_BYTES, 5]


def test_a_file_that_changes_while_it_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"12345")
    content = OnDisk(path)
    path.write_bytes(b"1234567")
    assert b"".join(content.pieces()) == b"12345"
    path.write_bytes(b"123")
    with pytest.raises(InvalidInput, match="lost 2 bytes"):
        list(content.pieces())


def test_an_open_file_is_sent_from_where_it_stands() -> None:
    file = io.BytesIO(b"0123456789")
    file.seek(4)
    content = OpenFile(file)
    assert content.length == 6
    for _ in range(2):
        assert b"".join(content.pieces()) == b"456789"


def test_a_stream_that_can_not_go_back_is_refused() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(InvalidInput, match="can't go back"):
        OpenFile(Pipe())


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, object()])
def test_what_json_has_no_word_for_is_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="can't be written as JSON"):
        JsonBody({"metadata": {"x": value}})


def test_halves_of_characters_are_replaced() -> None:
    assert b"".join(JsonBody({"text": "a\ud800"}).pieces()) == b'{"text": "a?"}'
