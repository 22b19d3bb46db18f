"""The command tree of `ragcore`. Commands import what they need when they run, so help is quick."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ragcore import __version__
from ragcore.cli import (
    collections,
    documents,
    jobs,
    keys,
    models,
    options,
    output,
    place,
    reindex,
    sync,
)
from ragcore.cli.backup import backup, restore
from ragcore.cli.convert import convert
from ragcore.cli.doctor import doctor
from ragcore.cli.ingest import ingest
from ragcore.cli.reconcile import reconcile
from ragcore.cli.refresh import refresh
from ragcore.cli.search import ask, search
from ragcore.cli.servers import down, up
from ragcore.errors import RagError

# Plain help, no rich panels: rich alone takes longer to import than all the rest together.
app = typer.Typer(
    name="ragcore",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(ingest)
app.command()(refresh)
app.command("sync")(sync.sync)
app.command()(search)
app.command()(ask)
app.add_typer(documents.app, name="docs")
app.add_typer(collections.app, name="collections")
app.add_typer(reindex.app, name="reindex")
app.add_typer(jobs.app, name="jobs")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.command("audit")(keys.list_audit)
app.command()(convert)
app.command()(up)
app.command()(down)
app.command()(backup)
app.command()(restore)
app.command()(reconcile)
app.command()(doctor)


def run() -> None:
    """Run the command line of this process and exit with its code."""
    output.speak_any_language()
    try:
        app()
    except RagError as error:
        output.tell_error(error, as_json="--json" in sys.argv)
        sys.exit(output.exit_code_of(error))


@app.callback()
def ragcore(
    context: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Embedded servers, files, logs. [default: RAGCORE_DATA_DIR or a folder]"),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="TOML file of settings; RAGCORE_… variables win."
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            help="Ask the service at this address instead of opening a database, with the key in "
            "RAGCORE_API_KEY. [default: RAGCORE_URL]"
        ),
    ] = None,
) -> None:
    """Documents in, cited answers out.

    \b
    First steps:
      ragcore ingest report.pdf          read a document and make it searchable
      ragcore ask "What did it grow by?" answer from the documents, with citations
      ragcore doctor                     what is configured, what is reachable, what to do
      ragcore up --detach                the API and a worker, in the background

    Without configuration a PostgreSQL of its own is started and stopped as needed. Every command
    takes --json and explains itself with --help.

    Exit codes: 0 fine, 1 something failed, 2 wrong usage, 3 a server or a needed piece is not
    there, 4 no such document or collection, 5 nothing found or no answer.
    """
    if data_dir is not None:
        os.environ["RAGCORE_DATA_DIR"] = str(data_dir)
    if config is not None:
        os.environ["RAGCORE_CONFIG_FILE"] = str(config)
    if url is not None:
        if context.invoked_subcommand not in place.COMMANDS:
            raise typer.BadParameter(
                f"`ragcore {context.invoked_subcommand}` is about this machine; "
                f"these go to a service: {', '.join(sorted(place.COMMANDS))}",
                param_hint="--url",
            )
        os.environ[place.URL] = url


@app.command()
def version(as_json: options.AsJson = False) -> None:
    """Print the version.

    \b
    Example:
      ragcore version --json
    """
    if as_json:
        output.print_json({"version": __version__})
    else:
        typer.echo(f"ragcore {__version__}")
