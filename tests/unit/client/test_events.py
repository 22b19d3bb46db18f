"""Server-sent events, however the network cuts them."""

from hypothesis import given
from hypothesis import strategies as st

from ragcore.client.events import Event, EventReader

STREAM = (
    "\ufeff: a comment\r\n\r\n"
    'event: token\r\ndata: {"text": "Паром "}\r\n\r\n'
    ": ping - 2026-01-01\r\n\r\n"
    "id: 7\r\nretry: 10\r\nevent: token\r\ndata:first\r\ndata:  second\r\n\r\n"
    "event: nothing\r\n\r\n"
    "data: unnamed\r\n\r\n"
    "event: done\r\ndata: broken off"
)
EVENTS = [
    Event("token", '{"text": "Паром "}'),
    Event("token", "first\n second"),
    Event("message", "unnamed"),
]


@given(
    st.lists(st.integers(0, len(STREAM.encode())), max_size=30),
    st.sampled_from(["\r\n", "\n", "\r"]),
)
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts: list[int], end: str) -> None:
    content = STREAM.replace("\r\n", end).encode()
    reader, events, start = EventReader(), [], 0
    for cut in [*sorted(cuts), len(content)]:
        events += reader.feed(content[start:cut])
        start = max(start, cut)
    assert events == EVENTS


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert list(EventReader().feed(b"data: \xff\n\n")) == [Event("message", "\ufffd")]
