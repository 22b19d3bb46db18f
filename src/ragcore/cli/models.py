"""`ragcore models`: the models that Ollama has, at every configured address."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from ragcore.cli import options, output, session
from ragcore.errors import NotConfigured

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ragcore.adapters.models.ollama_models import InstalledModel, PullProgress
    from ragcore.errors import ModelUnavailable
    from ragcore.settings import Settings

app = typer.Typer(
    help="List, pull and delete the models of Ollama.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_models(as_json: options.AsJson = False) -> None:
    """List the models that Ollama has, and where.

    \b
    Examples:
      ragcore models list
      ragcore models list --json | jq -r '.models[].name'

    Exit code 3 when no configured address answers.
    """

    async def fetch() -> "tuple[Sequence[InstalledModel], Sequence[ModelUnavailable]]":
        from ragcore.adapters.models.ollama_models import OllamaModels
        from ragcore.runtime import open_ollama

        async with open_ollama(session.load_settings()) as servers:
            return await OllamaModels(servers).installed()

    models, failures = session.run_async(fetch, as_json=as_json)
    for failure in failures:
        output.warn(str(failure))
    if as_json:
        output.print_json({"models": models})
        return
    columns = {
        "model": "left",
        "size": "right",
        "parameters": "right",
        "quantization": "left",
        "in memory": "left",
        "at": "left",
    }
    output.print_table(None, columns, [_row(model) for model in models])


@app.command("pull")
def pull_models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help="Models, such as llama3.2. [default: those of the settings]"
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Pull models to every configured address of Ollama, or bring them up to date.

    Without a name, those that the settings name, such as RAGCORE_GENERATION__MODEL.
    A pull that broke off goes on where it stopped.

    \b
    Examples:
      ragcore models pull
      ragcore models pull llama3.2 nomic-embed-text-v2-moe

    Exit code 3 when an address is away or could not get a model, 4 when there is no such model.
    """

    async def pull() -> Sequence[str]:
        from ragcore.adapters.models.ollama_models import OllamaModels
        from ragcore.runtime import open_ollama

        settings = session.load_settings()
        wanted = list(dict.fromkeys(names or configured_models(settings)))
        async with open_ollama(settings) as servers:
            models = OllamaModels(servers)
            with _pull_progress() as progress:
                for model in wanted:
                    await models.pull(model, on_progress=progress.reached)
        return wanted

    pulled = session.run_async(pull, as_json=as_json)
    if as_json:
        output.print_json({"pulled": pulled})
    else:
        typer.echo(f"Pulled {', '.join(pulled)}.")


@app.command("delete")
def delete_models(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models to delete.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Delete models at every configured address of Ollama.

    \b
    Examples:
      ragcore models delete llama3.2
      ragcore models delete llama3.2 qwen2.5:7b --yes --json

    Exit code 4 when no address has one of them.
    """
    if not yes:
        typer.confirm(f"Delete {', '.join(names)} from Ollama?", abort=True, err=True)

    async def delete() -> dict[str, Sequence[str]]:
        from ragcore.adapters.models.ollama_models import OllamaModels
        from ragcore.runtime import open_ollama

        async with open_ollama(session.load_settings()) as servers:
            models = OllamaModels(servers)
            return {name: await models.delete(name) for name in dict.fromkeys(names)}

    deleted = session.run_async(delete, as_json=as_json)
    if as_json:
        output.print_json({"deleted": deleted})
        return
    for name, addresses in deleted.items():
        typer.echo(f"Deleted {name} at {', '.join(addresses)}.")


def configured_models(settings: "Settings") -> Sequence[str]:
    """Return the models of Ollama that the settings name. Raises NotConfigured without any."""
    from ragcore.adapters.models.ollama import DEFAULT_MODEL

    wanted: list[str] = []
    if settings.embedding.provider == "ollama":
        wanted.append(settings.embedding.model or DEFAULT_MODEL)
    if settings.generation.provider == "ollama":
        generation = settings.generation
        wanted += [generation.model, *generation.models.values()]
        wanted += generation.collection_models.values()
        if settings.rerank.model is not None:
            wanted.append(settings.rerank.model)
    if not wanted:
        raise NotConfigured(
            "the settings name no model of Ollama: name one, as in `ragcore models pull llama3.2`, "
            "or set RAGCORE_GENERATION__PROVIDER=ollama"
        )
    return wanted


def _row(model: "InstalledModel") -> list[str]:
    return [
        model.name,
        _size(model.size_bytes),
        output.shown(model.parameters),
        output.shown(model.quantization),
        "yes" if model.is_loaded else "no",
        model.address,
    ]


def _size(size_bytes: int) -> str:
    """Return a size as Ollama's registry gives it: in powers of ten."""
    if size_bytes >= 10**9:
        return f"{size_bytes / 10**9:.1f} GB"
    return f"{size_bytes / 10**6:.0f} MB"


# --- progress ------------------------------------------------------------------------------


class _PullProgress(Protocol):
    def reached(self, progress: "PullProgress") -> None: ...


@contextmanager
def _pull_progress() -> Iterator[_PullProgress]:
    """Show pulls on stderr until the block ends: bars in a terminal, a line per step elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with _bars() as bars:
        yield _Bars(bars)


class _Lines:
    """A line whenever Ollama begins something else: for logs and pipes."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], str] = {}

    def reached(self, progress: "PullProgress") -> None:
        key = progress.model, progress.address
        if self._last.get(key) != progress.status:
            self._last[key] = progress.status
            sys.stderr.write(f"{progress.model} at {progress.address}: {progress.status}\n")


class _Bars:
    """A bar for each model at each address."""

    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def reached(self, progress: "PullProgress") -> None:
        key = progress.model, progress.address
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(
                f"{progress.model} at {progress.address}", status=""
            )
        self._bars.update(
            self._tasks[key],
            completed=progress.done_bytes,
            total=progress.total_bytes or None,
            status=progress.status,
        )


def _bars() -> "Progress":
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=output.stderr_console(),
    )
