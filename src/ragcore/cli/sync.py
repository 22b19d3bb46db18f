"""`ragcore sync`, and `ragcore ingest s3://…`: collections kept like buckets."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, place, session
from ragcore.errors import InvalidInput

if TYPE_CHECKING:
    from ragcore.cli.library import Buckets
    from ragcore.model import Job
    from ragcore.ports import BucketOrder

Include = Annotated[
    list[str] | None,
    typer.Option(
        help="Of a bucket: only objects that match: '*.pdf' by name, '2024/**' by the whole key. "
        "Repeatable."
    ),
]
Exclude = Annotated[
    list[str] | None, typer.Option(help="Of a bucket: no objects that match. Repeatable.")
]
DeleteMissing = Annotated[
    bool, typer.Option("--delete-missing", help="Delete documents whose objects are gone.")
]
MaxDeleteShare = Annotated[
    float,
    typer.Option(min=0, max=1, help="Largest share of the known objects that may be gone; 1: any."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Of a bucket: only tell what would be done.")
]

_MOST_TOLD = 1000
"""Lines of a plan or of a result; `--json` holds the counts, the API tells it all."""


def sync(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME…", help="Which of RAGCORE_BUCKETS__SYNCS; none: all."),
    ] = None,
    every: Annotated[
        float | None, typer.Option(min=1, help="Stay, and do it again after so many seconds.")
    ] = None,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Keep collections like the buckets that are configured for them.

    Lists each bucket, ingests what is new or has changed, and where that is configured deletes
    what is gone. A running worker does the same by itself, as often as `every_seconds` says.

    \b
    Examples:
      ragcore sync
      ragcore sync reports --dry-run
      ragcore sync --every 600

    Exit code 1 when a listing or any document failed, 3 when a server is away.
    """
    failed = session.run_async(
        lambda: _sync(names or (), every, dry_run=dry_run, as_json=as_json), as_json=as_json
    )
    if failed:
        raise typer.Exit(output.ExitCode.FAILED)


def ingest_buckets(uris: Sequence[str], said: Mapping[str, Any], *, as_json: bool) -> None:
    """Ingest buckets one after another and tell how each ended; exits with 1 when any failed."""

    async def run() -> bool:
        async with place.library().buckets() as buckets:
            return await _run_all(buckets, [(uri, said) for uri in uris], as_json=as_json)

    if session.run_async(run, as_json=as_json):
        raise typer.Exit(output.ExitCode.FAILED)


async def _sync(names: Sequence[str], every: float | None, *, dry_run: bool, as_json: bool) -> bool:
    import asyncio

    from ragcore.cli.local import LocalBuckets

    async with session.opened() as rag:
        configured = {each.name: each.order for each in rag.runtime.start_due_syncs.syncs}
        if unknown := set(names) - set(configured):
            raise InvalidInput(
                f"no sync is configured as {min(unknown)!r}; there are "
                f"{', '.join(sorted(configured)) or 'none'} (RAGCORE_BUCKETS__SYNCS__NAME__…)"
            )
        if not configured:
            raise InvalidInput(
                "no sync is configured: set RAGCORE_BUCKETS__SYNCS__NAME__BUCKET, or name a "
                "bucket with `ragcore ingest s3://bucket/prefix`"
            )
        orders = [
            (order.uri, _said_in(order) | {"dry_run": dry_run})
            for name, order in configured.items()
            if not names or name in names
        ]
        while True:
            failed = await _run_all(LocalBuckets(rag), orders, as_json=as_json)
            if every is None:
                return failed
            await asyncio.sleep(every)


def _said_in(order: "BucketOrder") -> dict[str, Any]:
    """Return what an order says of its bucket, as a command would."""
    return {
        "collection": order.collection,
        "metadata": order.metadata,
        "include": order.include,
        "exclude": order.exclude,
        "delete_missing": order.delete_missing,
        "max_delete_share": order.max_delete_share,
    }


async def _run_all(
    buckets: "Buckets", orders: Sequence[tuple[str, Mapping[str, Any]]], *, as_json: bool
) -> bool:
    """Return whether anything failed."""
    failed = False
    for uri, said in orders:
        with _progress(uri) as progress:
            job = await buckets.ingest(uri, **said, on_progress=progress)
        failed = failed or job.status == "failed" or job.counts.get("failed", 0) > 0
        if as_json:
            output.print_json_line({"bucket": uri, **output.jsonable(job)})
        else:
            await _tell(buckets, uri, job, is_plan=said["dry_run"])
    return failed


async def _tell(buckets: "Buckets", uri: str, job: "Job", *, is_plan: bool) -> None:
    """Print the objects that something was decided about, then the sum."""
    rows = [row async for row in _rows(buckets, job, wants_all=is_plan)]
    if rows:
        columns = {"object": "left", "decided": "left", "became": "left", "why": "left"}
        output.print_table(None, columns, rows)
    typer.echo(f"{uri}: {_sum(job.counts)}" + (" (a dry run)" if is_plan else ""))
    if job.error is not None:
        typer.echo(f"{uri}: {job.status}: {job.error.code}: {job.error.detail}")


async def _rows(buckets: "Buckets", job: "Job", *, wants_all: bool) -> AsyncIterator[list[str]]:
    """Yield what is worth a line: all of a plan, and of what was done whatever is not as usual."""
    told = 0
    async for each in buckets.objects(job):
        became = each.outcome or each.status or ""
        if not wants_all and each.status == "succeeded":
            continue
        why = each.note.reason or ""
        if each.error is not None:
            why = f"{each.error.code}: {each.error.detail}"
        yield [each.note.key, each.note.action, became, why]
        if (told := told + 1) >= _MOST_TOLD:
            return


def _sum(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items() if count)
    return told or "nothing there"


@contextmanager
def _progress(uri: str) -> "Iterator[Callable[[Job], None]]":
    """Show how many documents of a bucket are done, on stderr, where somebody looks."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=output.stderr_console(),
        transient=True,
        disable=not output.stderr_console().is_terminal,
    ) as bars:
        bar = bars.add_task(f"{uri}: listing", total=None)

        def show(job: "Job") -> None:
            if job.kind != "bucket" or not job.counts:
                return
            total: Any = sum(job.counts.get(each, 0) for each in ("new", "changed"))
            waiting = job.counts.get("waiting", 0)
            bars.update(bar, description=uri, total=total, completed=total - waiting)

        yield show
