"""Progress of an ingest on stderr: a bar per stage in a terminal, a line per file elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from ragcore.cli.output import stderr_console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ragcore.model import Job

STAGES = ("fetching", "converting", "chunking", "embedding", "storing")


class IngestProgress(Protocol):
    """Told how far each file is."""

    def reached(self, source: str, job: "Job") -> None:
        """Take note of a running job's stage and how far it is in it."""
        ...

    def finished(self, source: str, line: str) -> None:
        """Take note that a file is done; `line` says how it ended."""
        ...


@contextmanager
def ingest_progress(total: int) -> Iterator[IngestProgress]:
    """Show the progress of `total` files until the block ends."""
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    with _stage_bars() as bars:
        yield _StageBars(bars, total)


class _Lines:
    """One line per finished file: for logs, pipes and dumb terminals."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    def reached(self, source: str, job: "Job") -> None:
        """Say nothing: a log wants results."""

    def finished(self, source: str, line: str) -> None:
        self._done += 1
        sys.stderr.write(f"[{self._done}/{self._total}] {source}: {line}\n")
        sys.stderr.flush()


class _StageBars:
    """A bar per stage over all files: how many files' worth of that stage is done."""

    def __init__(self, bars: "Progress", total: int) -> None:
        self._bars = bars
        self._stages: dict[str, TaskID] = {
            stage: bars.add_task(stage, total=total, now="") for stage in STAGES
        }
        self._files = bars.add_task("files", total=total, now="")
        self._reached: dict[str, tuple[int, float]] = {}
        self._finished = 0

    def reached(self, source: str, job: "Job") -> None:
        if job.stage is not None:
            self._reached[source] = (STAGES.index(job.stage), job.progress)
            self._draw()

    def finished(self, source: str, line: str) -> None:
        self._reached.pop(source, None)
        self._finished += 1
        self._draw()

    def _draw(self) -> None:
        for number, stage in enumerate(STAGES):
            done = self._finished + sum(
                1.0 if at > number else progress if at == number else 0.0
                for at, progress in self._reached.values()
            )
            now = ", ".join(s for s, (at, _) in self._reached.items() if at == number)
            self._bars.update(self._stages[stage], completed=done, now=now)
        self._bars.update(self._files, completed=self._finished)


def _stage_bars() -> "Progress":
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description:>10}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>5.1f}/{task.total:.0f}", markup=False),
        TimeElapsedColumn(),
        TextColumn(
            "{task.fields[now]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        ),
        console=stderr_console(),
        transient=True,
        expand=True,
    )
