from typing import Any

import pytest

from ragcore.errors import InvalidInput
from ragcore.steps.bucket_events import objects_in


def event(key: str, bucket: str = "b") -> dict[str, Any]:
    return {"s3": {"bucket": {"name": bucket}, "object": {"key": key, "eTag": "x"}}}


@pytest.mark.parametrize(
    "message",
    [
        {"EventName": "s3:ObjectCreated:Put", "Key": "b/a b", "Records": [event("a+b")]},
        [{"Event": [event("a%20b")], "EventTime": "2026-01-12T09:30:00Z"}],
        ["2026-01-12T09:30:00Z", [event("a+b")]],
        [["2026-01-12T09:30:00Z", [event("a+b")]]],
        event("a+b"),
        {"Records": [event("a+b"), event("a+b")]},
    ],
)
def test_every_shape_of_a_notification_names_its_object(message: Any) -> None:
    assert objects_in(message) == [("b", "a b")]


@pytest.mark.parametrize(
    "message",
    [None, "text", 5, [], {}, {"Records": []}, {"Records": [{"s3": {"bucket": "b"}}]},
     {"s3": {"bucket": {"name": 5}, "object": {"key": "k"}}}, [[[[[[[event("deep")]]]]]]]],
)  # fmt: skip
def test_what_is_no_notification_is_refused(message: Any) -> None:
    with pytest.raises(InvalidInput, match="no bucket notification"):
        objects_in(message)
