"""API keys, and who did what."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from ragcore.client.bodies import JsonBody
from ragcore.client.caller import Caller, get, given, segment
from ragcore.client.calls import call, stream
from ragcore.client.exchange import Request, Steps, Stream
from ragcore.client.values import NewKey, made
from ragcore.model import ApiKey, AuditEntry, Scope


class Access(Caller):
    """Keys and the audit trail, for administrators."""

    @call
    def keys(self) -> Steps[list[ApiKey]]:
        """Return every key, the newest first, revoked and expired ones included."""
        told = yield from self._told(get("/keys"))
        return [made(ApiKey, key) for key in told.get("keys") or ()]

    @call
    def create_key(
        self,
        name: str,
        *,
        scopes: Iterable[Scope],
        collections: Iterable[str] | None = None,
        requests_per_minute: int | None = None,
        expires_at: datetime | None = None,
    ) -> Steps[NewKey]:
        """Make a key; its secret can't be shown again. Not sent again when its answer is lost."""
        wanted = given(
            {
                "name": name,
                "scopes": sorted(scopes),
                "collections": None if collections is None else sorted(collections),
                "requests_per_minute": requests_per_minute,
                "expires_at": expires_at and expires_at.astimezone().isoformat(),
            }
        )
        told = yield from self._told(Request("POST", "/keys", body=JsonBody(wanted)))
        return NewKey(made(ApiKey, told), secret=str(told.get("secret") or ""))

    @call
    def revoke_key(self, key_id: UUID | str) -> Steps[ApiKey]:
        """Make a key worthless, within seconds and for ever. Raises KeyNotFound."""
        request = Request("DELETE", f"/keys/{segment(key_id)}", is_repeatable=True)
        return made(ApiKey, (yield from self._told(request)))

    @stream
    def audit(
        self,
        *,
        collection: str | None = None,
        action: str | None = None,
        limit: int | None = None,
    ) -> Stream[AuditEntry]:
        """Yield who did what, the newest first: at most `limit` entries."""
        yield from self._pages(
            "/audit",
            "entries",
            lambda told: made(AuditEntry, told),
            query={"collection": collection, "action": action},
            limit=limit,
            after=None,
        )
