"""What every `ports.Audit` promises."""

from collections.abc import Sequence

from ragcore.model import AuditEntry
from ragcore.ports import Audit

INGEST = AuditEntry(
    "document.ingest",
    "n8n",
    collection="a",
    target="report",
    request_id="r-1",
    details={"bytes": 12, "title": "Отчёт"},
)
DELETE = AuditEntry("document.delete", "anna", collection="b", target="report")
CREATE_KEY = AuditEntry("key.create", "admin", target="some-id")


class AuditContract:
    """Subclass, supply an `audit` fixture, inherit the tests."""

    async def test_what_is_recorded_comes_back_whole(self, audit: Audit) -> None:
        await audit.record([INGEST])
        (entry,) = await audit.entries()
        assert (entry.action, entry.actor, entry.collection) == ("document.ingest", "n8n", "a")
        assert (entry.target, entry.request_id) == ("report", "r-1")
        assert entry.details == {"bytes": 12, "title": "Отчёт"}
        assert entry.at is not None
        assert entry.at.tzinfo is not None

    async def test_the_newest_comes_first(self, audit: Audit) -> None:
        await audit.record([INGEST, DELETE])
        await audit.record([CREATE_KEY])
        assert _actions(await audit.entries()) == [
            "key.create",
            "document.delete",
            "document.ingest",
        ]

    async def test_pages_show_every_entry_once(self, audit: Audit) -> None:
        await audit.record([INGEST, DELETE, CREATE_KEY, DELETE, INGEST])
        seen: list[AuditEntry] = []
        before = None
        while page := await audit.entries(limit=2, before=before):
            seen += page
            before = page[-1].entry_no
        assert _actions(seen) == [
            "document.ingest",
            "document.delete",
            "key.create",
            "document.delete",
            "document.ingest",
        ]

    async def test_entries_can_be_chosen_by_action(self, audit: Audit) -> None:
        await audit.record([INGEST, DELETE])
        assert _actions(await audit.entries(action="document.delete")) == ["document.delete"]

    async def test_who_sees_some_collections_sees_only_entries_about_them(
        self, audit: Audit
    ) -> None:
        await audit.record([INGEST, DELETE, CREATE_KEY])
        assert _actions(await audit.entries(collections={"a"})) == ["document.ingest"]
        assert _actions(await audit.entries(collections=frozenset())) == []

    async def test_nothing_can_be_recorded(self, audit: Audit) -> None:
        await audit.record([])
        assert list(await audit.entries()) == []


def _actions(entries: Sequence[AuditEntry]) -> list[str]:
    return [entry.action for entry in entries]
