"""What a bucket notification is about, in each of the shapes that MinIO sends them in."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_plus

from ragcore.errors import InvalidInput

_DEEPEST: Final = 4


def objects_in(message: Any) -> Sequence[tuple[str, str]]:
    """Return the bucket and key of every object that a notification names, each once.

    What happened to it is not told: whoever wants to know looks. A webhook gets `{"Records":
    [...]}`, a Redis list with `format=access` `[{"Event": [...], "EventTime": ...}]`, in older
    releases `[time, [...]]`. Raises InvalidInput when no event is in it.
    """
    found = list(dict.fromkeys(_named(message, _DEEPEST)))
    if not found:
        raise InvalidInput("this is no bucket notification: it names no object")
    return found


def _named(message: Any, deepest: int) -> Iterator[tuple[str, str]]:
    if deepest == 0:
        return
    if isinstance(message, list):
        for each in message:
            yield from _named(each, deepest - 1)
    elif isinstance(message, Mapping):
        if isinstance(message.get("s3"), Mapping):
            yield from _one(message["s3"])
        for name in ("Records", "Event"):
            if isinstance(message.get(name), list):
                yield from _named(message[name], deepest - 1)


def _one(described: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    bucket, entry = described.get("bucket"), described.get("object")
    if not isinstance(bucket, Mapping) or not isinstance(entry, Mapping):
        return
    name, key = bucket.get("name"), entry.get("key")
    if isinstance(name, str) and isinstance(key, str) and key:
        yield name, unquote_plus(key)
