"""`ragcore collections`: named sets of documents that share one embedding model."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, place, session
from ragcore.cli.documents import receipt_line
from ragcore.errors import CollectionNotFound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ragcore.model import DeletionReceipt

app = typer.Typer(
    help="List, create, show and delete collections.", no_args_is_help=True, rich_markup_mode=None
)

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Lower-case letters, digits, - and _; at most 48.")
]


@app.command("list")
def list_collections(as_json: options.AsJson = False) -> None:
    """List the collections with their embedding models and sizes.

    \b
    Examples:
      ragcore collections list
      ragcore collections list --json | jq -r '.collections[].name'
    """
    found = session.run_async(_fetch_all, as_json=as_json)
    if as_json:
        output.print_json({"collections": found})
        return
    columns = {"collection": "left", "documents": "right", "chunks": "right", "model": "left"}
    rows = [
        [each["name"], str(each["documents"]), str(each["chunks"]), each["embedding"]["model"]]
        for each in found
    ]
    output.print_table(None, columns, rows)


@app.command("create")
def create_collection(
    name: Name,
    language: Annotated[
        str | None,
        typer.Option(help="ISO 639-1 code its documents are in. [default: detected]"),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse text in a language the embedding model can't serve."),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Create a collection with the configured embedding model; do nothing when it is there.

    Ingesting into a collection creates it, too; this is for setting its options first.

    \b
    Examples:
      ragcore collections create research
      ragcore collections create ferry --language ru --strict
    """

    async def create() -> "Mapping[str, Any]":
        return await place.library().create_collection(name, language=language, strict=strict)

    collection = session.run_async(create, as_json=as_json)
    if as_json:
        output.print_json(collection)
    else:
        typer.echo(f"Collection {collection['name']} uses {collection['embedding']['model']}.")


@app.command("show")
def show_collection(name: Name, as_json: options.AsJson = False) -> None:
    """Show one collection: its embedding model, chunker and size.

    \b
    Examples:
      ragcore collections show default
      ragcore collections show default --json | jq .embedding.model

    Exit code 4 when there is no such collection.
    """

    async def fetch() -> "Mapping[str, Any]":
        for collection in await place.library().collections():
            if collection["name"] == name:
                return collection
        raise CollectionNotFound(
            f"there is no collection {name!r}; `ragcore collections list` shows what is there"
        )

    shown = session.run_async(fetch, as_json=as_json)
    if as_json:
        output.print_json(shown)
    else:
        output.print_fields(shown)


@app.command("delete")
def delete_collection(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete a collection with everything in it, and print the receipt.

    \b
    Examples:
      ragcore collections delete research
      ragcore collections delete research --yes --json

    Exit code 4 when there is no such collection.
    """
    if not yes:
        typer.confirm(f"Delete collection {name!r} and all in it?", abort=True, err=True)

    async def delete() -> "DeletionReceipt":
        return await place.library().delete_collection(name)

    receipt = session.run_async(delete, as_json=as_json)
    if as_json:
        output.print_json(receipt)
    else:
        typer.echo(receipt_line(receipt))


async def _fetch_all() -> "Sequence[Mapping[str, Any]]":
    return await place.library().collections()
