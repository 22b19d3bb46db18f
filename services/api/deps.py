"""What routes are given: the open library, and who calls.

All are asynchronous though nothing in them waits: FastAPI sends others to a thread.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request

from ragcore.adapters.redis.doorbell import RedisDoorbell
from ragcore.errors import Forbidden
from ragcore.model import AuditEntry, Principal, Scope
from ragcore.rag import Rag
from ragcore_api.turnstile import Turnstile
from ragcore_api.watching import JobWatch


async def _rag(request: Request) -> Rag:
    rag: Rag = request.state.rag
    return rag


async def _doorbell(request: Request) -> RedisDoorbell:
    doorbell: RedisDoorbell = request.state.doorbell
    return doorbell


async def _conversions(request: Request) -> Turnstile:
    turnstile: Turnstile = request.state.conversions
    return turnstile


async def _watch(request: Request) -> JobWatch:
    watch: JobWatch = request.state.watch
    return watch


RagDep = Annotated[Rag, Depends(_rag)]
DoorbellDep = Annotated[RedisDoorbell, Depends(_doorbell)]
ConversionsDep = Annotated[Turnstile, Depends(_conversions)]
JobWatchDep = Annotated[JobWatch, Depends(_watch)]


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

    async def audit(
        self,
        rag: Rag,
        action: str,
        *,
        collection: str | None = None,
        target: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Record what this caller is about to do; call it after all checks and before the act.

        So nothing is done that the trail does not tell; what it tells may have been prevented by
        a crash at that moment. Raises StoreUnavailable: then don't act. Submissions and changes
        of keys are recorded in their own transaction instead.
        """
        entry = AuditEntry(
            action=action,
            actor=self.principal.name,
            collection=collection,
            target=target,
            request_id=self.request_id,
            details=details or {},
        )
        await rag.runtime.audit.record([entry])


def caller_with(scope: Scope | None) -> Callable[[Request], Awaitable[Caller]]:
    """Return a dependency that lets only callers with this scope through; None: any caller."""

    async def caller(request: Request) -> Caller:
        principal: Principal = request.state.principal
        if scope is not None and not principal.may(scope):
            raise Forbidden(
                f"this key lacks the scope {scope!r}; ask an administrator for one that has it"
            )
        return Caller(principal, request.state.request_id)

    return caller


async def operator(request: Request) -> Caller:
    """Let through only administrators of everything: not those of single collections.

    Raises Forbidden.
    """
    caller = await caller_with("admin")(request)
    if caller.collections is not None:
        raise Forbidden("this key administers some collections only; this takes one for all")
    return caller


AnyCaller = Annotated[Caller, Depends(caller_with(None))]
QueryCaller = Annotated[Caller, Depends(caller_with("query"))]
IngestCaller = Annotated[Caller, Depends(caller_with("ingest"))]
AdminCaller = Annotated[Caller, Depends(caller_with("admin"))]
OperatorCaller = Annotated[Caller, Depends(operator)]
