"""API keys, and the trail of who changed what."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, Field

from ragcore.model import Scope
from ragcore_api.schemas.values import CollectionName, In, Out, examples

_Scopes = Annotated[
    frozenset[Scope],
    Field(
        min_length=1,
        description="`query` asks and reads, `ingest` takes documents in and out, "
        "`admin` does everything.",
        examples=[["query"]],
    ),
]
_Limit = Annotated[
    int | None,
    Field(
        ge=0,
        lt=2**31,
        description="Requests in a minute; 0: no limit; null: as the settings say.",
    ),
]


class KeyIn(In):
    """A key to be made."""

    model_config = examples({"name": "n8n", "scopes": ["query"], "collections": ["reports"]})

    name: str = Field(
        min_length=1,
        max_length=100,
        description="Who uses it, for the log and the audit trail.",
        examples=["n8n"],
    )
    scopes: _Scopes
    collections: frozenset[CollectionName] | None = Field(
        default=None,
        min_length=1,
        description="The collections it sees, there already or not; null: every one.",
    )
    requests_per_minute: _Limit = None
    expires_at: AwareDatetime | None = Field(
        default=None, description="When it stops by itself; null: never."
    )


class KeyOut(Out):
    """A key as it is stored: its secret can't be read back."""

    model_config = examples(
        {
            "key_id": "7d0c6f5e-2a4b-4f0e-9d55-6a1f5b1d8f10",
            "name": "n8n",
            "scopes": ["query"],
            "collections": ["reports"],
            "requests_per_minute": None,
            "created_at": "2026-03-01T09:00:00Z",
            "expires_at": None,
            "last_used_at": "2026-03-02T17:30:00Z",
            "revoked_at": None,
        }
    )

    key_id: UUID
    name: str
    scopes: frozenset[Scope]
    collections: frozenset[str] | None = Field(description="null: every collection.")
    requests_per_minute: _Limit
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="Exact to a minute or so.")
    revoked_at: datetime | None = Field(description="Since when it is worthless; null: it is good.")


class NewKeyOut(KeyOut):
    """A key just made, with its secret: shown here and never again."""

    model_config = examples(
        {
            "key_id": "7d0c6f5e-2a4b-4f0e-9d55-6a1f5b1d8f10",
            "name": "n8n",
            "scopes": ["query"],
            "collections": ["reports"],
            "requests_per_minute": None,
            "created_at": "2026-03-01T09:00:00Z",
            "expires_at": None,
            "last_used_at": None,
            "revoked_at": None,
            "secret": "rk_8Qm1…",
        }
    )

    secret: str = Field(
        description="Send it as `Authorization: Bearer …` or `X-API-Key: …`.",
        examples=["rk_8Qm1…"],
    )


class KeysOut(Out):
    keys: list[KeyOut]


class AuditEntryOut(Out):
    """One thing that somebody did."""

    model_config = examples(
        {
            "entry_no": 12,
            "at": "2026-03-02T17:30:00Z",
            "action": "document.delete",
            "actor": "n8n",
            "collection": "reports",
            "target": "timetable~5f1d8c02a7b94e13",
            "request_id": "4c1f0f3e6d0b4a43a8f6f0c0f6f1a2b3",
            "details": {},
        }
    )

    entry_no: int
    at: datetime
    action: str = Field(examples=["document.delete"])
    actor: str = Field(description="Name of the key; `loopback` where none is asked for.")
    collection: str | None
    target: str | None = Field(description="Id of the document, key or job.")
    request_id: str | None
    details: dict[str, Any]


class AuditOut(Out):
    entries: list[AuditEntryOut]
    next_cursor: int | None = Field(
        description="`cursor` of the next page; null: this is the last."
    )
