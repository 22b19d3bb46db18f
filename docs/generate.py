"""Write the generated parts of the pages in docs/ from the code: `make docs`.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`; everything around it
is written by hand. docs/reference/openapi.json is generated whole. A test fails when a page is not
what this script would write.
"""

import json
import re
import sys
import types
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from typer.main import get_command
from typer.testing import CliRunner

from ragcore.adapters.prometheus import Gauges
from ragcore.cli.app import app
from ragcore.cli.output import exit_code_of
from ragcore.errors import RagError
from ragcore.settings import Settings
from ragcore_api.errors import HTTP_CODES, status_of
from ragcore_api.main import create_app
from ragcore_api.metrics import ApiMetrics
from ragcore_worker.metrics import WorkerMetrics

DOCS = Path(__file__).parent
OPENAPI = DOCS / "reference" / "openapi.json"
_TERMINAL = {"COLUMNS": "80"}
_GENERATED = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    """Rewrite every page that is out of date."""
    for page in sorted(DOCS.glob("**/*.md")):
        text = page.read_text(encoding="utf-8")
        if (renewed := rendered(text)) != text:
            page.write_text(renewed, encoding="utf-8")
            sys.stdout.write(f"rewrote {page}\n")
    if not OPENAPI.exists() or OPENAPI.read_text(encoding="utf-8") != openapi_text():
        OPENAPI.write_text(openapi_text(), encoding="utf-8")
        sys.stdout.write(f"rewrote {OPENAPI}\n")


def rendered(text: str) -> str:
    """Return a page with its generated parts as the code has them now."""
    return _GENERATED.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[3]}", text)


# --- settings ------------------------------------------------------------------------------


def settings_table() -> str:
    """One row per setting: variable, values, default, meaning."""
    rows = [["variable", "values", "default", "meaning"]]
    for variable, field in _settings(Settings, "RAGCORE_"):
        rows.append(
            [f"`{variable}`", _values(field), _default(field), field.description or ""],
        )
    return _table(rows)


def _settings(group: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in group.model_fields.items():
        variable = prefix + name.upper()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, variable + "__")
            continue
        yield variable, field
        if get_origin(field.annotation) is dict:
            _, values = get_args(field.annotation)
            if isinstance(values, type) and issubclass(values, BaseModel):
                yield from _settings(values, variable + "__NAME__")


def _values(field: FieldInfo) -> str:
    limits = [
        f"{sign} {getattr(limit, name)}"
        for limit in field.metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if hasattr(limit, name)
    ]
    return " ".join([_type_name(field.annotation), ", ".join(limits)]).strip()


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
        return " or ".join(map(_type_name, kinds))
    if get_origin(annotation) is tuple:
        return "JSON list"
    if get_origin(annotation) is dict:
        return "JSON object"
    names = {Path: "path", SecretStr: "text, secret", str: "text", int: "integer", float: "number"}
    return names.get(annotation) or {bool: "`true` `false`"}.get(annotation, str(annotation))


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return (field.default_factory.__doc__ or "").split("\n")[0]
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None:
        return "none"
    if isinstance(field.default, tuple):
        return "`[" + ", ".join(f'"{entry}"' for entry in field.default) + "]`"
    value = str(field.default)
    return f"`{value.lower() if isinstance(field.default, bool) else value}`"


# --- errors --------------------------------------------------------------------------------


def errors_table() -> str:
    """One row per public code, in the order of the tree in errors.py."""
    rows = [["code", "class", "retry may help", "exit code", "meaning"]]
    for code, classes in _errors_by_code().items():
        error = classes[-1]
        rows.append(
            [
                f"`{code}`",
                ", ".join(f"`{c.__name__}`" for c in classes),
                "yes" if error.retryable else "no",
                str(int(exit_code_of(error("")))),
                _first_paragraph(error),
            ]
        )
    return _table(rows)


def _errors_by_code() -> dict[str, list[type[RagError]]]:
    by_code: dict[str, list[type[RagError]]] = {}
    for error in _tree(RagError):
        by_code.setdefault(error.code, []).append(error)
    return by_code


def _tree(root: type[RagError]) -> Iterator[type[RagError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == RagError.__module__:
            yield from _tree(child)


def _first_paragraph(documented: type) -> str:
    return " ".join((documented.__doc__ or "").split("\n\n")[0].split())


# --- HTTP ----------------------------------------------------------------------------------


def openapi_text() -> str:
    """The OpenAPI document that a service serves at `/openapi.json`, laid out to be read."""
    document = create_app(Settings()).openapi()
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def endpoints() -> str:
    """One table per tag: method and path, what it does, the scope it takes, its statuses."""
    document = create_app(Settings()).openapi()
    sections = []
    for tag in document["tags"]:
        rows = [["method and path", "does", "operation", "answers"]]
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if operation["tags"] == [tag["name"]]:
                    rows.append(
                        [
                            f"`{method.upper()} {path}`",
                            operation["summary"],
                            f"`{operation['operationId']}`",
                            " ".join(sorted(operation["responses"])),
                        ]
                    )
        sections.append(f"### {tag['name']}\n\n{tag['description']}\n\n{_table(rows)}")
    return "\n\n".join(sections)


def statuses() -> str:
    """One row per status of an error, with the codes that it may have."""
    codes: dict[HTTPStatus, list[str]] = {}
    for error in _tree(RagError):
        codes.setdefault(status_of(error), []).append(f"`{error.code}`")
    for status, code in HTTP_CODES.items():
        codes.setdefault(status, []).append(f"`{code}`")
    codes[HTTPStatus.FORBIDDEN].append("`forbidden_origin`")
    rows = [
        [f"{status.value} {status.phrase}", " ".join(dict.fromkeys(codes[status]))]
        for status in sorted(codes)
    ]
    return _table([["status", "codes"], *rows])


# --- commands ------------------------------------------------------------------------------


def commands() -> str:
    """The help of every command, as `--help` prints it."""
    sections = []
    for path in _command_paths(get_command(app)):
        help_text = (
            CliRunner().invoke(app, [*path, "--help"], prog_name="ragcore", env=_TERMINAL).output
        )
        sections.append(f"### {' '.join(('ragcore', *path))}\n\n```text\n{help_text.strip()}\n```")
    return "\n\n".join(sections)


def _command_paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _command_paths(child, (*path, name))


# --- metrics -------------------------------------------------------------------------------


def metrics_table() -> str:
    """One row per metric: name, type, labels, who tells it, the question it answers."""
    gauges = Gauges(queue_state=_nobody, unheard=_nobody, pool=_NoPool(), free_bytes=int)
    told_by: dict[str, list[str]] = {}
    rows: dict[str, list[str]] = {}
    for process, registry in (
        ("API", ApiMetrics().registry),
        ("API", gauges.registry),
        ("worker", WorkerMetrics().registry),
        ("worker", gauges.registry),
    ):
        for metric in _metrics_in(registry):
            name = metric._name + {"counter": "_total", "info": "_info"}.get(metric._type, "")
            labels = ", ".join(f"`{label}`" for label in metric._labelnames)
            told_by.setdefault(name, []).append(process)
            rows[name] = [f"`{name}`", metric._type, labels, metric._documentation]
    body = [[*row[:3], ", ".join(told_by[name]), row[3]] for name, row in sorted(rows.items())]
    return _table([["metric", "type", "labels", "told by", "answers"], *body])


def _metrics_in(registry: CollectorRegistry) -> Iterator[MetricWrapperBase]:
    # The library has no public way to ask a metric for its labels before it has values.
    for collector in registry._collector_to_names:
        if isinstance(collector, MetricWrapperBase):
            yield collector


async def _nobody() -> Any:
    raise NotImplementedError  # nobody reads these numbers


class _NoPool:
    def get_stats(self) -> dict[str, int]:
        return {}


# --- decisions -----------------------------------------------------------------------------


def decisions() -> str:
    """One row per decision record: its number and its title."""
    rows = [["number", "decision"]]
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = page.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ")
        title = re.sub(r"^[0-9]+[.:]? *", "", title)
        rows.append([str(int(page.name[:4])), f"[{title}]({page.name})"])
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    head, *body = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings_table,
    "errors": errors_table,
    "commands": commands,
    "endpoints": endpoints,
    "metrics": metrics_table,
    "statuses": statuses,
    "decisions": decisions,
}


if __name__ == "__main__":
    main()
