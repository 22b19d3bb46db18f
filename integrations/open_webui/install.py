"""Install ragcore's functions in Open WebUI, or bring them up to date. Safe to repeat.

Each function is made, or replaced where its text differs; its valves are set to what the
environment says and otherwise left as they are; it is switched on. Nothing else is touched.

Environment:
  OPEN_WEBUI_URL        where Open WebUI is                       http://127.0.0.1:8080
  OPEN_WEBUI_TOKEN      an administrator's API key or token, or:
  OPEN_WEBUI_EMAIL, OPEN_WEBUI_PASSWORD   an administrator's
  RAGCORE_URL           where Open WebUI reaches ragcore          http://rag-api:8000
  RAGCORE_API_KEY       a key of the scope `query`
  RAGCORE_COLLECTION    where the filter searches                 default
  RAGCORE_PUBLIC_URL    where browsers reach ragcore: citations link to its console
  RAGCORE_FILTERS       JSON that every question is narrowed by, e.g. {"readers": "{{user.email}}"}
  LANGFUSE_URL, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY   to trace plain chats, too

Examples:
  OPEN_WEBUI_TOKEN=… RAGCORE_API_KEY=… python integrations/open_webui/install.py
  python integrations/open_webui/install.py --dry-run
  python integrations/open_webui/install.py ragcore_pipe
"""

import argparse
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
_SECONDS: Final = 60

_RAGCORE: Final = {"RAGCORE_URL": "url", "RAGCORE_API_KEY": "api_key"}
_READING: Final = {
    **_RAGCORE,
    "RAGCORE_PUBLIC_URL": "console_url",
    "RAGCORE_FILTERS": "filters",
}
_LANGFUSE: Final = {
    "LANGFUSE_URL": "langfuse_url",
    "LANGFUSE_PUBLIC_KEY": "public_key",
    "LANGFUSE_SECRET_KEY": "secret_key",
}


@dataclass(frozen=True, slots=True)
class Function:
    """A file of this folder, and which valves the environment sets."""

    name: str
    valves: Mapping[str, str]
    is_global: bool = False
    """A filter that is there for every model; one with a switch is off until a user uses that."""

    @property
    def content(self) -> str:
        return (HERE / f"{self.name}.py").read_text(encoding="utf-8")

    def said(self, field: str) -> str:
        """Return a line of the text at the top of the file."""
        found = re.search(rf"^{field}: (.+)$", self.content, re.MULTILINE)
        assert found is not None, f"{self.name} does not say its {field}"
        return found[1]


FUNCTIONS: Final = (
    Function("ragcore_pipe", _READING),
    Function("ragcore_passages", {**_READING, "RAGCORE_COLLECTION": "collection"}, is_global=True),
    Function("langfuse_chats", _LANGFUSE, is_global=True),
    Function("ragcore_ratings", _RAGCORE | _LANGFUSE),
)


class Refused(Exception):
    """What Open WebUI answered instead."""


class OpenWebUI:
    """Its REST API, as an administrator."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._token = ""

    def sign_in(self, environment: Mapping[str, str]) -> None:
        """Raises Refused. Where Open WebUI runs without sign-in, nothing needs to be given."""
        if token := environment.get("OPEN_WEBUI_TOKEN"):
            self._token = token
            return
        who = {
            "email": environment.get("OPEN_WEBUI_EMAIL", ""),
            "password": environment.get("OPEN_WEBUI_PASSWORD", ""),
        }
        self._token = self.ask("POST", "/api/v1/auths/signin", who)["token"]

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer in JSON. Raises Refused."""
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310  # the operator's own address
            self._url + path, data=content, headers=headers, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            told = error.read(500).decode(errors="replace")
            raise Refused(f"{method} {path}: {error.code} {told}") from error
        except (urllib.error.URLError, TimeoutError) as error:
            reason = getattr(error, "reason", error)
            raise Refused(
                f"{self._url} can't be reached: {reason} (OPEN_WEBUI_URL names it)"
            ) from error
        except ValueError as error:
            raise Refused(f"{method} {path}: the answer is not JSON; is it Open WebUI?") from error


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = [function.name for function in FUNCTIONS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument("--dry-run", action="store_true", help="only tell what would be done")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(known):
        parser.error(f"there is no {min(unknown)!r}; there are {', '.join(known)}")
    wanted = [each for each in FUNCTIONS if not arguments.names or each.name in arguments.names]
    server = OpenWebUI(os.environ.get("OPEN_WEBUI_URL") or "http://127.0.0.1:8080")
    try:
        server.sign_in(os.environ)
        for function in wanted:
            done = install(server, function, os.environ, dry_run=arguments.dry_run)
            print(f"{function.name}: {done}")  # noqa: T201  # the report of a command
    except Refused as refused:
        sys.exit(f"error: {refused}")


def install(
    server: OpenWebUI, function: Function, environment: Mapping[str, str], *, dry_run: bool = False
) -> str:
    """Bring one function to what it shall be, and return what that took. Raises Refused.

    Each step is looked at before it is done, so a run that was cut off is finished by the next.
    """
    present = {each["id"]: each for each in server.ask("GET", "/api/v1/functions/")}
    form = {
        "id": function.name,
        "name": function.said("title"),
        "content": function.content,
        "meta": {"description": function.said("description"), "manifest": {}},
    }
    path = f"/api/v1/functions/id/{function.name}"
    valves = {
        field: environment[name] for name, field in function.valves.items() if environment.get(name)
    }
    if dry_run:
        made = "would be replaced" if function.name in present else "would be made"
        return f"{made}, valves set: {', '.join(sorted(valves)) or 'none'}"
    if function.name not in present:
        server.ask("POST", "/api/v1/functions/create", form)
        done = "made"
    elif server.ask("GET", path)["content"] != function.content:
        server.ask("POST", f"{path}/update", form)
        done = "replaced"
    else:
        done = "as it was"
    if valves:
        kept = server.ask("GET", f"{path}/valves") or {}
        if kept | valves != kept:
            server.ask("POST", f"{path}/valves/update", kept | valves)
            done += ", valves set"
    now = server.ask("GET", path)
    if not now["is_active"]:
        server.ask("POST", f"{path}/toggle")
        done += ", switched on"
    if function.is_global and not now.get("is_global"):
        server.ask("POST", f"{path}/toggle/global")
        done += ", for every model"
    return done


if __name__ == "__main__":
    main()
