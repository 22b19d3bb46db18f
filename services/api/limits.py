"""How many requests a key may make in a minute."""

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from ragcore.adapters.redis.limits import RedisLimits
from ragcore.errors import RateLimited
from ragcore.model import Principal
from ragcore_api.auth import ANONYMOUS, LOOPBACK, METRICS_PATH
from ragcore_api.guard import refuse

_UNLIMITED: Final = (ANONYMOUS, LOOPBACK)
"""Health must answer however busy a client is, and without keys there is nobody to tell apart."""


class RateLimits:
    """Refuse requests of a key over its own limit, or `per_minute`; 0: no limit.

    Counted before the body is read and whatever the answer. Metrics are not counted.
    """

    def __init__(self, app: ASGIApp, *, per_minute: int) -> None:
        self._app = app
        self._per_minute = per_minute

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != METRICS_PATH:
            try:
                await self._count(scope["state"]["principal"], scope["state"]["limits"])
            except RateLimited as error:
                await refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _count(self, principal: Principal, limits: RedisLimits) -> None:
        own = principal.requests_per_minute
        per_minute = self._per_minute if own is None else own
        if per_minute and principal not in _UNLIMITED:
            caller = principal.name if principal.key_id is None else str(principal.key_id)
            await limits.count(caller, per_minute=per_minute)
