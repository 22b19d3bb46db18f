import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import httpx
import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from ragcore.errors import DocumentTooLarge, InvalidInput, RagError, UnsupportedFormat
from ragcore.flows.submit import Submit
from ragcore.testing.memory.catalog import MemoryCatalog
from ragcore_api.uploads import FormFile, body_of, metadata_in, parts_of

MIB = 2**20
BOUNDARY = "3f2a"


@dataclass(frozen=True)
class Read:
    """A part as it was read, files whole."""

    name: str
    content: bytes
    filename: str | None = None
    mime_type: str | None = None


def part(headers: str, content: bytes = b"") -> bytes:
    return b"--3f2a\r\n" + headers.encode() + b"\r\n\r\n" + content + b"\r\n"


def file(content: bytes, name: str = "a.txt", field: str = "file") -> bytes:
    return part(f'Content-Disposition: form-data; name="{field}"; filename="{name}"', content)


def text(name: str, content: bytes) -> bytes:
    return part(f'Content-Disposition: form-data; name="{name}"', content)


END = b"--3f2a--\r\n"


class Sender:
    """Sends a body in these pieces, counting what is taken of it."""

    def __init__(self, pieces: Iterable[bytes], *, hangs_up: bool = False) -> None:
        self._pieces = iter(pieces)
        self._last: Message = (
            {"type": "http.disconnect"}
            if hangs_up
            else {"type": "http.request", "body": b"", "more_body": False}
        )
        self.taken = 0

    async def receive(self) -> Message:
        piece = next(self._pieces, None)
        if piece is None:
            return self._last
        self.taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": True}

    def request(self, *, length: int | None = None, content_type: str = "") -> Request:
        headers = [
            (
                b"content-type",
                (content_type or f"multipart/form-data; boundary={BOUNDARY}").encode(),
            )
        ]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        return Request({"type": "http", "headers": headers}, self.receive)


async def read(sender: Sender, *, max_bytes: int = MIB, content_type: str = "") -> list[Read]:
    found = []
    request = sender.request(content_type=content_type)
    async for each in parts_of(request, max_bytes=max_bytes):
        if isinstance(each, FormFile):
            content = b"".join([piece async for piece in each.pieces])
            found.append(Read(each.name, content, each.filename, each.mime_type))
        else:
            found.append(Read(each.name, each.text.encode()))
    return found


# --- what is read --------------------------------------------------------------------------


def encoded(content: bytes) -> tuple[bytes, str]:
    """A form as a real client makes it: fields, then two files."""
    request = httpx.Request(
        "POST",
        "http://test/",
        data={"title": "Маяк", "metadata": '{"year": 1931}'},
        files=[
            ("file", ("Отчёт.pdf", content, "application/pdf")),
            ("file", ("b.txt", b"\r\n--not the boundary\r\n", "text/plain")),
        ],
    )
    return request.read(), request.headers["content-type"]


@given(
    content=st.binary(max_size=300) | st.sampled_from([b"\r", b"\r\n", b"\r\n--", b"--" * 40]),
    cuts=st.lists(st.integers(1, 2000), max_size=12),
)
async def test_any_cut_of_the_bytes_gives_the_same_parts(content: bytes, cuts: list[int]) -> None:
    body, content_type = encoded(content)
    found = await read(Sender(cut(body, cuts)), content_type=content_type)
    assert found == [
        Read("title", "Маяк".encode()),
        Read("metadata", b'{"year": 1931}'),
        Read("file", content, "Отчёт.pdf", "application/pdf"),
        Read("file", b"\r\n--not the boundary\r\n", "b.txt", "text/plain"),
    ]


def cut(body: bytes, places: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    for start, end in pairwise(edges):
        yield body[start:end]


async def test_one_byte_at_a_time_gives_the_same_parts() -> None:
    body, content_type = encoded(b"x\r\n-y\r\n--z")
    single = [body[place : place + 1] for place in range(len(body))]
    assert await read(Sender(single), content_type=content_type) == await read(
        Sender([body]), content_type=content_type
    )


async def test_fields_may_come_after_the_files() -> None:
    found = await read(Sender([file(b"x"), text("title", b"T"), END]))
    assert [each.name for each in found] == ["file", "title"]


async def test_what_is_left_of_a_file_is_skipped_with_the_next_part() -> None:
    sender = Sender([file(b"x" * 1000), text("title", b"T"), END])
    names = [each.name async for each in parts_of(sender.request(), max_bytes=MIB)]
    assert names == ["file", "title"]


async def test_what_comes_after_the_last_boundary_does_not_matter() -> None:
    assert len(await read(Sender([file(b"x"), END, b"epilogue\r\n--3f2a"]))) == 1


async def test_a_blank_file_field_of_a_browser_is_a_file_without_a_name() -> None:
    assert await read(Sender([file(b"", name=""), END])) == [Read("file", b"")]


# --- memory and back-pressure --------------------------------------------------------------


class CountingBlobs:
    """A store that keeps nothing, and looks at what is in memory while it is given a file."""

    def __init__(self, sender: Sender) -> None:
        self.sender = sender
        self.size = 0
        self.largest_piece = 0
        self.furthest_ahead = 0

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        async for chunk in chunks:
            self.size += len(chunk)
            self.largest_piece = max(self.largest_piece, len(chunk))
            self.furthest_ahead = max(self.furthest_ahead, self.sender.taken - self.size)
        return self.size


async def test_a_large_upload_is_never_in_memory_and_never_far_ahead_of_the_store() -> None:
    block = bytes(range(256)) * 256  # 64 KiB, as servers hand it on
    blocks = 3200  # 200 MB

    def body() -> Iterator[bytes]:
        yield file(b"").removesuffix(b"\r\n")
        for _ in range(blocks):
            yield block
        yield b"\r\n" + END

    sender = Sender(body())
    blobs = CountingBlobs(sender)
    submit = Submit(MemoryCatalog(), blobs, None, fingerprint="", max_bytes=400 * MIB)  # type: ignore[arg-type]  # `put` is all that storing takes
    digest = hashlib.sha256()
    for _ in range(blocks):
        digest.update(block)
    tracemalloc.start()
    async for each in parts_of(sender.request(), max_bytes=400 * MIB):
        assert isinstance(each, FormFile)
        stored = await submit.store(each.pieces)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (stored.size, stored.sha256) == (blocks * len(block), digest.digest())
    assert peak < 4 * MIB
    assert blobs.largest_piece < MIB
    assert blobs.furthest_ahead < MIB


# --- what is refused -----------------------------------------------------------------------


async def test_an_upload_that_says_to_be_too_large_is_refused_unread() -> None:
    sender = Sender([file(b"x"), END])
    with pytest.raises(DocumentTooLarge):
        await anext(parts_of(sender.request(length=3 * MIB), max_bytes=MIB))
    assert sender.taken == 0


async def test_an_upload_that_turns_out_too_large_is_not_read_to_its_end() -> None:
    sender = Sender([file(b"").removesuffix(b"\r\n"), *[b"x" * 2**16] * 1000, END])
    with pytest.raises(DocumentTooLarge):
        await read(sender, max_bytes=MIB)
    assert sender.taken < 3 * MIB


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    sender = Sender([b"x" * MIB] * 100)
    with pytest.raises(DocumentTooLarge, match="as a file"):
        await body_of(sender.request(), max_bytes=3 * MIB)
    assert sender.taken <= 5 * MIB


@pytest.mark.parametrize("hangs_up", [True, False])
@pytest.mark.parametrize("whole", [file(b"x" * 100), file(b"x") + text("title", b"T")])
async def test_a_body_that_is_broken_off_anywhere_is_refused(whole: bytes, hangs_up: bool) -> None:
    for end in range(len(whole)):
        with pytest.raises(InvalidInput, match=r"cut short|closed before"):
            await read(Sender([whole[:end]], hangs_up=hangs_up))


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"no form at all", "not well-formed"),
        (b"--3f2a\r\nBad Header: x\r\n\r\n", "not well-formed"),
        (part("X: " + "x" * 5000) + END, "not well-formed"),
        (part("\r\n".join(f"X-{n}: x" for n in range(20))) + END, "not well-formed"),
        (part("Content-Type: text/plain", b"x") + END, "has no name"),
        (b"--3f2a\r\n\r\nx\r\n" + END, "has no name"),
        (text("title", b"x" * 300_000) + END, "is over"),
        (text("title", b"\xff\xfe") + END, "not UTF-8"),
        (file(b"x") * 101 + END, "at most 100 files"),
        (text("title", b"x") * 130 + END, "more than 120 parts"),
        (
            part(
                'Content-Disposition: form-data; name="file"; filename="a"\r\n'
                "Content-Transfer-Encoding: base64",
                b"eA==",
            )
            + END,
            "encoded as 'base64'",
        ),
    ],
)
async def test_a_form_that_is_no_good_is_told_what_is_wrong(body: bytes, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        await read(Sender([body]))


@given(st.binary(max_size=200))
async def test_no_bytes_make_it_fail_in_another_way(junk: bytes) -> None:
    try:
        await read(Sender([b"--3f2a", junk, END]))
    except RagError as error:
        assert isinstance(error, InvalidInput)


@pytest.mark.parametrize(
    ("content_type", "error"),
    [
        ("application/json", UnsupportedFormat),
        ("multipart/mixed; boundary=x", UnsupportedFormat),
        ("multipart/form-data", InvalidInput),
        ('multipart/form-data; boundary=""', InvalidInput),
        ("multipart/form-data; boundary=" + "x" * 71, InvalidInput),
    ],
)
async def test_another_content_type_is_refused_unread(
    content_type: str, error: type[RagError]
) -> None:
    sender = Sender([file(b"x"), END])
    with pytest.raises(error):
        await read(sender, content_type=content_type)
    assert sender.taken == 0


@pytest.mark.parametrize("metadata", ["{", "[1]", '"x"', "1", "[" * 100_000])
def test_metadata_must_be_a_json_object(metadata: str) -> None:
    with pytest.raises(InvalidInput, match="'metadata'"):
        metadata_in(metadata)
