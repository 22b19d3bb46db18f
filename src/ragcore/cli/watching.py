"""Which files changed, by looking again: works on every file system, network mounts included."""

import os
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from pathlib import Path

Snapshot = Mapping[Path, tuple[int, int]]
"""Of each file: time of modification in nanoseconds, size in bytes."""


def files_under(path: Path) -> list[Path]:
    """Return a file itself, or a folder's files at any depth, sorted; hidden ones are left out."""
    if not path.is_dir():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
    return found


def snapshot(paths: Iterable[Path]) -> Snapshot:
    """Look at all files under these paths; a file that vanishes meanwhile is left out."""
    seen = {}
    for path in paths:
        for file in files_under(path):
            try:
                status = file.stat()
            except OSError:
                continue
            seen[file] = (status.st_mtime_ns, status.st_size)
    return seen


def settled_changes(known: Snapshot, before: Snapshot, now: Snapshot) -> list[Path]:
    """Return the files that differ from what is known and did not change since the last look.

    A file that is still being written differs between two looks and waits for the next one.
    """
    return [
        path
        for path, state in now.items()
        if state != known.get(path) and state == before.get(path)
    ]


async def changed_files(
    paths: Sequence[Path], *, known: Snapshot, every_seconds: float = 1.0
) -> AsyncGenerator[list[Path], None]:
    """Yield, for ever, the files that were added or changed since they were last yielded."""
    import asyncio

    known = dict(known)
    before: Snapshot = known
    while True:
        await asyncio.sleep(every_seconds)
        now = await asyncio.to_thread(snapshot, paths)
        if changed := settled_changes(known, before, now):
            known |= {path: now[path] for path in changed}
            yield changed
        before = now
