"""Which objects of a bucket are documents that somebody wants, and why the others are not."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Final

from ragcore.errors import InvalidInput
from ragcore.model import BucketObject

_MOST_PATTERNS: Final = 50
_LONGEST_PATTERN: Final = 256

_NEVER_READ: Final = frozenset({
    ".7z", ".avi", ".bin", ".bz2", ".class", ".db", ".dll", ".dmg", ".exe", ".flac", ".gz", ".iso",
    ".jar", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".o", ".ogg", ".parquet", ".pyc", ".rar",
    ".so", ".sqlite", ".tar", ".tgz", ".ttf", ".wav", ".webm", ".whl", ".woff", ".woff2", ".xz",
    ".zip", ".zst",
})  # fmt: skip
"""Names of what holds no text to be read. Whatever else there is, its content decides."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What somebody wants of a bucket. Made by `selection`, which checks it."""

    include: tuple[str, ...] = ()
    """Patterns of which one must match; none: everything."""
    exclude: tuple[str, ...] = ()
    """Patterns of which none may match."""

    def wants(self, key: str) -> bool:
        """Say whether the patterns let an object through; folders' own markers are no objects."""
        if key.endswith("/"):
            return False
        if self.include and not any(matches(pattern, key) for pattern in self.include):
            return False
        return not any(matches(pattern, key) for pattern in self.exclude)


def selection(include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Selection:
    """Return a checked selection. Raises InvalidInput."""
    for pattern in (*include, *exclude):
        if not 0 < len(pattern) <= _LONGEST_PATTERN:
            raise InvalidInput(
                f"a pattern has 1 to {_LONGEST_PATTERN} characters: {pattern[:80]!r}"
            )
    if max(len(include), len(exclude)) > _MOST_PATTERNS:
        raise InvalidInput(f"at most {_MOST_PATTERNS} patterns are taken")
    return Selection(tuple(include), tuple(exclude))


def matches(pattern: str, key: str) -> bool:
    """Say whether a pattern fits a key.

    `*` and `?` stand for letters within a segment, `[abc]` for one of them, `**` for any number of
    whole segments. A pattern without a slash is for the last segment, one with a slash for the
    whole key. Takes time in proportion to both lengths, whoever wrote the pattern.
    """
    if "/" not in pattern:
        return fnmatchcase(key.rpartition("/")[2], pattern)
    segments = key.split("/")
    reached = {0}  # how many segments the pattern may have used up so far
    for part in pattern.split("/"):
        if part == "**":
            reached = set(range(min(reached), len(segments) + 1))
        else:
            reached = {
                place + 1
                for place in reached
                if place < len(segments) and fnmatchcase(segments[place], part)
            }
        if not reached:
            return False
    return len(segments) in reached


def why_skipped(listed: BucketObject, *, max_bytes: int) -> str | None:
    """Say why an object that somebody wants can't be a document; None: it may be one."""
    if listed.size_bytes == 0:
        return "it is empty"
    if listed.size_bytes > max_bytes:
        return f"it has {listed.size_bytes} bytes, the limit is {max_bytes}"
    suffix = PurePosixPath(listed.key).suffix.lower()
    if suffix in _NEVER_READ:
        return f"{suffix} files hold no text that can be read"
    if "\0" in listed.key:
        return "its name holds a NUL character"
    return None
