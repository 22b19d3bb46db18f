"""API keys: made, shown once, revoked, and known again by their hash."""

import asyncio
import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, get_args
from uuid import UUID, uuid4

from ragcore.errors import InvalidInput, RagError, Unauthenticated
from ragcore.model import ApiKey, AuditEntry, Principal, Scope
from ragcore.ports import Keys
from ragcore.steps.identity import checked_collection

SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))
PREFIX: Final = "rk_"
"""Tells people and secret scanners what a leaked string is."""

REMEMBERED: Final = timedelta(seconds=5)
"""How long a key that was looked up is good without another look."""
USES_WRITTEN_EVERY: Final = timedelta(minutes=1)

_SECRET_BYTES: Final = 32
_SECRET: Final = re.compile(rb"rk_[A-Za-z0-9_-]{43}")
_RESERVED_NAMES: Final = frozenset({"admin", "loopback", "anonymous", "command line", "ragcore"})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key and its secret, which is stored nowhere and can't be shown again."""

    key: ApiKey
    secret: str


class KeyRing:
    """Makes, lists and revokes keys, and tells who shows one.

    A key revoked by another process is good for `remembered` longer; by this one, not a moment.
    The secrets are 256 random bits, so a bare SHA-256 hides them as well as a slow hash would.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        admin_key: str | None = None,
        remembered: timedelta = REMEMBERED,
        uses_written_every: timedelta = USES_WRITTEN_EVERY,
    ) -> None:
        self._keys = keys
        self._admin_hash = None if admin_key is None else _hash(admin_key.encode())
        self._remembered_seconds = remembered.total_seconds()
        self._pause_seconds = uses_written_every.total_seconds()
        self._known: dict[bytes, _Known] = {}
        self._revocations = 0
        self._used: set[UUID] = set()
        self._writing: asyncio.Task[None] | None = None

    async def create(
        self,
        name: str,
        *,
        scopes: Set[Scope],
        collections: Set[str] | None = None,
        requests_per_minute: int | None = None,
        expires_at: datetime | None = None,
        actor: str,
        request_id: str | None = None,
    ) -> NewKey:
        """Make a key; this is the only time its secret is seen.

        `collections` need not exist yet; None: every one. A repeat makes another key. Recorded in
        the audit trail in the same transaction. Raises InvalidInput, StoreUnavailable.
        """
        key = ApiKey(
            key_id=uuid4(),
            name=_checked_name(name),
            scopes=_checked_scopes(scopes),
            collections=_checked_collections(collections),
            requests_per_minute=_checked_rate(requests_per_minute),
            expires_at=_checked_expiry(expires_at),
        )
        secret = PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        entry = AuditEntry(
            "key.create", actor, target=str(key.key_id), request_id=request_id, details=_told(key)
        )
        stored = await self._keys.add(key, secret_hash=_hash(secret.encode()), entry=entry)
        return NewKey(stored, secret)

    async def list(self) -> Sequence[ApiKey]:
        """Return every key, the newest first, revoked and expired ones included."""
        return await self._keys.list()

    async def revoke(self, key_id: UUID, *, actor: str, request_id: str | None = None) -> ApiKey:
        """Make a key worthless for ever. Safe to repeat. Raises KeyNotFound, StoreUnavailable."""
        entry = AuditEntry("key.revoke", actor, target=str(key_id), request_id=request_id)
        revoked = await self._keys.revoke(key_id, entry=entry)
        self._revocations += 1
        self._known = {
            digest: known for digest, known in self._known.items() if known.key.key_id != key_id
        }
        return revoked

    async def has_administrator(self) -> bool:
        """Whether some key can make others: the configured one, or a good one of scope `admin`."""
        if self._admin_hash is not None:
            return True
        return any(
            _refusal(key) is None and "admin" in key.scopes and key.collections is None
            for key in await self._keys.list()
        )

    async def authenticate(self, secret: bytes) -> Principal:
        """Return who shows this secret.

        Secrets are compared as hashes only, which nobody can steer towards a given one, and the
        configured one in constant time. Raises Unauthenticated, StoreUnavailable.
        """
        digest = _hash(secret)
        if self._admin_hash is not None and hmac.compare_digest(digest, self._admin_hash):
            return Principal("admin", SCOPES)
        if _SECRET.fullmatch(secret) is None:
            raise Unauthenticated("this is no API key: keys begin with 'rk_' and have 46 letters")
        known = self._known.get(digest)
        if known is None or known.good_until < time.monotonic():
            known = await self._look_up(digest)
        if (why := _refusal(known.key)) is not None:
            raise Unauthenticated(why)
        self._note_use(known.key.key_id)
        return known.principal

    async def aclose(self) -> None:
        """Write down the uses not yet written."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        await self._write_uses()

    async def _look_up(self, digest: bytes) -> "_Known":
        revocations = self._revocations
        key = await self._keys.by_hash(digest)
        if key is None:
            self._known.pop(digest, None)
            raise Unauthenticated("this API key is not known; ask an administrator for another")
        # Only keys that exist are remembered, so strangers can't fill the memory.
        known = _Known(key, _principal(key), time.monotonic() + self._remembered_seconds)
        if revocations == self._revocations:  # what was read may be out of date otherwise
            self._known[digest] = known
        return known

    def _note_use(self, key_id: UUID) -> None:
        self._used.add(key_id)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_uses_now_and_then())

    async def _write_uses_now_and_then(self) -> None:
        while self._used:
            await asyncio.sleep(self._pause_seconds)
            await self._write_uses()

    async def _write_uses(self) -> None:
        """Write when keys were last used: now, give or take a pause. A failure waits for the next.

        What a kill or a failure loses is only how late a key was used.
        """
        used = frozenset(self._used)
        if not used:
            return
        try:
            await self._keys.used(used)
        except RagError as error:
            log.warning("when keys were last used is not written down yet: %s", error)
        else:
            self._used -= used


@dataclass(frozen=True, slots=True)
class _Known:
    key: ApiKey
    principal: Principal
    good_until: float
    """By the monotonic clock."""


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()


def _principal(key: ApiKey) -> Principal:
    return Principal(
        name=key.name,
        scopes=key.scopes,
        collections=key.collections,
        key_id=key.key_id,
        requests_per_minute=key.requests_per_minute,
    )


def _refusal(key: ApiKey) -> str | None:
    """Say why a key is not good now, None when it is."""
    if key.revoked_at is not None:
        return "this API key was revoked; ask an administrator for another"
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return f"this API key expired at {key.expires_at.isoformat(timespec='seconds')}"
    return None


def _told(key: ApiKey) -> dict[str, object]:
    return {
        "name": key.name,
        "scopes": sorted(key.scopes),
        "collections": None if key.collections is None else sorted(key.collections),
        "expires_at": None if key.expires_at is None else key.expires_at.isoformat(),
    }


# --- what a key may be made of -------------------------------------------------------------


def _checked_name(name: str) -> str:
    stripped = name.strip()
    if not (0 < len(stripped) <= 100 and stripped.isprintable()):
        raise InvalidInput(f"a key's name is 1 to 100 printable characters, not {name[:80]!r}")
    if stripped.lower() in _RESERVED_NAMES:
        raise InvalidInput(f"{stripped!r} names no key in the audit trail; choose another name")
    return stripped


def _checked_scopes(scopes: Set[Scope]) -> frozenset[Scope]:
    if not scopes or scopes - SCOPES:
        raise InvalidInput(
            f"a key has one or more of the scopes {', '.join(sorted(SCOPES))}, "
            f"not {sorted(scopes)!r}"
        )
    return frozenset(scopes)


def _checked_collections(collections: Set[str] | None) -> frozenset[str] | None:
    if collections is None:
        return None
    if not collections:
        raise InvalidInput("a key for no collection can do nothing; name some, or none for all")
    return frozenset(checked_collection(name) for name in collections)


def _checked_rate(requests_per_minute: int | None) -> int | None:
    if requests_per_minute is not None and not 0 <= requests_per_minute < 2**31:
        raise InvalidInput(f"requests_per_minute {requests_per_minute!r} must be 0 or more")
    return requests_per_minute


def _checked_expiry(expires_at: datetime | None) -> datetime | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise InvalidInput(f"expires_at {expires_at.isoformat()!r} must name its time zone")
    if expires_at <= datetime.now(UTC):
        raise InvalidInput(f"expires_at {expires_at.isoformat()!r} has passed already")
    return expires_at
