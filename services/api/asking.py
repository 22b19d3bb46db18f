"""For whom a question is asked, as its trace tells it."""

from urllib.parse import unquote

from fastapi import Request

from ragcore.model import Asker
from ragcore_api.deps import Caller

_USER_HEADER = "x-openwebui-user-id"
_SESSION_HEADER = "x-openwebui-chat-id"
_LONGEST = 200


def asker_of(
    request: Request, caller: Caller, *, user: str | None = None, session: str | None = None
) -> Asker:
    """Return the user and session that the caller names, in the body or as Open WebUI does.

    Who has a key is believed: it is a program that knows its users. Without a user it is the key
    itself, by its name, which is told in any case.
    """
    key = caller.principal.name
    return Asker(
        user=_named(user) or _header(request, _USER_HEADER) or key,
        session=_named(session) or _header(request, _SESSION_HEADER),
        key=key,
    )


def _header(request: Request, name: str) -> str | None:
    return _named(unquote(request.headers.get(name, "")))


def _named(text: str | None) -> str | None:
    return (text or "").strip()[:_LONGEST] or None
