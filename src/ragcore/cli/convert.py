"""`ragcore convert`: what is understood of a file; nothing is stored and no server is started."""

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ragcore.cli import options, output, session

if TYPE_CHECKING:
    from ragcore.rag import Conversion

_ASK = "-"


class Target(StrEnum):
    """What a file can be turned into."""

    markdown = "markdown"
    json = "json"
    text = "text"
    chunks = "chunks"


def convert(
    path: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="File to read.")
    ],
    to: Annotated[
        Target,
        typer.Option(
            "--to", help="Markdown, the DoclingDocument as JSON, plain text, or chunks as JSON."
        ),
    ] = Target.markdown,
    password: Annotated[
        str | None,
        typer.Option(help="Of an encrypted file; - asks for it, unseen by the process list."),
    ] = None,
    target_file: Annotated[
        Path | None,
        typer.Option("--output", "-o", dir_okay=False, help="Write here instead of to stdout."),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what is understood of a file, without storing it.

    With --json the whole result is one document: chunks, what was found in the file, the reading
    report and the Markdown.

    \b
    Examples:
      ragcore convert report.pdf
      ragcore convert report.pdf --to chunks | jq '.[0].places'
      ragcore convert scan.png --to text --output scan.txt
      ragcore convert secret.pdf --password -

    Exit code 1 when the file can't be read; the message says why.
    """
    if password == _ASK:
        password = typer.prompt("Password", hide_input=True, err=True)
    conversion = session.run_async(lambda: _convert(path, password), as_json=as_json)
    for warning in conversion.document.report.warnings:
        output.warn(warning)
    text = output.json_text(_as_object(conversion)) if as_json else _WRITERS[to](conversion)
    if target_file is not None:
        target_file.write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")


async def _convert(path: Path, password: str | None) -> "Conversion":
    settings = session.load_settings()
    with output.stderr_console().status(f"Reading {path.name} …"):
        from ragcore.rag import convert

        return await convert(settings, path, password=password)


def _as_object(conversion: "Conversion") -> dict[str, Any]:
    """Return all that was found; the paths in the result point at files that are gone."""
    found: dict[str, Any] = output.jsonable(conversion.document)
    del found["markdown_path"], found["docling_path"]
    return found | {"markdown": conversion.markdown}


def _text(conversion: "Conversion") -> str:
    """Return the chunks' own text; a table is Markdown here, too."""
    return "\n\n".join(chunk.text for chunk in conversion.document.chunks)


_WRITERS: "dict[Target, Callable[[Conversion], str]]" = {
    Target.markdown: lambda conversion: conversion.markdown.rstrip("\n"),
    Target.json: lambda conversion: conversion.docling_json,
    Target.text: _text,
    Target.chunks: lambda conversion: output.json_text(conversion.document.chunks),
}
