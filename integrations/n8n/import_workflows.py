"""Import ragcore's credentials and workflows into n8n, and publish them. Safe to repeat.

The templates beside this file hold names in braces where an address or a secret belongs; both are
taken from the environment (README.md lists them). The filled files lie in a directory that only
this user can read, and are removed whatever happens. n8n must be restarted afterwards when it was
running: its command line does not tell the server.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent

DEFAULTS: Final = {
    "RAGCORE_URL": "http://rag-api:8000",
    "RAGCORE_COLLECTION": "default",
    "RAGCORE_BUCKET": "",
    "RAGCORE_BUCKET_PREFIX": "",
    "REPORT_URL": "",
    "REPORT_KEY": "none",
    "OLLAMA_URL": "http://ollama:11434",
    "OLLAMA_MODEL": "llama3.2",
    "OLLAMA_API_KEY": "",
}
REQUIRED: Final = ("RAGCORE_API_KEY", "WEBHOOK_KEY", "CHAT_USER", "CHAT_PASSWORD")

_NAME: Final = re.compile(r"\$\{([A-Z_]+)\}")
_UNFIT: Final = re.compile(r"['\"`\\{}\s]")
"""Values stand inside quoted expressions of n8n, which they must not be able to leave."""


class Unset(Exception):
    """A name that a template wants has no value."""


def main() -> None:
    values = DEFAULTS | {name: value for name, value in os.environ.items() if value}
    if missing := [name for name in REQUIRED if not values.get(name)]:
        sys.exit(f"set {', '.join(missing)}: integrations/n8n/README.md says what they are")
    try:
        credentials = list(filled_credentials(values))
        workflows = [filled_workflow(path, values) for path in workflow_files()]
    except ValueError as error:
        sys.exit(str(error))
    command = shlex.split(values.get("N8N_COMMAND", "n8n"))
    # n8n refuses to import over a published workflow whose owner the command line does not act for.
    for workflow_id in published(command) & {workflow["id"] for workflow in workflows}:
        subprocess.run([*command, "unpublish:workflow", f"--id={workflow_id}"], check=True)
    with tempfile.TemporaryDirectory() as directory:  # made with mode 0700
        _run(command, "import:credentials", _written(Path(directory), "credentials", credentials))
        _run(command, "import:workflow", _written(Path(directory), "workflows", workflows))
    for workflow in workflows:
        if is_wanted(workflow, values):
            subprocess.run([*command, "publish:workflow", f"--id={workflow['id']}"], check=True)


def published(command: Sequence[str]) -> set[str]:
    """The ids of all workflows that n8n runs; what else its command line prints does no harm."""
    told = subprocess.run(
        [*command, "list:workflow", "--active=true", "--onlyId"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return set(told.stdout.split())


def workflow_files() -> list[Path]:
    """The alert comes first: the others refer to it, and n8n publishes in this order."""
    files = sorted((HERE / "workflows").glob("*.json"))
    return sorted(files, key=lambda path: path.name != "error-alert.json")


def is_wanted(workflow: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    """Whether to publish it: without a bucket there is nothing to watch."""
    return workflow["id"] != "ragcoreBucket001" or bool(values["RAGCORE_BUCKET"])


def filled_credentials(values: Mapping[str, str]) -> Iterator[Any]:
    """Those whose every value is known; the others are named on stderr and left out."""
    for credential in json.loads((HERE / "credentials.json").read_text()):
        try:
            yield _filled(credential, values)
        except Unset as unset:
            sys.stderr.write(f"left out: {credential['name']!r}, {unset} is not set\n")


def filled_workflow(path: Path, values: Mapping[str, str]) -> Any:
    """One workflow with its addresses; raises ValueError for a value that would break it."""
    template = path.read_text()
    for name in sorted(set(_NAME.findall(template))):
        if _UNFIT.search(values[name]):
            raise ValueError(f"{name} must hold no quotes, braces, backslashes or spaces")
        if name.endswith("_URL") and not re.match(r"https?://|$", values[name]):
            raise ValueError(f"{name} must begin with http:// or https://")
    return _filled(json.loads(template), values)


def _filled(template: Any, values: Mapping[str, str]) -> Any:
    if isinstance(template, str):
        return _NAME.sub(lambda match: _value(match[1], values), template)
    if isinstance(template, list):
        return [_filled(item, values) for item in template]
    if isinstance(template, dict):
        return {key: _filled(item, values) for key, item in template.items()}
    return template


def _value(name: str, values: Mapping[str, str]) -> str:
    try:
        value = values[name]
    except KeyError:
        raise Unset(name) from None
    return value.rstrip("/") if name.endswith("_URL") else value


def _written(directory: Path, name: str, content: Any) -> Path:
    path = directory / f"{name}.json"
    path.touch(mode=0o600, exist_ok=False)
    path.write_text(json.dumps(content))
    return path


def _run(command: list[str], action: str, source: Path) -> None:
    subprocess.run([*command, action, f"--input={source}"], check=True)


if __name__ == "__main__":
    main()
