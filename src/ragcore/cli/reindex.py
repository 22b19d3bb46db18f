"""`ragcore reindex`: a collection moved to another embedding model or chunker, and back."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, place, session

if TYPE_CHECKING:
    from ragcore.model import Job

app = typer.Typer(
    help="Move collections to another embedding model or chunker.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="Which collection.")]
AcceptLoss = Annotated[
    bool,
    typer.Option(
        "--accept-loss",
        help="Also without documents that are not there; they stay stored and are not found.",
    ),
]


@app.command("start")
def start(
    name: Name,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Provider and name: ollama:bge-m3. [default: as it is]"),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=16, max=8192, help="The longest chunk. [default: as it is]")
    ] = None,
    questions: Annotated[
        list[str] | None,
        typer.Option(
            "--question",
            "-q",
            help="Compare old and new answers to it. Repeatable. [default: drawn from the texts]",
        ),
    ] = None,
    manual: Annotated[
        bool, typer.Option("--manual", help="Wait with the switch for `ragcore reindex switch`.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Cut and embed a collection once more, compare, and switch to that.

    The collection answers as before, and takes documents, until all is there; documents are not
    read again. Interrupted it stops, and is started again from the beginning.

    \b
    Examples:
      ragcore reindex start default --model ollama:nomic-embed-text-v2-moe
      ragcore reindex start reports --max-tokens 256 --manual -q "What grew?"

    Exit code 1 when it failed or documents could not be taken over, 4 when there is no such
    collection.
    """

    async def run() -> "Job":
        with _progress(name) as progress:
            return await place.library().reindex(
                name,
                embedding_model=model,
                max_tokens=max_tokens,
                questions=questions or (),
                switch="manual" if manual else "auto",
                on_progress=progress,
            )

    _tell_end(name, session.run_async(run, as_json=as_json), as_json=as_json)


@app.command("show")
def show(name: Name, as_json: options.AsJson = False) -> None:
    """Show what a collection answers from, what is being filled, and what can be gone back to.

    \b
    Examples:
      ragcore reindex show default
      ragcore reindex show default --json | jq '.generations[].state'
    """
    state = session.run_async(lambda: place.library().reindex_state(name), as_json=as_json)
    if as_json:
        output.print_json(state)
        return
    collection = state["collection"]
    columns = {
        "": "left",
        "model": "left",
        "chunker": "left",
        "documents": "right",
        "missing": "right",
    }
    answering = [
        "answers",
        collection["embedding"]["model"],
        collection["chunker"],
        str(collection["documents"]),
        "",
    ]
    others = [
        [
            each["state"],
            each["embedding_model"],
            each["chunker"],
            str(each["documents"]),
            str(each["missing"]),
        ]
        for each in state["generations"]
    ]
    output.print_table(None, columns, [answering, *others])


@app.command("switch")
def switch(name: Name, accept_loss: AcceptLoss = False, as_json: options.AsJson = False) -> None:
    """Have a collection answer from what `ragcore reindex start --manual` has filled.

    \b
    Examples:
      ragcore reindex switch reports
      ragcore reindex switch reports --accept-loss

    Exit code 4 when nothing is filled.
    """

    async def run() -> "Job":
        with _progress(name) as progress:
            return await place.library().switch_reindex(
                name, accept_loss=accept_loss, on_progress=progress
            )

    _tell_end(name, session.run_async(run, as_json=as_json), as_json=as_json)


@app.command("rollback")
def rollback(name: Name, accept_loss: AcceptLoss = False, as_json: options.AsJson = False) -> None:
    """Have what answered before the last switch answer again; once more undoes that.

    \b
    Example:
      ragcore reindex rollback reports

    Exit code 4 when it is no longer kept, 1 when it lacks documents.
    """
    found = session.run_async(
        lambda: place.library().roll_back_reindex(name, accept_loss=accept_loss), as_json=as_json
    )
    _tell_collection(found, as_json=as_json)


@app.command("discard")
def discard(name: Name, as_json: options.AsJson = False) -> None:
    """Stop a reindex that runs, or drop what it has filled; what answers stays.

    \b
    Example:
      ragcore reindex discard reports

    Exit code 4 when there is none.
    """
    found = session.run_async(lambda: place.library().discard_reindex(name), as_json=as_json)
    _tell_collection(found, as_json=as_json)


def _tell_collection(found: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.print_json(found)
    else:
        typer.echo(f"Collection {found['name']} answers from {found['embedding']['model']}.")


def _tell_end(name: str, job: "Job", *, as_json: bool) -> None:
    problems = job.result.get("problems", ())
    if as_json:
        output.print_json(job)
    else:
        _tell_comparison(job.result.get("comparison"))
        for problem in problems:
            typer.echo(f"{problem['document_id']}: {problem['code']}: {problem['detail']}")
        for warning in job.result.get("warnings", ()):
            output.warn(f"{warning['documents']} documents: {warning['detail']}")
        typer.echo(_end(name, job))
    if job.status != "succeeded" or problems:
        raise typer.Exit(output.ExitCode.FAILED)


def _end(name: str, job: "Job") -> str:
    if job.status != "succeeded":
        why = f": {job.error.code}: {job.error.detail}" if job.error else ""
        return f"{name}: {job.status}{why}; it answers as before"
    model, done = job.result.get("embedding_model"), job.counts.get("done", 0)
    if job.result.get("state") == "switched":
        return (
            f"{name}: answers from {model}, {done} documents; `ragcore reindex rollback` goes back"
        )
    lacking = "; some documents lack (--accept-loss)" if job.result.get("problems") else ""
    return f"{name}: {done} documents wait for `ragcore reindex switch {name}`{lacking}"


def _tell_comparison(comparison: Mapping[str, Any] | None) -> None:
    """Print how far answers change, and the questions whose passages change most."""
    if comparison is None:
        return
    if "detail" in comparison:
        typer.echo(f"old and new answers are not compared: {comparison['detail']}")
        return
    rows = [
        ["questions", str(comparison["questions"]), ""],
        ["same first passage", "", f"{comparison['same_first']:.0%}"],
        ["found on both sides", "", f"{comparison['overlap']:.0%}"],
    ]
    if comparison["found_before"] is not None:
        rows.append(
            [
                "their own source found",
                f"{comparison['found_before']:.0%}",
                f"{comparison['found_after']:.0%}",
            ]
        )
    rows.append(
        [
            "median search, ms",
            str(comparison["milliseconds_before"]),
            str(comparison["milliseconds_after"]),
        ]
    )
    output.print_table(None, {"": "left", "before": "right", "after": "right"}, rows)


@contextmanager
def _progress(name: str) -> "Iterator[Callable[[Job], None]]":
    """Show how far it is, on stderr, where somebody looks."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=output.stderr_console(),
        transient=True,
        disable=not output.stderr_console().is_terminal,
    ) as bars:
        bar = bars.add_task(name, total=1.0)

        def show(job: "Job") -> None:
            bars.update(bar, completed=job.progress)

        yield show
