"""`ragcore docs`: what is stored, how well it was read, and how to forget it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, place, session
from ragcore.errors import DocumentNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ragcore.model import DeletionReceipt, Document, Passage, ReadingReport

app = typer.Typer(
    help="List, show and delete documents.", no_args_is_help=True, rich_markup_mode=None
)

DocumentId = Annotated[str, typer.Argument(metavar="DOCUMENT_ID", help="As `docs list` shows it.")]


@app.command("list")
def list_documents(
    collection: options.Collection = None,
    filters: options.Filters = None,
    doubtful: Annotated[
        bool,
        typer.Option("--doubtful", help="Only those that were badly read; `docs show` says why."),
    ] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most documents shown.")] = 50,
    after: Annotated[
        str | None, typer.Option(help="Go on after this document id.", metavar="DOCUMENT_ID")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the documents of a collection, in order of their ids.

    \b
    Examples:
      ragcore docs list
      ragcore docs list --filter language=ru --limit 10
      ragcore docs list --doubtful
      ragcore docs list --json | jq -r '.documents[].document_id'
    """

    async def fetch() -> "Sequence[Document]":
        return await place.library().documents(
            collection=collection,
            filters=options.read_filters(filters),
            doubtful=doubtful,
            limit=limit,
            after=after,
        )

    documents = list(session.run_async(fetch, as_json=as_json))
    if as_json:
        next_cursor = documents[-1].document_id if len(documents) == limit else None
        output.print_json({"documents": documents, "next_cursor": next_cursor})
        return
    columns = {
        "document_id": "left",
        "title": "left",
        "language": "left",
        "pages": "right",
        "chunks": "right",
        "updated": "left",
    }
    output.print_table(None, columns, [_row(document) for document in documents])


@app.command("show")
def show_document(
    document_id: DocumentId,
    collection: options.Collection = None,
    chunks: Annotated[bool, typer.Option("--chunks", help="Print its chunks, too.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show one document: where it came from, what was found in it, and how well it was read.

    \b
    Examples:
      ragcore docs show report.pdf~1f0c4b
      ragcore docs show report.pdf~1f0c4b --chunks

    Exit code 4 when there is no such document.
    """

    async def fetch() -> "tuple[Document, ReadingReport | None, Sequence[Passage]]":
        return await place.library().document(document_id, collection=collection, chunks=chunks)

    document, report, found = session.run_async(fetch, as_json=as_json)
    shown: dict[str, Any] = output.jsonable(document) | {"reading_report": output.jsonable(report)}
    if as_json:
        output.print_json(shown | ({"chunk_list": list(found)} if chunks else {}))
        return
    output.print_fields(shown)
    console = output.stdout_console()
    for chunk in found:
        page = "" if chunk.page is None else f" · page {chunk.page}"
        headings = "".join(f" › {heading}" for heading in chunk.headings)
        console.print(f"\n#{chunk.ordinal}{page}{headings}", style="bold")
        console.print(chunk.text, soft_wrap=not console.is_terminal)


@app.command("delete")
def delete_documents(
    document_ids: Annotated[list[str], typer.Argument(metavar="DOCUMENT_ID…")],
    collection: options.Collection = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete documents with their chunks, vectors and stored files, and print the receipt.

    \b
    Examples:
      ragcore docs delete report.pdf~1f0c4b
      ragcore docs delete report.pdf~1f0c4b notes.md~77aa01 --yes

    Exit code 4 when one of them does not exist; the others are deleted all the same.
    """
    if not yes:
        typer.confirm(f"Delete {len(document_ids)} document(s) for good?", abort=True, err=True)

    async def delete() -> "DeletionReceipt":
        return await place.library().delete_documents(document_ids, collection=collection)

    receipt = session.run_async(delete, as_json=as_json)
    if as_json:
        output.print_json(receipt)
    else:
        typer.echo(receipt_line(receipt))
    if missing := sorted(set(document_ids) - set(receipt.document_ids)):
        error = DocumentNotFound(
            f"no document {', '.join(map(repr, missing))} in collection {receipt.collection!r}; "
            "`ragcore docs list` shows what is there"
        )
        output.warn(f"{error.code}: {error}")
        raise typer.Exit(output.exit_code_of(error))


def receipt_line(receipt: "DeletionReceipt") -> str:
    """Say what a deletion removed."""
    return (
        f"Deleted {len(receipt.document_ids)} documents, {receipt.chunks} chunks, "
        f"{receipt.versions} versions, {receipt.blobs} files."
    )


def _row(document: "Document") -> list[str]:
    updated = document.updated_at
    return [
        document.document_id,
        output.shown(document.title),
        output.shown(document.language),
        output.shown(document.pages),
        str(document.chunks),
        output.shown(updated and updated.strftime("%Y-%m-%d %H:%M")),
    ]
