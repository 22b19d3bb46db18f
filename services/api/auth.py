"""Who makes a request, found out before a byte of its body is read.

FastAPI would parse a whole upload before its dependencies run; here a stranger's upload is neither
read nor stored.
"""

import logging
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from ragcore.errors import AccessDenied, Forbidden, RagError, Unauthenticated
from ragcore.flows.keys import SCOPES, KeyRing
from ragcore.model import Principal
from ragcore_api.guard import refuse

LOOPBACK: Final = Principal("loopback", SCOPES)
"""Whoever calls while no key is asked for."""
ANONYMOUS: Final = Principal("anonymous", frozenset(), collections=frozenset())
"""Whoever calls what is open to all."""

OPEN_PATHS: Final = frozenset({"/health/live", "/health/ready"})
"""For orchestrators, which have no key; they tell states and nothing of what is stored."""
HOOK_PATHS: Final = frozenset({"/hooks/minio"})
"""Where a secret of its own is asked for, by the route, before it reads the body."""
METRICS_PATH: Final = "/metrics"

log = logging.getLogger(__name__)


class Authentication:
    """Put the caller into `request.state.principal`, or refuse the request.

    Everything needs a key, but for `OPEN_PATHS` and `HOOK_PATHS`, and `METRICS_PATH` when
    `open_metrics`; otherwise that takes an administrator of all collections. With `needs_key`
    False, whoever reaches the service may do everything, and a key that is sent nevertheless is
    not looked at.
    """

    def __init__(self, app: ASGIApp, *, needs_key: bool, open_metrics: bool) -> None:
        self._app = app
        self._needs_key = needs_key
        self._open_paths = OPEN_PATHS | HOOK_PATHS
        if open_metrics:
            self._open_paths |= {METRICS_PATH}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            scope["state"]["principal"] = await self._principal(scope)
        except RagError as error:
            level = logging.INFO if isinstance(error, AccessDenied) else logging.ERROR
            log.log(level, "refused %s %s: %s", scope["method"], scope["path"], error)
            await refuse(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal:
        path = scope["path"]
        if path in self._open_paths:
            return ANONYMOUS
        if not self._needs_key:
            return LOOPBACK
        secret = key_of(scope)
        keys: KeyRing = scope["state"]["rag"].runtime.keys
        principal = await keys.authenticate(secret)
        if path == METRICS_PATH and not (principal.may("admin") and principal.collections is None):
            raise Forbidden("metrics tell of every collection: they take an administrator's key")
        return principal


def key_of(scope: Scope) -> bytes:
    """Return the one key that a request shows. Raises Unauthenticated for none, or several."""
    shown = {key for name, value in scope["headers"] if (key := _key_in(name, value))}
    if not shown:
        raise Unauthenticated(
            "send an API key as `Authorization: Bearer …` or `X-API-Key: …`; "
            "an administrator makes one with `ragcore keys create`"
        )
    if len(shown) > 1:
        raise Unauthenticated("the request shows two different API keys; send one")
    return shown.pop()


def _key_in(name: bytes, value: bytes) -> bytes | None:
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization":
        scheme, _, key = value.strip().partition(b" ")
        return key.strip() if scheme.lower() == b"bearer" else None
    return None
