"""What one side writes, the other reads."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragcore.adapters.docling import wire
from ragcore.adapters.docling.options import ConversionOptions
from ragcore.errors import ConversionFailed, ConversionTimeout, PasswordRequired
from ragcore.model import Chunk, ConvertedDocument, Place, ReadingReport
from ragcore.ports import ConversionRequest

REPORT = ReadingReport(parser="p", profile="fast", mime_type="application/pdf", pages=2)

texts = st.text(st.characters(exclude_categories=["Cs"]))
chunks = st.builds(
    Chunk,
    chunk_id=texts,
    ordinal=st.integers(0, 10_000),
    text=texts,
    embedding_text=texts,
    tokens=st.integers(0, 8192),
    headings=st.lists(texts, max_size=3).map(tuple),
    places=st.lists(
        st.builds(Place, page=st.integers(1, 99), box=st.none() | st.just((0.5, 1.0, 2.0, 3.25))),
        max_size=3,
    ).map(tuple),
    elements=st.lists(texts, max_size=3).map(tuple),
    start=st.none() | st.integers(0, 9),
    end=st.none() | st.integers(0, 9),
    language=st.none() | st.just("ru"),
)


async def sent(frame: bytes) -> object:
    reader = asyncio.StreamReader()
    reader.feed_data(frame)
    reader.feed_eof()
    return await wire.read_reply(reader)


@given(st.lists(chunks, max_size=4).map(tuple))
def test_chunks_travel_unchanged(several: tuple[Chunk, ...]) -> None:
    assert asyncio.run(sent(wire.reply_frame(wire.Chunks(several)))) == wire.Chunks(several)


async def test_every_other_reply_travels_unchanged() -> None:
    document = ConvertedDocument(
        chunks=(), title="Журнал", language="ru", extracted={"pages": 2, "author": "Й"},
        report=REPORT, seconds={"convert": 1.5},
    )  # fmt: skip
    for reply in (
        wire.Ready(),
        wire.Progress("chunking", 0.25),
        wire.Done(document),
        wire.Failed("PasswordRequired", "закрыто"),
    ):
        assert await sent(wire.reply_frame(reply)) == reply


@given(st.binary(min_size=1, max_size=64))
def test_a_cut_frame_is_an_end_not_a_reply(junk: bytes) -> None:
    frame = wire.reply_frame(wire.Ready())[: -len(junk)]
    with pytest.raises(asyncio.IncompleteReadError):
        asyncio.run(sent(frame))


async def test_a_frame_of_absurd_length_is_refused() -> None:
    with pytest.raises(ConversionFailed, match="bytes"):
        await sent(b"\xff\xff\xff\xff{}")


def test_an_order_travels_through_a_socket_in_pieces(tmp_path: Path) -> None:
    request = ConversionRequest(
        path=tmp_path / "ж.pdf", filename="ж.pdf", mime_type=None, directory=tmp_path,
        max_tokens=384, tokenizer="bytes", password="open sesame",
    )  # fmt: skip
    order = wire.Order(request, ConversionOptions(ocr_languages=("rus",), artifacts=tmp_path))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frame = wire.order_frame(order)

        def send_slowly() -> None:
            for start in range(0, len(frame), 7):
                ours.sendall(frame[start : start + 7])
            ours.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send_slowly)
        sender.start()
        assert wire.read_order(theirs) == order
        assert wire.read_order(theirs) is None
        sender.join()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PasswordRequired", PasswordRequired),
        ("ConversionTimeout", ConversionTimeout),
        ("SystemExit", ConversionFailed),
        ("anything else", ConversionFailed),
    ],
)
def test_a_child_can_raise_only_what_a_conversion_may(name: str, expected: type) -> None:
    error = wire.Failed(name, "why").as_error()
    assert type(error) is expected
    assert str(error) == "why"
