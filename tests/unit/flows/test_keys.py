import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ragcore.errors import InvalidInput, KeyNotFound, StoreUnavailable, Unauthenticated
from ragcore.flows.keys import KeyRing
from ragcore.model import ApiKey
from ragcore.testing.memory.keys import MemoryKeys

MINUTE = timedelta(minutes=1)


@pytest.fixture
def store() -> MemoryKeys:
    return MemoryKeys()


@pytest.fixture
def ring(store: MemoryKeys) -> KeyRing:
    return KeyRing(store, admin_key="a-configured-key-of-some-length")


async def test_a_key_is_known_by_its_secret(ring: KeyRing) -> None:
    made = await ring.create(
        "n8n", scopes={"query"}, collections={"a"}, requests_per_minute=5, actor="anna"
    )
    principal = await ring.authenticate(made.secret.encode())
    assert principal.name == "n8n"
    assert principal.key_id == made.key.key_id
    assert principal.collections == {"a"}
    assert principal.requests_per_minute == 5
    assert principal.may("query")
    assert not principal.may("ingest")
    await ring.aclose()


async def test_secrets_differ_and_are_kept_nowhere(ring: KeyRing, store: MemoryKeys) -> None:
    made = [await ring.create("n8n", scopes={"query"}, actor="anna") for _ in range(2)]
    assert len({key.secret for key in made}) == 2
    assert all(key.secret.startswith("rk_") and len(key.secret) == 46 for key in made)
    assert made[0].secret not in f"{vars(store)} {store.audit.recorded}"


async def test_the_configured_key_may_do_everything(ring: KeyRing, store: MemoryKeys) -> None:
    principal = await ring.authenticate(b"a-configured-key-of-some-length")
    assert principal.may("admin")
    assert principal.collections is None
    assert store.lookups == 0


@pytest.mark.parametrize("secret", [b"", b"nonsense", b"rk_", b"\xff" * 46, b"rk_" + b"x" * 5000])
async def test_what_has_not_the_form_of_a_key_costs_no_lookup(
    ring: KeyRing, store: MemoryKeys, secret: bytes
) -> None:
    with pytest.raises(Unauthenticated):
        await ring.authenticate(secret)
    assert store.lookups == 0


async def test_an_unknown_key_is_refused_and_not_remembered(
    ring: KeyRing, store: MemoryKeys
) -> None:
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="not known"):
            await ring.authenticate(b"rk_" + b"x" * 43)
    assert store.lookups == 2


async def test_a_known_key_is_looked_up_once_in_a_while(store: MemoryKeys) -> None:
    ring = KeyRing(store, remembered=MINUTE)
    made = await ring.create("n8n", scopes={"query"}, actor="anna")
    for _ in range(3):
        await ring.authenticate(made.secret.encode())
    assert store.lookups == 1
    await ring.aclose()


async def test_a_revoked_key_is_refused_at_once(store: MemoryKeys) -> None:
    ring = KeyRing(store, remembered=MINUTE)
    made = await ring.create("n8n", scopes={"query"}, actor="anna")
    await ring.authenticate(made.secret.encode())
    await ring.revoke(made.key.key_id, actor="anna")
    with pytest.raises(Unauthenticated, match="revoked"):
        await ring.authenticate(made.secret.encode())
    await ring.aclose()


async def test_a_key_that_another_process_revoked_is_refused_when_it_is_forgotten(
    store: MemoryKeys,
) -> None:
    here, elsewhere = KeyRing(store, remembered=timedelta(0)), KeyRing(store)
    made = await here.create("n8n", scopes={"query"}, actor="anna")
    await here.authenticate(made.secret.encode())
    await elsewhere.revoke(made.key.key_id, actor="anna")
    with pytest.raises(Unauthenticated, match="revoked"):
        await here.authenticate(made.secret.encode())
    await here.aclose()


async def test_a_key_ends_on_time_even_while_it_is_remembered(store: MemoryKeys) -> None:
    ring = KeyRing(_Aging(store), remembered=MINUTE)
    made = await ring.create(
        "n8n", scopes={"query"}, expires_at=datetime.now(UTC) + MINUTE, actor="anna"
    )
    with pytest.raises(Unauthenticated, match="expired"):
        await ring.authenticate(made.secret.encode())


async def test_uses_are_written_together_and_later(store: MemoryKeys) -> None:
    written = _Noting(store)
    ring = KeyRing(written, uses_written_every=timedelta(0))
    made = await ring.create("n8n", scopes={"query"}, actor="anna")
    for _ in range(5):
        await ring.authenticate(made.secret.encode())
    assert written.calls == 0
    await written.noted.wait()
    assert written.calls == 1
    await ring.aclose()
    assert written.calls == 1


async def test_uses_not_written_yet_are_written_at_the_end(store: MemoryKeys) -> None:
    ring = KeyRing(store)
    made = await ring.create("n8n", scopes={"query"}, actor="anna")
    await ring.authenticate(made.secret.encode())
    await ring.aclose()
    (key,) = await store.list()
    assert key.last_used_at is not None


async def test_uses_that_can_not_be_written_harm_nobody(
    store: MemoryKeys, caplog: pytest.LogCaptureFixture
) -> None:
    ring = KeyRing(_Away(store))
    made = await ring.create("n8n", scopes={"query"}, actor="anna")
    await ring.authenticate(made.secret.encode())
    await ring.aclose()
    assert "not written down" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": " "},
        {"name": "x" * 101},
        {"name": "a\nb"},
        {"name": "Admin"},
        {"scopes": set()},
        {"scopes": {"root"}},
        {"collections": set()},
        {"collections": {"No Such Name"}},
        {"requests_per_minute": -1},
        {"requests_per_minute": 2**31},
        {"expires_at": datetime(2020, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(2100, 1, 1)},
    ],
    ids=str,
)
async def test_keys_that_can_not_be_meant_are_refused(
    ring: KeyRing, store: MemoryKeys, wrong: dict[str, Any]
) -> None:
    wanted: dict[str, Any] = {"name": "n8n", "scopes": {"query"}, "actor": "anna"}
    with pytest.raises(InvalidInput):
        await ring.create(**(wanted | wrong))
    assert not await store.list()


async def test_an_unknown_key_can_not_be_revoked(ring: KeyRing) -> None:
    made = await KeyRing(MemoryKeys()).create("n8n", scopes={"query"}, actor="anna")
    with pytest.raises(KeyNotFound):
        await ring.revoke(made.key.key_id, actor="anna")


async def test_only_a_good_key_for_everything_makes_an_administrator(store: MemoryKeys) -> None:
    ring = KeyRing(store)
    await ring.create("asks", scopes={"query"}, actor="anna")
    await ring.create("of one", scopes={"admin"}, collections={"a"}, actor="anna")
    gone = await ring.create("gone", scopes={"admin"}, actor="anna")
    await ring.revoke(gone.key.key_id, actor="anna")
    assert not await ring.has_administrator()
    await ring.create("anna", scopes={"admin"}, actor="anna")
    assert await ring.has_administrator()
    assert await KeyRing(MemoryKeys(), admin_key="x" * 24).has_administrator()


class _Wrapped(MemoryKeys):
    def __init__(self, store: MemoryKeys) -> None:
        self.__dict__.update(vars(store))


class _Aging(_Wrapped):
    """Tells of every key that it ended a minute ago."""

    async def by_hash(self, secret_hash: bytes) -> ApiKey | None:
        key = await super().by_hash(secret_hash)
        return None if key is None else replace(key, expires_at=datetime.now(UTC) - MINUTE)


class _Noting(_Wrapped):
    def __init__(self, store: MemoryKeys) -> None:
        super().__init__(store)
        self.calls = 0
        self.noted = asyncio.Event()

    async def used(self, key_ids: Any) -> None:
        self.calls += 1
        self.noted.set()


class _Away(_Wrapped):
    async def used(self, key_ids: Any) -> None:
        raise StoreUnavailable("away")
