"""`ragcore jobs`: what waits, what runs, what failed, and another try for it."""

from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from ragcore.cli import options, output, place, session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ragcore.model import Job

app = typer.Typer(
    help="List, follow, cancel and retry jobs.", no_args_is_help=True, rich_markup_mode=None
)

JobId = Annotated[UUID, typer.Argument(metavar="JOB_ID", help="As `jobs list` shows it.")]
Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@app.command("list")
def list_jobs(
    status: Annotated[
        Status | None, typer.Option("--status", "-s", help="Only jobs in this state.")
    ] = None,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Only of this one. [default: of all]")
    ] = None,
    document_id: Annotated[
        str | None,
        typer.Option("--document", "-d", metavar="DOCUMENT_ID", help="Only of this one."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most jobs shown.")] = 50,
    after: Annotated[
        UUID | None, typer.Option(metavar="JOB_ID", help="Go on after this job.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List jobs, the newest first.

    \b
    Examples:
      ragcore jobs list
      ragcore jobs list --status failed --collection reports
      ragcore jobs list --status failed --json | jq -r '.jobs[].error.code' | sort | uniq -c
    """

    async def fetch() -> "Sequence[Job]":
        return await place.library().jobs(
            status=status,
            collection=collection,
            document_id=document_id,
            limit=limit,
            after=after,
        )

    jobs = list(session.run_async(fetch, as_json=as_json))
    if as_json:
        next_cursor = jobs[-1].job_id if len(jobs) == limit else None
        output.print_json({"jobs": jobs, "next_cursor": next_cursor})
        return
    headings = ("job_id", "status", "result", "tries", "collection", "document_id", "submitted")
    output.print_table(None, dict.fromkeys(headings, "left"), [_row(job) for job in jobs])


@app.command("show")
def show_job(job_id: JobId, as_json: options.AsJson = False) -> None:
    """Show one job: how far it is, or how it ended and where its time went.

    \b
    Example:
      ragcore jobs show 5f2b6c1e-3f0f-4f43-9a57-2f1c2ad0c9b1

    Exit code 4 when there is no such job.
    """

    async def fetch() -> "Job":
        return await place.library().job(job_id)

    _print(session.run_async(fetch, as_json=as_json), as_json=as_json)


@app.command("watch")
def watch_job(job_id: JobId, as_json: options.AsJson = False) -> None:
    """Follow a job until it ends, and show how.

    \b
    Example:
      ragcore jobs watch 5f2b6c1e-3f0f-4f43-9a57-2f1c2ad0c9b1

    Exit code 1 when it fails or is cancelled, 4 when there is no such job.
    """

    async def follow() -> "Job":
        with output.stderr_console().status("Waiting …") as shown:
            async for job in place.library().follow(job_id):
                shown.update(_progress(job))
        return job

    job = session.run_async(follow, as_json=as_json)
    _print(job, as_json=as_json)
    if job.status != "succeeded":
        raise typer.Exit(output.ExitCode.FAILED)


@app.command("cancel")
def cancel_jobs(
    job_ids: Annotated[list[UUID], typer.Argument(metavar="JOB_ID…")],
    as_json: options.AsJson = False,
) -> None:
    """Cancel jobs; a conversion that runs is stopped. A finished job stays as it is.

    \b
    Example:
      ragcore jobs cancel 5f2b6c1e-3f0f-4f43-9a57-2f1c2ad0c9b1

    Exit code 4 when one of them does not exist; those before it are cancelled all the same.
    """

    async def cancel() -> "Sequence[Job]":
        return await place.library().cancel(job_ids)

    _print_all(session.run_async(cancel, as_json=as_json), as_json=as_json)


@app.command("retry")
def retry_jobs(
    job_ids: Annotated[list[UUID] | None, typer.Argument(metavar="[JOB_ID…]")] = None,
    failed: Annotated[
        bool, typer.Option("--failed", help="All that have failed, as the options narrow it.")
    ] = False,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="With --failed: only of this one.")
    ] = None,
    code: Annotated[
        str | None, typer.Option(help="With --failed: only with this code, `model_unavailable` …")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Run failed or cancelled jobs again. A worker takes them within seconds.

    \b
    Examples:
      ragcore jobs retry 5f2b6c1e-3f0f-4f43-9a57-2f1c2ad0c9b1
      ragcore jobs retry --failed --code model_unavailable

    Exit code 1 when one can't be run again: it has not failed, or its document is gone.
    """
    if bool(job_ids) == failed:
        raise typer.BadParameter("name the jobs, or all that failed by --failed")
    if not failed and (collection or code):
        raise typer.BadParameter("--collection and --code narrow --failed")

    async def retry() -> "Sequence[Job]":
        if failed:
            return await place.library().retry_failed(collection=collection, code=code)
        return await place.library().retry(job_ids or [])

    _print_all(session.run_async(retry, as_json=as_json), as_json=as_json)


def _print(job: "Job", *, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
    else:
        output.print_fields(output.jsonable(job))


def _print_all(jobs: "Sequence[Job]", *, as_json: bool) -> None:
    if as_json:
        output.print_json({"jobs": list(jobs)})
        return
    for job in jobs:
        typer.echo(f"{job.job_id} {job.status}")
    if not jobs:
        typer.echo("no job matches", err=True)


def _progress(job: "Job") -> str:
    if job.stage is None:
        return f"{job.document_id}: {job.status}"
    return f"{job.document_id}: {job.stage} {job.progress:.0%}"


def _row(job: "Job") -> list[str]:
    submitted = job.created_at
    result = job.outcome or (job.error and job.error.code)
    if result is None and job.status == "running" and job.stage is not None:
        result = f"{job.stage} {job.progress:.0%}"
    return [
        str(job.job_id),
        job.status,
        output.shown(result),
        str(job.attempts),
        job.collection,
        job.document_id,
        output.shown(submitted and submitted.strftime("%Y-%m-%d %H:%M:%S")),
    ]
