"""`ragcore refresh`: documents that came from URLs, fetched again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, place, session
from ragcore.errors import InvalidInput, NotFound, Rejected, SourceUnavailable

if TYPE_CHECKING:
    from ragcore.cli.library import Refreshing


def refresh(
    documents: Annotated[
        list[str] | None, typer.Argument(metavar="[DOCUMENT_ID|URL]…", help="What to fetch again.")
    ] = None,
    collection: options.Collection = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every document of the collection that came from a URL.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Fetch documents again from the URLs they came from.

    Each server is asked whether its page has changed since; one that has not is not sent, read or
    embedded again.

    \b
    Examples:
      ragcore refresh https://example.org/timetable.html
      ragcore refresh --all --collection web

    Exit code 1 when any document failed.
    """
    with output.errors_told(as_json=as_json):
        if bool(documents) == everything:
            raise InvalidInput("name documents, or --all, and not both")
    results = session.run_async(
        lambda: _refresh(documents or [], collection, everything), as_json=as_json
    )
    if as_json:
        output.print_json({"jobs": results})
    else:
        columns = dict.fromkeys(("document", "outcome", "detail"), "left")
        output.print_table(None, columns, [_row(result) for result in results])
    if any(result["error"] for result in results):
        raise typer.Exit(output.ExitCode.FAILED)


async def _refresh(
    documents: Sequence[str], collection: str | None, everything: bool
) -> list[dict[str, Any]]:
    from ragcore.flows.fetch import is_url

    async with place.library().refreshing(collection=collection) as refreshing:
        if everything:
            return [await _refreshed(refreshing, each) async for each in refreshing.all_ids()]
        ids = [await refreshing.id_of(each) if is_url(each) else each for each in documents]
        return [await _refreshed(refreshing, each) for each in ids]


async def _refreshed(refreshing: "Refreshing", document_id: str) -> dict[str, Any]:
    """Fetch one again; what goes wrong with it is its result and stops no other."""
    try:
        job = await refreshing.refresh(document_id)
    except (NotFound, Rejected, SourceUnavailable) as error:
        failed = {"status": "failed", "outcome": None, "error": output.describe_error(error)}
        return {"document_id": document_id} | failed
    result: dict[str, Any] = output.jsonable(job)
    return result


def _row(result: dict[str, Any]) -> list[str]:
    error = result["error"]
    outcome = result["outcome"] or result["status"]
    detail = "" if error is None else f"{error['code']}: {error['detail']}"
    return [result["document_id"], outcome, detail]
