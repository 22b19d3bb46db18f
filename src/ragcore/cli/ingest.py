"""`ragcore ingest`: files, folders and standard input into a collection."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, place, session, sync, watching
from ragcore.cli.progress import IngestProgress, ingest_progress
from ragcore.errors import InvalidInput, RagError

if TYPE_CHECKING:
    from ragcore.cli.library import Intake
    from ragcore.model import Job

_STDIN = "-"


def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE…",
            help="Files, folders, URLs and s3://bucket/prefix; - reads text from stdin.",
        ),
    ],
    collection: options.Collection = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata",
            "-m",
            metavar="KEY=VALUE|JSON",
            help="What to remember about each document, for filters. Repeatable.",
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title, for a single document.")] = None,
    document_id: Annotated[
        str | None, typer.Option(help="Id, for a single document; the same id replaces it.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Stay, and ingest files again when they change.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Documents worked on at once. [default: RAGCORE_CONVERSION__PROCESSES + 2; "
            "with --url 8]",
        ),
    ] = None,
    include: sync.Include = None,
    exclude: sync.Exclude = None,
    delete_missing: sync.DeleteMissing = False,
    max_delete_share: sync.MaxDeleteShare = 0.2,
    dry_run: sync.DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Read documents and make them searchable.

    A file is known by its path: ingested again it costs nothing when it is unchanged, and
    replaces the old version at once when it changed. A file that can't be read is reported, and
    never stops the others.

    \b
    Examples:
      ragcore ingest report.pdf
      ragcore ingest papers/ --collection research --metadata year=2026
      ragcore ingest https://example.org/timetable.html
      ragcore ingest notes/ --watch
      ragcore ingest s3://reports/2024/ --include '*.pdf' --dry-run
      echo "The pump was replaced in May." | ragcore ingest - --title "Pump log"

    Exit code 1 when any document failed, 3 when the database is away.
    """
    with output.errors_told(as_json=as_json):
        said = _Said(
            collection=collection,
            title=title,
            document_id=document_id,
            metadata=options.read_pairs(metadata, option="--metadata") or None,
        )
        _check_arguments(sources, said, watch=watch)
        bucket_options = {
            "include": include or (),
            "exclude": exclude or (),
            "delete_missing": delete_missing,
            "max_delete_share": max_delete_share,
            "dry_run": dry_run,
        }
        is_bucket = _are_buckets(sources, said, bucket_options, watch=watch)
    if is_bucket:
        said_of_buckets = {"collection": collection, "metadata": said.metadata, **bucket_options}
        sync.ingest_buckets(sources, said_of_buckets, as_json=as_json)
        return
    if watch:
        session.run_async(lambda: _watch(sources, said, jobs, as_json), as_json=as_json)
        return
    results = session.run_async(lambda: _ingest(sources, said, jobs), as_json=as_json)
    if as_json:
        output.print_json(_summary(results))
    else:
        _print_table(results)
    if any(result.error for result in results):
        raise typer.Exit(output.ExitCode.FAILED)


@dataclass(frozen=True, slots=True)
class _Said:
    """What the caller says about every document of this run."""

    collection: str | None
    title: str | None
    document_id: str | None
    metadata: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class _Result:
    """How one source ended: a job, or an error that came before there was a job."""

    source: str
    seconds: float
    job: "Job | None" = None
    failure: Mapping[str, Any] | None = None

    @property
    def error(self) -> Mapping[str, Any] | None:
        """`code`, `detail` and `retryable`, None when all is well."""
        if self.job is not None and self.job.error is not None:
            error: dict[str, Any] = output.jsonable(self.job.error)
            return error
        return self.failure

    @property
    def outcome(self) -> str:
        if self.job is None:
            return "failed"
        return self.job.outcome or self.job.status


def _check_arguments(sources: Sequence[str], said: _Said, *, watch: bool) -> None:
    single = len(sources) == 1 and not Path(sources[0]).is_dir()
    if not single and (said.title is not None or said.document_id is not None):
        raise InvalidInput("--title and --document-id go with a single document, not with several")
    if watch and not all(Path(source).exists() for source in sources):
        raise InvalidInput("--watch takes existing files and folders")
    from ragcore.steps.identity import checked_collection, checked_document_id

    if said.collection is not None:
        checked_collection(said.collection)
    if said.document_id is not None:
        checked_document_id(said.document_id)


def _are_buckets(
    sources: Sequence[str], said: _Said, bucket_options: Mapping[str, Any], *, watch: bool
) -> bool:
    """Say whether the sources are buckets; what goes with those only is refused without them."""
    found = [source[:5].lower() == "s3://" for source in sources]
    if not any(found):
        if any(value not in (False, (), 0.2) for value in bucket_options.values()):
            raise InvalidInput(
                "--include, --exclude, --delete-missing, --max-delete-share and --dry-run go with "
                "s3://bucket/prefix"
            )
        return False
    if not all(found) or watch or said.title is not None or said.document_id is not None:
        raise InvalidInput(
            "s3://bucket/prefix goes with other buckets only, and without --watch (`ragcore sync "
            "--every`), --title and --document-id"
        )
    return True


# --- once ----------------------------------------------------------------------------------


async def _ingest(sources: Sequence[str], said: _Said, jobs: int | None) -> list[_Result]:
    expanded = _expand(sources)
    async with place.library().intake() as intake:
        with ingest_progress(len(expanded)) as progress:
            return await _ingest_all(intake, expanded, said, jobs, progress)


def _expand(sources: Iterable[str]) -> list[str]:
    """Return the sources with each folder replaced by the files in it."""
    expanded: list[str] = []
    for source in sources:
        expanded += (
            [str(file) for file in watching.files_under(Path(source))]
            if Path(source).is_dir()
            else [source]
        )
    return expanded


async def _ingest_all(
    intake: "Intake",
    sources: Sequence[str],
    said: _Said,
    jobs: int | None,
    progress: IngestProgress,
) -> list[_Result]:
    """Ingest every source, a few at a time, and return the results in the order given."""
    import asyncio

    waiting = iter(enumerate(sources))
    results: dict[int, list[_Result]] = {}

    async def work() -> None:
        for number, source in waiting:
            results[number] = await _ingest_one(intake, source, said, progress)

    async with asyncio.TaskGroup() as group:
        for _ in range(jobs or intake.at_once):
            group.create_task(work())
    return [result for number in sorted(results) for result in results[number]]


async def _ingest_one(
    intake: "Intake", source: str, said: _Said, progress: IngestProgress
) -> list[_Result]:
    """Ingest one source; whatever goes wrong with it is its result and harms no other."""
    started = time.perf_counter()
    try:
        done = await _submit(intake, source, said, lambda job: progress.reached(source, job))
    except Exception as error:  # noqa: BLE001  # edge of one document: logged, told in the table
        if not isinstance(error, RagError):
            output.tell_unexpected(source, error)
        results = [
            _Result(source, time.perf_counter() - started, failure=output.describe_error(error))
        ]
    else:
        seconds = time.perf_counter() - started
        results = [_Result(source, seconds, job=job) for job in done]
    progress.finished(source, "; ".join(map(_line, results)))
    return results


async def _submit(
    intake: "Intake", source: str, said: _Said, on_progress: "Callable[[Job], None]"
) -> "Sequence[Job]":
    common: dict[str, Any] = {
        "collection": said.collection,
        "document_id": said.document_id,
        "title": said.title,
        "metadata": said.metadata,
        "on_progress": on_progress,
    }
    if source == _STDIN:
        import asyncio

        text = await asyncio.to_thread(sys.stdin.read)
        return [await intake.ingest_text(text, **common)]
    return await intake.ingest(source, **common)


# --- again and again -----------------------------------------------------------------------


async def _watch(sources: Sequence[str], said: _Said, jobs: int | None, as_json: bool) -> None:
    """Ingest once, then whatever changes, until interrupted. Deleted files stay ingested."""
    paths = [Path(source) for source in sources]
    async with place.library().intake() as intake:
        known = watching.snapshot(paths)
        await _ingest_and_tell(intake, [str(path) for path in known], said, jobs, as_json)
        sys.stderr.write("Watching for changes; Ctrl-C stops.\n")
        changes = watching.changed_files(paths, known=known)
        async with aclosing(changes):
            async for changed in changes:
                await _ingest_and_tell(intake, [str(path) for path in changed], said, jobs, as_json)


async def _ingest_and_tell(
    intake: "Intake", sources: Sequence[str], said: _Said, jobs: int | None, as_json: bool
) -> None:
    with ingest_progress(len(sources)) as progress:
        results = await _ingest_all(intake, sources, said, jobs, progress)
    for result in results:
        if as_json:
            output.print_json_line(_as_object(result))
        else:
            typer.echo(f"{result.source}: {_line(result)}")


# --- results -------------------------------------------------------------------------------


def _line(result: _Result) -> str:
    if result.error is not None:
        return f"failed: {result.error['code']}: {result.error['detail']}"
    chunks = result.job.chunks if result.job else None
    return f"{result.outcome}, {output.shown(chunks)} chunks, {result.seconds:.1f} s"


def _as_object(result: _Result) -> dict[str, Any]:
    job: dict[str, Any] = (
        output.jsonable(result.job)
        if result.job is not None
        else {"status": "failed", "outcome": None, "error": result.failure}
    )
    return {"source": result.source, "seconds": round(result.seconds, 3)} | job


def _summary(results: Sequence[_Result]) -> dict[str, Any]:
    return {
        "jobs": [_as_object(result) for result in results],
        "failed": sum(result.error is not None for result in results),
    }


def _print_table(results: Sequence[_Result]) -> None:
    columns = {
        "document": "left",
        "outcome": "left",
        "chunks": "right",
        "pages": "right",
        "language": "left",
        "seconds": "right",
        "error": "left",
    }
    output.print_table(None, columns, [_row(result) for result in results])
    for result in results:
        if result.error is not None:
            output.stdout_console().print(f"{result.source}: {result.error['detail']}")
        for warning in result.job.warnings if result.job is not None else ():
            output.warn(f"{result.source}: {warning}")


def _row(result: _Result) -> list[str]:
    job = result.job
    return [
        result.source,
        result.outcome,
        output.shown(job.chunks if job else None),
        output.shown(job.pages if job else None),
        output.shown(job.language if job else None),
        f"{result.seconds:.1f}",
        result.error["code"] if result.error else "",
    ]
