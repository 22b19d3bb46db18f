"""`ragcore convert`: what is understood of a file; nothing is stored and no server is started."""

import gzip
import sys
import tempfile
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ragcore.cli import options, output, session

if TYPE_CHECKING:
    from ragcore.model import ConvertedDocument


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

    With --json the whole result is one document: chunks, what was found in the file, and the
    reading report.

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

    async def read() -> str:
        with tempfile.TemporaryDirectory(prefix="ragcore-convert-") as directory:
            converted = await _convert(path, password, Path(directory))
            for warning in converted.report.warnings:
                output.warn(warning)
            return output.json_text(converted) if as_json else _WRITERS[to](converted)

    text = session.run_async(read, as_json=as_json)
    if target_file is not None:
        target_file.write_text(text + "\n", encoding="utf-8")
    else:
        sys.stdout.write(text + "\n")


async def _convert(path: Path, password: str | None, directory: Path) -> "ConvertedDocument":
    """Read one file in a conversion child, cut for the configured embedding model."""
    settings = session.load_settings()
    from ragcore.ports import ConversionRequest
    from ragcore.runtime import open_converter, open_embedder, tokenizer_name

    embedder = await open_embedder(settings)
    converter = open_converter(settings)
    try:
        with output.stderr_console().status(f"Reading {path.name} …"):
            return await converter.convert(
                ConversionRequest(
                    path=path.resolve(),
                    filename=path.name,
                    mime_type=None,
                    directory=directory,
                    max_tokens=min(settings.chunking.max_tokens, embedder.spec.max_tokens),
                    tokenizer=tokenizer_name(settings, embedder),
                    prefix=embedder.spec.document_prefix,
                    password=password,
                )
            )
    finally:
        await converter.aclose()
        await embedder.aclose()


def _markdown(converted: "ConvertedDocument") -> str:
    if converted.markdown_path is None:
        return _text(converted)
    return Path(converted.markdown_path).read_text(encoding="utf-8").rstrip("\n")


def _docling_json(converted: "ConvertedDocument") -> str:
    if converted.docling_path is None:
        return "null"
    return gzip.decompress(Path(converted.docling_path).read_bytes()).decode()


def _text(converted: "ConvertedDocument") -> str:
    """Return the chunks' own text; a table is Markdown here, too."""
    return "\n\n".join(chunk.text for chunk in converted.chunks)


def _chunks(converted: "ConvertedDocument") -> str:
    return output.json_text(converted.chunks)


_WRITERS: "dict[Target, Callable[[ConvertedDocument], str]]" = {
    Target.markdown: _markdown,
    Target.json: _docling_json,
    Target.text: _text,
    Target.chunks: _chunks,
}
