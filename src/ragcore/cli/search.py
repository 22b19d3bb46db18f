"""`ragcore search` and `ragcore ask`: passages for a question, and an answer made of them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from ragcore.cli import options, output, place, session

if TYPE_CHECKING:
    from ragcore.model import Answer, Citation, Passage, SearchResult

_EXCERPT = 400
"""Characters of a passage shown in text; JSON has all of it."""


class Mode(StrEnum):
    """Which legs look for passages."""

    hybrid = "hybrid"
    vector = "vector"
    keyword = "keyword"


Question = Annotated[str, typer.Argument(metavar="QUESTION", help="In your own words.")]
TopK = Annotated[
    int | None,
    typer.Option(
        "--top-k", "-k", min=1, max=100, help="Passages to use. [default: RAGCORE_SEARCH__TOP_K]"
    ),
]
ModeOption = Annotated[
    Mode, typer.Option("--mode", help="By meaning and by words, or by one of them.")
]
Explain = Annotated[
    bool, typer.Option("--explain", help="Show what each leg thought of each passage.")
]


def search(
    question: Question,
    collection: options.Collection = None,
    top_k: TopK = None,
    mode: ModeOption = Mode.hybrid,
    filters: options.Filters = None,
    explain: Explain = False,
    as_json: options.AsJson = False,
) -> None:
    """Find the passages that fit a question, best first.

    \b
    Examples:
      ragcore search "battery capacity"
      ragcore search "battery capacity" --top-k 3 --filter year=2026
      ragcore search "возврат билета" --filter '{"language": {"$in": ["ru", "en"]}}'
      ragcore search "battery capacity" --json | jq -r '.passages[].text'

    Exit code 5 when there is no passage.
    """

    async def find() -> "SearchResult":
        return await place.library().search(
            question,
            collection=collection,
            top_k=top_k,
            mode=mode.value,
            filters=options.read_filters(filters),
            explain=explain,
        )

    result = session.run_async(find, as_json=as_json)
    if as_json:
        output.print_json(result)
    else:
        _print_passages(result)
    _warn_of(result.warnings)
    if not result.passages:
        raise typer.Exit(output.ExitCode.NOTHING_FOUND)


def ask(
    question: Question,
    collection: options.Collection = None,
    top_k: TopK = None,
    mode: ModeOption = Mode.hybrid,
    filters: options.Filters = None,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate/--no-generate",
            help="Let the language model write, where one is configured; otherwise sentences are "
            "quoted.",
        ),
    ] = True,
    explain: Explain = False,
    as_json: options.AsJson = False,
) -> None:
    """Answer a question from the documents, with citations.

    Without a language model the answer is made of the best sentences themselves.

    \b
    Examples:
      ragcore ask "How long does the crossing take?"
      ragcore ask "При каком ветре рейс отменяют?" --collection ferry
      ragcore ask "How long does the crossing take?" --json | jq -r .answer

    Exit code 5 when the documents hold no answer.
    """

    async def answer() -> "Answer":
        return await place.library().ask(
            question,
            collection=collection,
            top_k=top_k,
            mode=mode.value,
            filters=options.read_filters(filters),
            generate=generate,
            explain=explain,
        )

    found = session.run_async(answer, as_json=as_json)
    if as_json:
        output.print_json(found)
    else:
        _print_answer(found, explain=explain)
    _warn_of(found.warnings)
    if found.no_answer_reason is not None:
        raise typer.Exit(output.ExitCode.NOTHING_FOUND)


# --- how it looks --------------------------------------------------------------------------


def _print_answer(answer: "Answer", *, explain: bool) -> None:
    console = output.stdout_console()
    console.print(answer.text, soft_wrap=not console.is_terminal)
    if answer.no_answer_reason is not None:
        console.print(f"({answer.no_answer_reason})", style="dim")
    for citation in answer.citations:
        console.print()
        console.print(f"[{citation.marker}] {_place_of(citation, citation.page)}", style="bold")
        console.print(f"    “{_one_line(citation.quote)}”", soft_wrap=not console.is_terminal)
        if not citation.supported:
            console.print("    (the passage does not bear this out)", style="yellow")
    if explain:
        console.print()
        _print_legs(answer.passages)
        console.print(_timings(answer.timings_ms), style="dim")


def _print_passages(result: "SearchResult") -> None:
    console = output.stdout_console()
    for number, passage in enumerate(result.passages, start=1):
        console.print(
            f"{number}. {_place_of(passage, passage.page)}  {passage.score:.2f}", style="bold"
        )
        console.print(f"   {_excerpt(passage.text)}", soft_wrap=not console.is_terminal)
        console.print()
    if not result.passages:
        console.print("No passage found.")
    if any(passage.explanation for passage in result.passages):
        _print_legs(result.passages)
    console.print(_timings(result.timings_ms), style="dim")


def _print_legs(passages: "tuple[Passage, ...]") -> None:
    columns = dict.fromkeys(
        ("passage", "vector rank", "cosine", "keyword rank", "bm25", "fused"), "right"
    ) | {"matched": "left"}
    rows = []
    for number, passage in enumerate(passages, start=1):
        legs = passage.explanation
        if legs is not None:
            rows.append(
                [
                    str(number),
                    output.shown(legs.vector_rank),
                    _decimal(legs.cosine),
                    output.shown(legs.keyword_rank),
                    _decimal(legs.bm25),
                    _decimal(legs.fused_score),
                    " ".join(legs.matched),
                ]
            )
    output.print_table(None, columns, rows)


def _place_of(found: "Citation | Passage", page: int | None) -> str:
    title = found.title or _name_in(found.uri) or found.document_id
    parts = [title]
    if page is not None:
        parts.append(f"page {page}")
    if headings := [heading for heading in found.headings if heading != title]:
        parts.append(" › ".join(headings))
    return " · ".join(parts)


def _name_in(uri: str | None) -> str:
    """Return the last segment of a URI as a person would write it."""
    return unquote(urlsplit(uri or "").path).rpartition("/")[2]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _excerpt(text: str) -> str:
    line = _one_line(text)
    return line if len(line) <= _EXCERPT else line[:_EXCERPT].rstrip() + " …"


def _decimal(value: float | None) -> str:
    return output.shown(None if value is None else f"{value:.3f}")


def _timings(timings_ms: Any) -> str:
    return " · ".join(f"{stage} {ms:.0f} ms" for stage, ms in timings_ms.items())


def _warn_of(warnings: tuple[str, ...]) -> None:
    for warning in warnings:
        output.warn(warning)
