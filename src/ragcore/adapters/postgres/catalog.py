"""Documents, versions and jobs in PostgreSQL: the truth that everything else follows.

Lock order, everywhere: the document's row before its jobs and versions. So a deletion, a late
worker and a new upload of one document take turns and never deadlock.
"""

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from psycopg import AsyncConnection, errors
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres import chunks, sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.filters import document_condition
from ragcore.errors import (
    CollectionNotFound,
    DocumentNotFound,
    IdempotencyConflict,
    JobNotFound,
    LeaseLost,
)
from ragcore.model import (
    DeletionReceipt,
    Document,
    Filter,
    Job,
    JobFailure,
    JobStatus,
    Metadata,
    Outcome,
    ReadingReport,
    Stage,
)
from ragcore.ports import IndexedVersion, Lease, Settled, Submission, Submitted

SQL = sql.load("catalog.sql")

Connection = AsyncConnection[Any]


class PostgresCatalog:
    """`ports.Catalog` over a pool; every method is one transaction."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    # --- submitting ------------------------------------------------------------------------

    async def settle_unchanged(self, submission: Submission) -> Job | None:
        async with self._transaction() as connection:
            if submission.idempotency_key is not None:
                return None  # the key decides first, in `submit`
            return await _settle(connection, submission, job_id=uuid4())

    async def submit(self, submission: Submission) -> Submitted:
        job_id = uuid4()
        async with self._transaction() as connection:
            first = await _first_answer(connection, submission, job_id)
            if first is not None:
                return Submitted(first, needs_blob=False)
            settled = await _settle(connection, submission, job_id=job_id)
            if settled is not None:
                return Submitted(settled, needs_blob=False)
            return Submitted(await _enqueue(connection, submission, job_id), needs_blob=True)

    # --- working ---------------------------------------------------------------------------

    async def claim(
        self, *, owner: str, lease: timedelta, job_id: UUID | None = None
    ) -> Lease | None:
        # Losing an unsynced claim in a crash only leaves the job waiting, so it need not wait
        # for the disk. The same holds for `renew`.
        async with self._transaction(durable=False) as connection:
            row = await _one(
                connection, "claim", {"owner": owner, "lease": lease, "job_id": job_id}
            )
        if row is None:
            return None
        return Lease(
            job=_job(row),
            token=row["lease_token"],
            version_id=row["version_id"],
            document_no=row["document_no"],
            sequence=row["sequence"],
            filename=row["filename"],
            mime_type=row["mime_type"],
        )

    async def renew(
        self, lease: Lease, *, duration: timedelta, stage: Stage | None, progress: float
    ) -> None:
        async with self._transaction(durable=False) as connection:
            await _fenced(
                connection,
                "renew",
                lease,
                {"duration": duration, "stage": stage, "progress": progress},
            )

    async def settle_repeated(self, lease: Lease) -> Settled | None:
        async with self._transaction() as connection:
            current = await _lock_document(connection, lease)
            outcome = await _outcome_without_work(connection, lease, current)
            if outcome is None:
                return None
            return await _drop_version(connection, lease, outcome, current)

    async def put_in_place(self, lease: Lease, version: IndexedVersion) -> Settled:
        async with self._transaction() as connection:
            current = await _lock_document(connection, lease)
            if current["sequence"] is not None and current["sequence"] > lease.sequence:
                return await _drop_version(connection, lease, "superseded", current)
            outcome: Outcome = "created" if current["version_id"] is None else "updated"
            # First the fence, then the writing: a worker that lost its lease stops here.
            await _finish(
                connection,
                lease,
                outcome,
                {
                    "chunks": len(version.chunks),
                    "pages": version.report.pages,
                    "language": version.language,
                },
                timings_ms=version.timings_ms,
                warnings=version.warnings,
            )
            await chunks.delete_document_chunks(connection, lease.job.collection, lease.document_no)
            await chunks.copy_chunks(
                connection,
                lease.job.collection,
                document_no=lease.document_no,
                document_id=lease.job.document_id,
                chunks=version.chunks,
                vectors=version.vectors,
            )
            await _promote(connection, lease, version, replaced=current["version_id"])
            older = await _all(
                connection,
                "supersede_older",
                {"document_no": lease.document_no, "sequence": lease.sequence},
            )
            retired = {current["version_id"], *(row["version_id"] for row in older)} - {None}
            return Settled(outcome, tuple(retired))

    async def fail(self, lease: Lease, failure: JobFailure) -> None:
        async with self._transaction() as connection:
            await _fenced(connection, "fail", lease, {"error": Jsonb(asdict(failure))})
            await connection.execute(
                SQL["retire_version"], {"version_id": lease.version_id, "state": "failed"}
            )

    async def retry(self, lease: Lease, failure: JobFailure, *, after: timedelta) -> None:
        async with self._transaction() as connection:
            await _fenced(
                connection, "retry", lease, {"error": Jsonb(asdict(failure)), "after": after}
            )

    async def cancel(self, job_id: UUID) -> Job:
        async with self._transaction() as connection:
            await connection.execute(SQL["cancel"], {"job_id": job_id})
            row = await _one(connection, "job", {"job_id": job_id})
        if row is None:
            raise JobNotFound(f"there is no job {str(job_id)!r}")
        return _job(row)

    async def release_expired(self) -> Sequence[Job]:
        async with self._transaction() as connection:
            return [_job(row) for row in await _all(connection, "release_expired", {})]

    async def waiting(self, *, limit: int = 100) -> Sequence[Job]:
        async with self._transaction() as connection:
            return [_job(row) for row in await _all(connection, "waiting", {"limit": limit})]

    # --- reading ---------------------------------------------------------------------------

    async def job(self, job_id: UUID) -> Job:
        async with self._transaction() as connection:
            row = await _one(connection, "job", {"job_id": job_id})
        if row is None:
            raise JobNotFound(f"there is no job {str(job_id)!r}")
        return _job(row)

    async def jobs(
        self,
        *,
        collection: str | None = None,
        document_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 50,
    ) -> Sequence[Job]:
        wanted = {
            "collection": collection,
            "document_id": document_id,
            "status": status,
            "limit": limit,
        }
        async with self._transaction() as connection:
            return [_job(row) for row in await _all(connection, "jobs", wanted)]

    async def document(self, collection: str, document_id: str) -> Document:
        async with self._transaction() as connection:
            row = await _one(
                connection, "document", {"collection": collection, "document_id": document_id}
            )
        if row is None:
            raise _document_not_found(collection, document_id)
        return _document(row)

    async def documents(
        self,
        collection: str,
        *,
        filters: Filter | None = None,
        doubtful: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Sequence[Document]:
        condition, parameters = _document_filter(filters)
        wanted = {
            "collection": collection,
            "doubtful": doubtful,
            "limit": limit,
            "after": after,
            **parameters,
        }
        query = SQL["documents"].replace("{filter}", condition)
        async with self._transaction() as connection:
            return [_document(row) for row in await _rows(connection, query, wanted)]

    async def reading_report(self, collection: str, document_id: str) -> ReadingReport:
        async with self._transaction() as connection:
            row = await _one(
                connection, "reading_report", {"collection": collection, "document_id": document_id}
            )
        if row is None:
            raise _document_not_found(collection, document_id)
        report = dict(row["report"])
        for name in ("pages_without_text", "ocr_pages", "warnings"):
            report[name] = tuple(report[name])
        return ReadingReport(**report)

    # --- changing and forgetting -----------------------------------------------------------

    async def update_document(
        self,
        collection: str,
        document_id: str,
        *,
        title: str | None = None,
        metadata: Metadata | None = None,
    ) -> Document:
        wanted = {"collection": collection, "document_id": document_id}
        changed = {"title": title, "metadata": _jsonb(metadata)}
        async with self._transaction() as connection:
            if await _one(connection, "update_document", wanted | changed) is None:
                raise _document_not_found(collection, document_id)
            row = await _one(connection, "document", wanted)
        assert row is not None  # locked by the update above
        return _document(row)

    async def forget(self, collection: str, document_ids: Sequence[str]) -> DeletionReceipt:
        wanted = {"collection": collection, "document_ids": list(document_ids)}
        async with self._transaction() as connection:
            found = await _all(connection, "lock_documents", wanted)
            numbers = [row["document_no"] for row in found]
            ids = [row["document_id"] for row in found]
            removed = await chunks.delete_nodes_of(connection, collection, ids) if ids else 0
            for number in numbers:
                removed += await chunks.delete_document_chunks(connection, collection, number)
            await connection.execute(SQL["cancel_jobs_of"], {"document_nos": numbers})
            versions = await connection.execute(SQL["delete_versions"], {"document_nos": numbers})
            await connection.execute(SQL["delete_documents"], {"document_nos": numbers})
        return DeletionReceipt(
            collection=collection,
            document_ids=tuple(ids),
            chunks=removed,
            versions=versions.rowcount,
            blobs=0,
        )

    async def version_ids(self, collection: str, document_ids: Sequence[str]) -> Sequence[UUID]:
        wanted = {"collection": collection, "document_ids": list(document_ids)}
        async with self._transaction() as connection:
            return [row["version_id"] for row in await _all(connection, "versions_of", wanted)]

    async def are_live(self, version_ids: Sequence[UUID]) -> Set[UUID]:
        wanted = {"version_ids": list(version_ids)}
        async with self._transaction() as connection:
            return {row["version_id"] for row in await _all(connection, "live_versions", wanted)}

    @asynccontextmanager
    async def _transaction(self, *, durable: bool = True) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                if not durable:
                    await connection.execute("SET LOCAL synchronous_commit = off")
                yield connection


# --- the parts of a transaction ------------------------------------------------------------


async def _first_answer(connection: Connection, submission: Submission, job_id: UUID) -> Job | None:
    """Return the job that the same idempotency key made before; None when it is new."""
    if submission.idempotency_key is None:
        return None
    key = {
        "scope": submission.idempotency_scope,
        "key": submission.idempotency_key,
        "body_hash": submission.body_hash or submission.sha256,
        "job_id": job_id,
    }
    row = await _one(connection, "idempotent_job", key)
    assert row is not None  # the statement returns the row it wrote or met
    if row["job_id"] == job_id:
        return None
    if bytes(row["body_hash"]) != key["body_hash"]:
        raise IdempotencyConflict(
            f"the idempotency key {submission.idempotency_key!r} was used with another body; "
            "use a new key for a new request"
        )
    first = await _one(connection, "job", {"job_id": row["job_id"]})
    if first is None:
        raise JobNotFound(f"the job of idempotency key {submission.idempotency_key!r} is deleted")
    return _job(first)


async def _settle(connection: Connection, submission: Submission, *, job_id: UUID) -> Job | None:
    """Record a finished job when the newest version has these bytes; None when there is work."""
    wanted = {"collection": submission.collection, "document_id": submission.document_id}
    current = await _one(connection, "current_version", wanted)
    if current is None or not _is_repeat(current, submission.sha256, submission.fingerprint):
        return None
    if current["last_sequence"] != current["sequence"]:
        return None  # other bytes are on their way: these are newer than those
    described = {
        "title": submission.title,
        "uri": submission.uri,
        "metadata": submission.metadata,
    }
    changed = _describes_anew(current, described)
    if changed:
        values = described | {
            "metadata": _jsonb(submission.metadata),
            "document_no": current["document_no"],
        }
        await connection.execute(SQL["redescribe_document"], values)
    row = await _one(
        connection,
        "insert_settled_job",
        wanted
        | {
            "job_id": job_id,
            "document_no": current["document_no"],
            "version_id": current["version_id"],
            "priority": submission.priority,
            "outcome": "updated" if changed else "unchanged",
            "chunks": current["chunks"],
            "pages": current["pages"],
            "language": current["language"],
        },
    )
    assert row is not None
    return _job(row)


async def _enqueue(connection: Connection, submission: Submission, job_id: UUID) -> Job:
    document = {
        "collection": submission.collection,
        "document_id": submission.document_id,
        "uri": submission.uri,
    }
    try:
        row = await _one(connection, "upsert_document", document)
    except errors.ForeignKeyViolation as error:
        raise CollectionNotFound(f"there is no collection {submission.collection!r}") from error
    assert row is not None
    version = {
        "version_id": submission.version_id,
        "document_no": row["document_no"],
        "sequence": row["last_sequence"],
        "sha256": submission.sha256,
        "size_bytes": submission.size_bytes,
        "filename": submission.filename,
        "mime_type": submission.mime_type,
        "fingerprint": submission.fingerprint,
        "title": submission.title,
        "uri": submission.uri,
        "metadata": _jsonb(submission.metadata),
    }
    await connection.execute(SQL["insert_version"], version)
    job = await _one(
        connection,
        "insert_job",
        document
        | {
            "job_id": job_id,
            "document_no": row["document_no"],
            "version_id": submission.version_id,
            "priority": submission.priority,
        },
    )
    assert job is not None
    return _job(job)


async def _lock_document(connection: Connection, lease: Lease) -> DictRow:
    row = await _one(connection, "lock_document", {"document_no": lease.document_no})
    if row is None:
        raise LeaseLost(f"document {lease.job.document_id!r} was deleted while it was worked on")
    return row


async def _outcome_without_work(
    connection: Connection, lease: Lease, current: Mapping[str, Any]
) -> Outcome | None:
    """Tell how a job ends whose bytes are in place already, or too old to matter."""
    if current["sequence"] is None:
        return None
    if current["sequence"] > lease.sequence:
        return "superseded"
    mine = await _one(connection, "version_of_lease", {"version_id": lease.version_id})
    assert mine is not None  # versions live as long as their document, which is locked
    if not _is_repeat(current, bytes(mine["sha256"]), mine["fingerprint"]):
        return None
    if not _describes_anew(current, mine):
        return "unchanged"
    await connection.execute(
        SQL["redescribe_document"],
        {
            "title": mine["title"],
            "uri": mine["uri"],
            "metadata": _jsonb(mine["metadata"]),
            "document_no": lease.document_no,
        },
    )
    return "updated"


async def _drop_version(
    connection: Connection, lease: Lease, outcome: Outcome, current: Mapping[str, Any]
) -> Settled:
    """Finish a job whose version is not needed."""
    await _finish(connection, lease, outcome, current)
    state = {"version_id": lease.version_id, "state": "superseded"}
    await connection.execute(SQL["retire_version"], state)
    return Settled(outcome, (lease.version_id,))


async def _finish(
    connection: Connection,
    lease: Lease,
    outcome: Outcome,
    result: Mapping[str, Any],
    *,
    timings_ms: Mapping[str, float] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    await _fenced(
        connection,
        "finish",
        lease,
        {
            "outcome": outcome,
            "chunks": result["chunks"],
            "pages": result["pages"],
            "language": result["language"],
            "timings_ms": Jsonb(dict(timings_ms or {})),
            "warnings": Jsonb(list(warnings)),
        },
    )


async def _promote(
    connection: Connection, lease: Lease, version: IndexedVersion, *, replaced: UUID | None
) -> None:
    given = await _one(connection, "version_of_lease", {"version_id": lease.version_id})
    assert given is not None
    if replaced is not None:
        await connection.execute(
            SQL["retire_version"], {"version_id": replaced, "state": "replaced"}
        )
    await connection.execute(
        SQL["promote_version"],
        {
            "version_id": lease.version_id,
            "chunks": len(version.chunks),
            "pages": version.report.pages,
            "language": version.language,
            "report": Jsonb(asdict(version.report)),
            "fingerprint": version.fingerprint,
            "mime_type": version.report.mime_type,
        },
    )
    await connection.execute(
        SQL["promote_document"],
        {
            "document_no": lease.document_no,
            "version_id": lease.version_id,
            "title": given["title"] or version.title,
            "uri": given["uri"],
            "metadata": _jsonb(given["metadata"]),
            "mime_type": version.report.mime_type,
            "language": version.language,
            "extracted": _jsonb(version.extracted),
        },
    )


async def _fenced(
    connection: Connection, name: str, lease: Lease, values: Mapping[str, Any]
) -> None:
    """Change the job only while the lease is ours; otherwise raise, which rolls back."""
    fence = {"job_id": lease.job.job_id, "token": lease.token}
    cursor = await connection.execute(SQL[name], fence | dict(values))
    if cursor.rowcount != 1:
        raise LeaseLost(
            f"job {str(lease.job.job_id)!r} was cancelled or taken over by another worker"
        )


async def _one(connection: Connection, name: str, values: Mapping[str, Any]) -> DictRow | None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL[name], values)
        return await cursor.fetchone()


async def _all(connection: Connection, name: str, values: Mapping[str, Any]) -> list[DictRow]:
    return await _rows(connection, SQL[name], values)


async def _rows(connection: Connection, query: str, values: Mapping[str, Any]) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


# --- rows to values ------------------------------------------------------------------------


def _is_repeat(current: Mapping[str, Any], sha256: bytes, fingerprint: str) -> bool:
    return bytes(current["sha256"]) == sha256 and current["fingerprint"] == fingerprint


def _describes_anew(current: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    """Whether what is given of title, uri and metadata differs from what the document has."""
    return any(
        given[name] is not None and given[name] != current[name]
        for name in ("title", "uri", "metadata")
    )


def _document_filter(filter_: Filter | None) -> tuple[str, Mapping[str, Any]]:
    if filter_ is None:
        return "true", {}
    return document_condition(filter_)


def _jsonb(value: Metadata | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))


def _job(row: Mapping[str, Any]) -> Job:
    error = row["error"]
    return Job(
        job_id=row["job_id"],
        collection=row["collection"],
        document_id=row["document_id"],
        status=row["status"],
        stage=row["stage"],
        progress=row["progress"],
        outcome=row["outcome"],
        error=JobFailure(**error) if error else None,
        attempts=row["attempts"],
        chunks=row["chunks"],
        pages=row["pages"],
        language=row["language"],
        timings_ms=row["timings_ms"],
        warnings=tuple(row["warnings"]),
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
    )


def _document(row: Mapping[str, Any]) -> Document:
    return Document(
        collection=row["collection"],
        document_id=row["document_id"],
        title=row["title"],
        uri=row["uri"],
        mime_type=row["mime_type"],
        language=row["language"],
        metadata=row["metadata"],
        extracted=row["extracted"],
        version_id=row["version_id"],
        chunks=row["chunks"],
        pages=row["pages"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _document_not_found(collection: str, document_id: str) -> DocumentNotFound:
    return DocumentNotFound(
        f"there is no document {document_id!r} in collection {collection!r}; "
        "`ragcore docs list` shows those there are"
    )
