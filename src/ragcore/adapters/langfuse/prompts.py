"""Prompts that are managed in Langfuse."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ragcore.adapters.langfuse.connection import ONCE, Connection, translated

if TYPE_CHECKING:
    from langfuse.api import LangfuseAPI

_PAGE: Final = 100
_MOST_PAGES: Final = 20

log = logging.getLogger(__name__)


def fetch_prompts(
    connection: Connection, wanted: Callable[[str], bool], *, label: str
) -> Mapping[str, tuple[str, int]]:
    """Return text and version of each prompt whose name is wanted, as the label has it.

    Blocks: for a thread. Raises Unavailable, Rejected, MissingExtra.
    """
    found = {}
    with connection.api() as api, translated():
        for name in filter(wanted, _names(api, label)):
            prompt = api.prompts.get(quote(name, safe=""), label=label, request_options=ONCE)
            if prompt.type == "text":
                found[name] = (prompt.prompt, prompt.version)
            else:
                log.warning("prompt %r is left alone: it is no text prompt", name)
    return found


def _names(api: "LangfuseAPI", label: str) -> Iterator[str]:
    for page in range(1, _MOST_PAGES + 1):
        listed = api.prompts.list(label=label, page=page, limit=_PAGE, request_options=ONCE)
        for prompt in listed.data:
            yield prompt.name
        if page >= listed.meta.total_pages:
            return
