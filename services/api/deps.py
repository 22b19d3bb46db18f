"""What routes are given: the open library, and who calls."""

from collections.abc import Callable, Sequence
from typing import Annotated

from fastapi import Depends, Request

from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.errors import Forbidden
from ragcore.model import Principal, Scope
from ragcore.rag import Rag


def _rag(request: Request) -> Rag:
    rag: Rag = request.state.rag
    return rag


def _doorbell(request: Request) -> RedisDoorbell:
    doorbell: RedisDoorbell = request.state.doorbell
    return doorbell


RagDep = Annotated[Rag, Depends(_rag)]
DoorbellDep = Annotated[RedisDoorbell, Depends(_doorbell)]


class Caller:
    """Who makes this request, and which collections are theirs.

    The middleware of auth.py has found out who it is before a byte of the body was read.
    """

    def __init__(self, principal: Principal, request_id: str) -> None:
        self.principal = principal
        self.request_id = request_id

    def require_collection(self, name: str) -> str:
        """Return the name. Raises Forbidden, whether the collection exists or not."""
        if not self.principal.sees(name):
            raise Forbidden(
                f"this key is not for collection {name!r}; name one of its own, "
                "or ask an administrator for another key"
            )
        return name

    def require_collections(self, names: str | Sequence[str]) -> str | Sequence[str]:
        """Check each of them. Raises Forbidden."""
        for name in [names] if isinstance(names, str) else names:
            self.require_collection(name)
        return names

    @property
    def collections(self) -> frozenset[str] | None:
        """The collections this caller sees; None: every one."""
        return self.principal.collections


def caller_with(scope: Scope | None) -> Callable[[Request], Caller]:
    """Return a dependency that lets only callers with this scope through; None: any caller."""

    def caller(request: Request) -> Caller:
        principal: Principal = request.state.principal
        if scope is not None and not principal.may(scope):
            raise Forbidden(
                f"this key lacks the scope {scope!r}; ask an administrator for one that has it"
            )
        return Caller(principal, request.state.request_id)

    return caller


AnyCaller = Annotated[Caller, Depends(caller_with(None))]
QueryCaller = Annotated[Caller, Depends(caller_with("query"))]
IngestCaller = Annotated[Caller, Depends(caller_with("ingest"))]
AdminCaller = Annotated[Caller, Depends(caller_with("admin"))]
