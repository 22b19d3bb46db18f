"""What the commands ask for, wherever the documents are: in a database that this process opens, or
behind the address of a service."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from ragcore.model import (
        Answer,
        ApiKey,
        AuditEntry,
        DeletionReceipt,
        Document,
        Job,
        JobStatus,
        Passage,
        ReadingReport,
        SearchMode,
        SearchResult,
    )
    from ragcore.ports import ObjectResult, SwitchMode


class Intake(Protocol):
    """Takes documents in and returns when they are searchable, or have failed."""

    @property
    def at_once(self) -> int:
        """How many documents are worth working on at once."""
        ...

    async def ingest(
        self,
        source: str,
        *,
        collection: str | None,
        document_id: str | None,
        title: str | None,
        metadata: Mapping[str, Any] | None,
        on_progress: "Callable[[Job], None]",
    ) -> "Sequence[Job]":
        """A file is known by its path: ingested again it replaces what it was."""
        ...

    async def ingest_text(
        self,
        text: str,
        *,
        collection: str | None,
        document_id: str | None,
        title: str | None,
        metadata: Mapping[str, Any] | None,
        on_progress: "Callable[[Job], None]",
    ) -> "Job": ...


class Refreshing(Protocol):
    """Fetches documents of one collection again that came from URLs."""

    async def id_of(self, url: str) -> str:
        """Return the id of the document that came from there. Raises DocumentNotFound."""
        ...

    def all_ids(self) -> AsyncIterator[str]:
        """Yield the ids of all that came from URLs."""
        ...

    async def refresh(self, document_id: str) -> "Job":
        """Fetch one again and return how that ended."""
        ...


class Buckets(Protocol):
    """Ingests buckets that are configured where the documents are."""

    async def ingest(
        self,
        uri: str,
        *,
        collection: str | None,
        metadata: Mapping[str, Any] | None,
        include: Sequence[str],
        exclude: Sequence[str],
        delete_missing: bool,
        max_delete_share: float,
        dry_run: bool,
        on_progress: "Callable[[Job], None]",
    ) -> "Job":
        """Ingest what is new or changed in `s3://bucket/prefix`, and return how that ended."""
        ...

    def objects(self, job: "Job") -> "AsyncIterator[ObjectResult]":
        """Yield what was decided about objects and what became of them, in order of keys."""
        ...


class Library(Protocol):
    """Each method is one command's whole work; what it needs is opened and closed in it.

    A collection that is None is the default one of whoever answers. Errors are those of
    `ragcore.errors`, here and there.
    """

    def intake(self) -> AbstractAsyncContextManager[Intake]: ...

    def refreshing(self, *, collection: str | None) -> AbstractAsyncContextManager[Refreshing]: ...

    def buckets(self) -> AbstractAsyncContextManager[Buckets]: ...

    async def search(
        self,
        question: str,
        *,
        collection: str | None,
        top_k: int | None,
        mode: "SearchMode",
        filters: Mapping[str, Any] | None,
        explain: bool,
    ) -> "SearchResult": ...

    async def ask(
        self,
        question: str,
        *,
        collection: str | None,
        top_k: int | None,
        mode: "SearchMode",
        filters: Mapping[str, Any] | None,
        explain: bool,
        generate: bool,
    ) -> "Answer": ...

    async def documents(
        self,
        *,
        collection: str | None,
        filters: Mapping[str, Any] | None,
        doubtful: bool,
        limit: int,
        after: str | None,
    ) -> "Sequence[Document]": ...

    async def document(
        self, document_id: str, *, collection: str | None, chunks: bool
    ) -> "tuple[Document, ReadingReport | None, Sequence[Passage]]":
        """Return a document, how well it was read, and its chunks where they are asked for."""
        ...

    async def delete_documents(
        self, document_ids: Sequence[str], *, collection: str | None
    ) -> "DeletionReceipt":
        """Ids that don't exist are not in the receipt."""
        ...

    async def collections(self) -> Sequence[Mapping[str, Any]]:
        """Return each collection in plain types, as `--json` prints it."""
        ...

    async def create_collection(
        self, name: str, *, language: str | None, strict: bool
    ) -> Mapping[str, Any]: ...

    async def delete_collection(self, name: str) -> "DeletionReceipt": ...

    async def reindex(
        self,
        name: str,
        *,
        embedding_model: str | None,
        max_tokens: int | None,
        questions: Sequence[str],
        switch: "SwitchMode",
        on_progress: "Callable[[Job], None]",
    ) -> "Job":
        """Move a collection to another model or chunker, and return how that ended."""
        ...

    async def reindex_state(self, name: str) -> Mapping[str, Any]:
        """Return `collection` and the `generations` beside it in plain types."""
        ...

    async def switch_reindex(
        self, name: str, *, accept_loss: bool, on_progress: "Callable[[Job], None]"
    ) -> "Job": ...

    async def roll_back_reindex(self, name: str, *, accept_loss: bool) -> Mapping[str, Any]: ...

    async def discard_reindex(self, name: str) -> Mapping[str, Any]: ...

    async def jobs(
        self,
        *,
        status: "JobStatus | None",
        collection: str | None,
        document_id: str | None,
        limit: int,
        after: UUID | None,
    ) -> "Sequence[Job]": ...

    async def job(self, job_id: UUID) -> "Job": ...

    def follow(self, job_id: UUID) -> "AsyncIterator[Job]":
        """Yield a job as it goes on, the last time when it has ended."""
        ...

    async def cancel(self, job_ids: Sequence[UUID]) -> "Sequence[Job]": ...

    async def retry(self, job_ids: Sequence[UUID]) -> "Sequence[Job]": ...

    async def retry_failed(
        self, *, collection: str | None, code: str | None
    ) -> "Sequence[Job]": ...

    async def keys(self) -> "Sequence[ApiKey]": ...

    async def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str],
        collections: Sequence[str] | None,
        requests_per_minute: int | None,
        expires_at: datetime | None,
    ) -> "tuple[ApiKey, str]":
        """Return the key and its secret."""
        ...

    async def revoke_key(self, key_id: UUID) -> "ApiKey": ...

    async def audit(
        self, *, collections: Sequence[str] | None, action: str | None, limit: int
    ) -> "Sequence[AuditEntry]": ...
