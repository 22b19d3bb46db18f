"""A listing on disk: any length, little memory, in order of keys whatever order it came in.

S3 says that keys are listed in order of their bytes. Servers that keep objects in folders list
`a/x` before `a.txt`, and servers behind caches may list a key twice.
"""

import heapq
import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO

from ragcore.model import BucketObject

_RUN_LENGTH: Final = 10_000


@dataclass(slots=True)
class Spool:
    """Objects of one bucket, written down in sorted runs, and merged when they are read.

    A run that begins after the last key of the one before goes on in its file: a listing that is
    in order makes a single file. Not for use by several threads at once.
    """

    directory: Path
    """An existing one of its own; its owner removes it."""
    run_length: int = _RUN_LENGTH
    _run: list[BucketObject] = field(default_factory=list)
    _files: list[Path] = field(default_factory=list)
    _last_key: str | None = None

    def add(self, objects: Iterable[BucketObject]) -> None:
        """Write down some more. Raises OSError when the disk is full."""
        for each in objects:
            self._run.append(each)
            if len(self._run) >= self.run_length:
                self._write_run()

    def objects(self) -> Generator[BucketObject, None, None]:
        """Read all of them in order of their keys, by code point; of equal keys the newest.

        May be read more than once. Close what is not read to its end.
        """
        self._write_run()
        with ExitStack() as stack:
            files = [stack.enter_context(path.open(encoding="utf-8")) for path in self._files]
            merged = heapq.merge(*map(_read, files), key=lambda each: each.key)
            yield from _newest_of_each(merged)

    def _write_run(self) -> None:
        if not self._run:
            return
        self._run.sort(key=lambda each: each.key)
        if self._last_key is None or self._run[0].key <= self._last_key:
            self._files.append(self.directory / f"run-{len(self._files)}")
        with self._files[-1].open("a", encoding="utf-8") as file:
            for each in self._run:
                file.write(_line(each))
        self._last_key = self._run[-1].key
        self._run = []


def _line(each: BucketObject) -> str:
    values = [each.bucket, each.key, each.size_bytes, each.etag, each.modified_at]
    return json.dumps(values) + "\n"


def _read(file: TextIO) -> Iterator[BucketObject]:
    for line in file:
        values: list[Any] = json.loads(line)
        yield BucketObject(*values)


def _newest_of_each(objects: Iterable[BucketObject]) -> Iterator[BucketObject]:
    kept: BucketObject | None = None
    for each in objects:
        if kept is not None and kept.key != each.key:
            yield kept
            kept = None
        if kept is None or each.modified_at >= kept.modified_at:
            kept = each
    if kept is not None:
        yield kept
