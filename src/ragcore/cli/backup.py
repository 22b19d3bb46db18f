"""`ragcore backup` and `ragcore restore`: everything in one file, and back."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, session

if TYPE_CHECKING:
    from ragcore.flows.backup import Manifest, Progress


def backup(
    target: Annotated[
        Path, typer.Argument(help="The file to write, or a folder for one named by the time.")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Write documents, jobs, keys and stored files into one file, while everything goes on.

    What is in it belongs to one moment. It holds all documents and is readable by its owner only;
    of API keys it holds hashes. Vectors are in it, so nothing is embedded again.

    \b
    Examples:
      ragcore backup /backups
      ragcore backup before-the-update.tar

    Exit code 1 when documents lack their stored files: they are named, the rest is backed up.
    """
    path = target / _name() if target.is_dir() else target

    async def write() -> "Manifest":
        from ragcore import __version__
        from ragcore.flows.backup import BackUp
        from ragcore.runtime import open_storage

        async with open_storage(session.load_settings()) as (database, blobs):
            with _shown_progress() as progress:
                return await BackUp(database, blobs, __version__)(path, progress)

    manifest = session.run_async(write, as_json=as_json)
    _tell(path, manifest, "Backed up to", as_json=as_json)


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `ragcore backup` has written.")],
    as_json: options.AsJson = False,
) -> None:
    """Put a backup back into an empty database, or a new data directory.

    The file is checked first; then everything appears at once, or nothing. Jobs that waited or ran
    are queued again. Needs the release of ragcore that wrote it.

    \b
    Examples:
      ragcore --data-dir /srv/ragcore-new restore before-the-update.tar
      RAGCORE_DATABASE_URL=postgresql://… ragcore restore /backups/ragcore-20260131-020000.tar

    Exit code 1 when the database is in use or documents lack their stored files, 2 when the file
    is damaged or another release's.
    """

    async def read() -> "Manifest":
        from ragcore.flows.backup import Restore
        from ragcore.runtime import open_storage

        async with open_storage(session.load_settings()) as (database, blobs):
            with _shown_progress() as progress:
                return await Restore(database, blobs)(source, progress)

    manifest = session.run_async(read, as_json=as_json)
    _tell(source, manifest, "Restored from", as_json=as_json)


def _name() -> str:
    return f"ragcore-{datetime.now(UTC):%Y%m%d-%H%M%S}.tar"


def _tell(path: Path, manifest: "Manifest", what: str, *, as_json: bool) -> None:
    counts = _counts(manifest)
    if as_json:
        output.print_json({"file": str(path), **counts})
    else:
        typer.echo(
            f"{what} {path}: {counts['documents']} documents, {counts['chunks']} chunks, "
            f"{counts['jobs']} jobs, {counts['files']} files."
        )
    if manifest.missing:
        named = ", ".join(manifest.missing[:20])
        more = len(manifest.missing) - 20
        output.warn(
            f"stored files are missing of {named}{f' and {more} more' if more > 0 else ''}; "
            "send these documents again"
        )
        raise typer.Exit(output.ExitCode.FAILED)


def _counts(manifest: "Manifest") -> dict[str, Any]:
    rows = {table: content.count for table, content in manifest.tables.items()}
    return {
        "ragcore": manifest.ragcore,
        "created_at": manifest.created_at,
        "collections": rows["ragcore.collections"],
        "documents": rows["ragcore.documents"],
        "jobs": rows["ragcore.jobs"],
        "keys": rows["ragcore.api_keys"],
        "chunks": sum(count for table, count in rows.items() if table.startswith("vecs.")),
        "files": manifest.files.count,
        "bytes": manifest.files.bytes + sum(each.bytes for each in manifest.tables.values()),
        "missing": list(manifest.missing),
    }


@contextmanager
def _shown_progress() -> "Iterator[Progress]":
    """Show a bar on a terminal until the block ends, and nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    bars = Progress(
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:>12.0f}", markup=False),
        TimeElapsedColumn(),
        console=output.stderr_console(),
        transient=True,
    )
    with bars:
        task = bars.add_task("", total=None)
        yield lambda what, done, total: bars.update(
            task, description=what, completed=done, total=total
        )
