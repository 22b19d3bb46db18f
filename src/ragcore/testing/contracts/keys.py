"""What every `ports.Keys` promises."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from ragcore.errors import KeyNotFound
from ragcore.model import ApiKey, AuditEntry
from ragcore.ports import Audit, Keys

CREATE = AuditEntry("key.create", "anna", target="n8n", details={"name": "n8n"})
REVOKE = AuditEntry("key.revoke", "anna", target="n8n", request_id="r-1")


class KeysContract:
    """Subclass, supply a `keys` fixture and the `audit` it records in, inherit the tests."""

    async def test_a_key_is_found_by_its_hash_as_it_was_stored(self, keys: Keys) -> None:
        given = _key(collections=frozenset({"a", "b"}), requests_per_minute=7)
        stored = await keys.add(given, secret_hash=b"hash", entry=CREATE)
        assert stored.created_at is not None
        assert replace(stored, created_at=None) == given
        assert await keys.by_hash(b"hash") == stored

    async def test_a_key_for_every_collection_is_not_one_for_none(self, keys: Keys) -> None:
        await keys.add(_key(collections=None), secret_hash=b"hash", entry=CREATE)
        found = await keys.by_hash(b"hash")
        assert found is not None
        assert found.collections is None

    async def test_another_hash_finds_nothing(self, keys: Keys) -> None:
        await keys.add(_key(), secret_hash=b"hash", entry=CREATE)
        assert await keys.by_hash(b"hasH") is None

    async def test_keys_are_listed_the_newest_first(self, keys: Keys) -> None:
        first = await keys.add(_key(), secret_hash=b"1", entry=CREATE)
        second = await keys.add(_key(), secret_hash=b"2", entry=CREATE)
        assert list(await keys.list()) == [second, first]

    async def test_a_revoked_key_stays_listed_and_found(self, keys: Keys) -> None:
        key = await keys.add(_key(), secret_hash=b"hash", entry=CREATE)
        revoked = await keys.revoke(key.key_id, entry=REVOKE)
        assert revoked.revoked_at is not None
        assert await keys.by_hash(b"hash") == revoked
        assert list(await keys.list()) == [revoked]

    async def test_revoking_again_changes_and_records_nothing(
        self, keys: Keys, audit: Audit
    ) -> None:
        key = await keys.add(_key(), secret_hash=b"hash", entry=CREATE)
        revoked = await keys.revoke(key.key_id, entry=REVOKE)
        assert await keys.revoke(key.key_id, entry=REVOKE) == revoked
        assert len(await audit.entries(action="key.revoke")) == 1

    async def test_an_unknown_key_can_not_be_revoked(self, keys: Keys, audit: Audit) -> None:
        unknown = uuid4()
        with pytest.raises(KeyNotFound, match=str(unknown)):
            await keys.revoke(unknown, entry=REVOKE)
        assert not await audit.entries()

    async def test_changes_are_recorded_with_who_made_them(self, keys: Keys, audit: Audit) -> None:
        key = await keys.add(_key(), secret_hash=b"hash", entry=CREATE)
        await keys.revoke(key.key_id, entry=REVOKE)
        revoked, created = await audit.entries()
        assert (created.action, created.actor) == ("key.create", "anna")
        assert created.details == {"name": "n8n"}
        assert (revoked.action, revoked.request_id) == ("key.revoke", "r-1")

    async def test_uses_are_noted(self, keys: Keys) -> None:
        used = await keys.add(_key(), secret_hash=b"1", entry=CREATE)
        other = await keys.add(_key(), secret_hash=b"2", entry=CREATE)
        await keys.used({used.key_id, uuid4()})
        found = {key.key_id: key.last_used_at for key in await keys.list()}
        assert found[used.key_id] is not None
        assert found[other.key_id] is None


def _key(
    *, collections: frozenset[str] | None = None, requests_per_minute: int | None = None
) -> ApiKey:
    return ApiKey(
        key_id=uuid4(),
        name="n8n",
        scopes=frozenset({"ingest", "query"}),
        collections=collections,
        requests_per_minute=requests_per_minute,
        expires_at=datetime.now(UTC).replace(microsecond=0) + timedelta(days=1),
    )
