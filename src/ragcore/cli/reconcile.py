"""`ragcore reconcile`: whether what is stored agrees with itself, and putting that right."""

from typing import TYPE_CHECKING, Annotated

import typer

from ragcore.cli import options, output, session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ragcore.model import Drift


def reconcile(
    repair: Annotated[
        bool, typer.Option("--repair", help="Put right what can be, and read documents again.")
    ] = False,
    buckets: Annotated[
        bool, typer.Option("--buckets", help="List the buckets that documents came from, too.")
    ] = False,
    grace_hours: Annotated[
        float,
        typer.Option(min=0, help="Files and cached vectors younger than this are left alone."),
    ] = 24,
    as_json: options.AsJson = False,
) -> None:
    """Compare stored files, documents, chunks, words, counts and cached vectors with one another.

    Nothing is changed without --repair. Both are safe while the service runs, and may be stopped
    and repeated. docs/how-to/reconcile.md tells every kind of drift and what is done about it.

    \b
    Examples:
      ragcore reconcile
      ragcore reconcile --repair
      ragcore reconcile --buckets --json | jq '.drift[] | select(.found > 0)'

    Exit code 1 when something is wrong and was not put right.
    """

    async def compare() -> "Sequence[Drift]":
        from dataclasses import replace

        async with session.opened_runtime() as runtime:
            flow = replace(runtime.reconcile, grace_seconds=grace_hours * 3600)
            return await flow(repair=repair, buckets=buckets)

    drifts = session.run_async(compare, as_json=as_json)
    is_wrong = any(drift.is_fault for drift in drifts)
    if as_json:
        output.print_json({"is_consistent": not is_wrong, "drift": drifts})
    else:
        _print(drifts)
    if is_wrong:
        raise typer.Exit(output.ExitCode.FAILED)


def _print(drifts: "Sequence[Drift]") -> None:
    found = [drift for drift in drifts if drift.found]
    if not found:
        typer.echo("Everything agrees.")
        return
    columns = {"drift": "left", "found": "right", "repaired": "right", "examples": "left"}
    rows = [
        [drift.kind, str(drift.found), str(drift.repaired), ", ".join(drift.examples)]
        for drift in found
    ]
    output.print_table(None, columns, rows)
