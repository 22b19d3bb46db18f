"""Documents, versions and jobs in PostgreSQL: the truth that everything else follows.

Lock order, everywhere: the collection's generations (generations.py), its row, then documents' rows
in the order of their ids (by code point), then their jobs, then their versions. So deletions, late
workers and new uploads of one document, or of many, take turns and never deadlock.
"""

from collections.abc import AsyncIterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final, get_args
from uuid import UUID, uuid4

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from ragcore.adapters.postgres import chunks, generations, sql
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.filters import document_condition
from ragcore.errors import (
    CollectionNotFound,
    DocumentNotFound,
    IdempotencyConflict,
    JobNotFound,
    LeaseLost,
    NotRetryable,
)
from ragcore.model import (
    BucketObject,
    DeletionReceipt,
    Document,
    Filter,
    Job,
    JobFailure,
    JobStatus,
    Metadata,
    Outcome,
    PageMarks,
    QueueState,
    ReadingReport,
    Stage,
    Version,
)
from ragcore.ports import (
    DocumentLease,
    Idempotency,
    IndexedVersion,
    KnownPage,
    Lease,
    Settled,
    Submission,
    Submitted,
)

SQL = sql.load("catalog.sql")

Connection = AsyncConnection[Any]

_JOB_CONDITIONS: Final = {
    "collections": "collection = ANY(%(collections)s)",
    "document_id": "document_id = %(document_id)s",
    "status": "status = %(status)s",
    "after": "created_at <= %(after_at)s AND (created_at < %(after_at)s OR job_id > %(after)s)",
}


class PostgresCatalog:
    """`ports.Catalog` over a pool; every method is one transaction."""

    def __init__(self, pool: AsyncConnectionPool[Any]) -> None:
        self._pool = pool

    # --- submitting ------------------------------------------------------------------------

    async def settle_unchanged(self, submission: Submission) -> Job | None:
        async with self._transaction() as connection:
            return await _settle(connection, submission, job_id=uuid4())

    async def submit(
        self, submission: Submission, *, idempotency: Idempotency | None = None
    ) -> Submitted:
        (submitted,) = await self.submit_all([submission], idempotency=idempotency)
        return submitted

    async def submit_all(
        self, submissions: Sequence[Submission], *, idempotency: Idempotency | None = None
    ) -> Sequence[Submitted]:
        job_ids = [uuid4() for _ in submissions]
        async with self._transaction() as connection:
            first = await _first_answer(connection, idempotency, job_ids)
            if first:
                return [Submitted(job, needs_blob=False) for job in first]
            await hold_collections(connection, {each.collection for each in submissions})
            submitted: dict[int, Submitted] = {}
            for place in _in_lock_order(submissions):
                submitted[place] = await _submit(
                    connection, submissions[place], job_id=job_ids[place], place=place
                )
            return [submitted[place] for place in range(len(submissions))]

    # --- working ---------------------------------------------------------------------------

    async def claim(
        self,
        *,
        owner: str,
        lease: timedelta,
        job_id: UUID | None = None,
        parent_id: UUID | None = None,
        at_most_bytes: int | None = None,
    ) -> DocumentLease | None:
        # Losing an unsynced claim in a crash only leaves the job waiting, so it need not wait
        # for the disk. The same holds for `renew`.
        async with self._transaction(durable=False) as connection:
            row = await _one(
                connection,
                "claim",
                {
                    "owner": owner,
                    "lease": lease,
                    "job_id": job_id,
                    "parent_id": parent_id,
                    "at_most_bytes": at_most_bytes,
                },
            )
        if row is None:
            return None
        return DocumentLease(
            job=job_of(row),
            token=row["lease_token"],
            version_id=row["version_id"],
            document_no=row["document_no"],
            sequence=row["sequence"],
            filename=row["filename"],
            mime_type=row["mime_type"],
            crashes=row["crashes"],
            request_id=row["request_id"],
            source=source_of(row),
        )

    async def renew(
        self, lease: Lease, *, duration: timedelta, stage: Stage | None, progress: float
    ) -> None:
        async with self._transaction(durable=False) as connection:
            await fenced(
                connection,
                SQL["renew"],
                lease,
                {"duration": duration, "stage": stage, "progress": progress},
            )

    async def settle_repeated(self, lease: DocumentLease) -> Settled | None:
        async with self._transaction() as connection:
            current = await _lock_document(connection, lease)
            await fenced(connection, SQL["hold"], lease, {})
            outcome = await _outcome_without_work(connection, lease, current)
            if outcome is None:
                return None
            settled = await _drop_version(connection, lease, outcome, current)
            if outcome == "superseded":
                return settled
            older = await _supersede_older(connection, lease)
            await _exchange_sequences(connection, lease, current)
            return Settled(outcome, (*settled.retired, *older))

    async def put_in_place(self, lease: DocumentLease, version: IndexedVersion) -> Settled:
        async with self._transaction() as connection:
            tables = await generations.hold(connection, lease.job.collection)
            current = await _lock_document(connection, lease)
            if current["sequence"] is not None and current["sequence"] > lease.sequence:
                return await _drop_version(connection, lease, "superseded", current)
            assert tables.live is not None  # a collection lives longer than its documents
            version = version.for_generation(tables.live.generation)
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
            await chunks.replace_document(
                connection,
                tables,
                document_no=lease.document_no,
                document_id=lease.job.document_id,
                version_id=lease.version_id,
                version=version,
            )
            await _promote(connection, lease, version, current)
            older = await _supersede_older(connection, lease)
            retired = {current["version_id"], *older} - {None}
            return Settled(outcome, tuple(retired))

    async def fail(self, lease: Lease, failure: JobFailure) -> None:
        async with self._transaction() as connection:
            await fenced(connection, SQL["fail"], lease, {"error": Jsonb(asdict(failure))})
            await connection.execute(SQL["fail_version_of"], {"job_id": lease.job.job_id})

    async def retry(self, lease: Lease, failure: JobFailure, *, after: timedelta) -> None:
        async with self._transaction() as connection:
            await fenced(
                connection, SQL["retry"], lease, {"error": Jsonb(asdict(failure)), "after": after}
            )

    async def give_back(self, lease: Lease) -> None:
        async with self._transaction() as connection:
            await fenced(connection, SQL["give_back"], lease, {})

    async def survived(self, lease: Lease) -> None:
        async with self._transaction() as connection:
            await connection.execute(SQL["survived"], {"job_id": lease.job.job_id})

    async def cancel(self, job_id: UUID) -> Job:
        async with self._transaction() as connection:
            shadow = await _shadow_of(connection, job_id)
            await connection.execute(SQL["cancel"], {"job_id": job_id})
            cancelled = job_of(await _existing_job(connection, job_id))
            if shadow is not None and cancelled.status == "cancelled":
                await generations.drop(connection, shadow)
            if cancelled.kind == "bucket" and cancelled.status == "cancelled":
                await connection.execute(SQL["cancel_children"], {"job_id": job_id})
            return cancelled

    async def run_again(self, job_id: UUID) -> Job:
        async with self._transaction() as connection:
            again = await _run_again(connection, [job_id], ("failed", "cancelled"))
            if not again:
                raise _not_retryable(job_of(await _existing_job(connection, job_id)))
            return again[0]

    async def run_failed_again(
        self,
        *,
        collections: Set[str] | None = None,
        document_id: str | None = None,
        code: str | None = None,
        limit: int = 1000,
    ) -> Sequence[Job]:
        wanted = {
            "collections": None if collections is None else list(collections),
            "document_id": document_id,
            "code": code,
            "limit": limit,
        }
        async with self._transaction() as connection:
            found = [row["job_id"] for row in await _all(connection, "failed_jobs", wanted)]
            return await _run_again(connection, found, ("failed",))

    async def release_expired(self, *, pause: timedelta = timedelta()) -> Sequence[Job]:
        async with self._transaction() as connection:
            rows = await _all(connection, "release_expired", {"pause": pause})
            return [job_of(row) for row in rows]

    async def waiting(self, *, limit: int = 100) -> Sequence[Job]:
        async with self._transaction() as connection:
            return [job_of(row) for row in await _all(connection, "waiting", {"limit": limit})]

    # --- reading ---------------------------------------------------------------------------

    async def job(self, job_id: UUID) -> Job:
        async with self._transaction() as connection:
            return job_of(await _existing_job(connection, job_id))

    async def jobs_by_id(self, job_ids: Sequence[UUID]) -> Sequence[Job]:
        wanted = {"job_ids": list(job_ids)}
        async with self._transaction() as connection:
            return [job_of(row) for row in await _all(connection, "jobs_by_id", wanted)]

    async def jobs(
        self,
        *,
        collections: Set[str] | None = None,
        document_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 50,
        after: UUID | None = None,
    ) -> Sequence[Job]:
        wanted: dict[str, Any] = {
            "collections": None if collections is None else sorted(collections),
            "document_id": document_id,
            "status": status,
        }
        asked = [_JOB_CONDITIONS[name] for name, value in wanted.items() if value is not None]
        async with self._transaction() as connection:
            if after is not None:
                asked.append(_JOB_CONDITIONS["after"])
                last = await _existing_job(connection, after)
                wanted |= {"after": after, "after_at": last["created_at"]}
            query = SQL["jobs"].replace("{condition}", " AND ".join(asked) or "true")
            return [
                job_of(row) for row in await _rows(connection, query, wanted | {"limit": limit})
            ]

    async def queue_state(self) -> QueueState:
        async with self._transaction() as connection:
            rows = await _all(connection, "queue_state", {})
        counted = {row["status"]: row["jobs"] for row in rows}
        return QueueState(
            jobs={status: counted.get(status, 0) for status in get_args(JobStatus)},
            oldest_waiting_seconds=rows[0]["oldest"] if rows else 0.0,
        )

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

    async def document_by_uri(self, collection: str, uri: str) -> Document:
        async with self._transaction() as connection:
            row = await _one(connection, "document_by_uri", {"collection": collection, "uri": uri})
        if row is None:
            raise DocumentNotFound(f"no document in collection {collection!r} came from {uri!r}")
        return _document(row)

    async def page(self, collection: str, document_id: str) -> KnownPage | None:
        wanted = {"collection": collection, "document_id": document_id}
        async with self._transaction() as connection:
            row = await _one(connection, "page", wanted)
        return None if row is None else _page(row)

    async def versions(self, collection: str, document_id: str) -> Sequence[Version]:
        wanted = {"collection": collection, "document_id": document_id}
        async with self._transaction() as connection:
            rows = await _all(connection, "versions", wanted)
        if not rows:
            raise _document_not_found(collection, document_id)
        return [_version(row) for row in rows if row["version_id"] is not None]

    async def matching(
        self, collection: str, filters: Filter, *, limit: int = 1000, after: str | None = None
    ) -> Sequence[str]:
        condition, parameters = _document_filter(filters)
        wanted = {"collection": collection, "limit": limit, "after": after, **parameters}
        query = SQL["matching"].replace("{filter}", condition)
        async with self._transaction() as connection:
            return [row["document_id"] for row in await _rows(connection, query, wanted)]

    async def expired(self, *, limit: int = 100) -> Sequence[tuple[str, str]]:
        query = _of_expired("expired")
        async with self._transaction() as connection:
            rows = await _rows(connection, query, {"limit": limit})
        return [(row["collection"], row["document_id"]) for row in rows]

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
        expires_at: datetime | None = None,
        never_expires: bool = False,
    ) -> Document:
        wanted = {"collection": collection, "document_id": document_id}
        changed = {
            "title": title,
            "metadata": _jsonb(metadata),
            "expires_at": expires_at,
            "never_expires": never_expires,
        }
        async with self._transaction() as connection:
            if await _one(connection, "update_document", wanted | changed) is None:
                raise _document_not_found(collection, document_id)
            row = await _one(connection, "document", wanted)
        assert row is not None  # locked by the update above
        return _document(row)

    async def forget(
        self,
        collection: str,
        document_ids: Sequence[str],
        *,
        only_expired: bool = False,
        unless_after: Mapping[str, int] | None = None,
        actor: str | None = None,
    ) -> tuple[DeletionReceipt, Sequence[UUID]]:
        wanted = {"collection": collection, "document_ids": list(document_ids)}
        async with self._transaction() as connection:
            tables = await generations.hold(connection, collection)
            found = await _all(connection, "lock_documents", wanted)
            if only_expired:
                found = await _still_expired(connection, found)
            if unless_after is not None:
                found = [
                    row
                    for row in found
                    if row["last_sequence"] <= unless_after.get(row["document_id"], 0)
                ]
            numbers = [row["document_no"] for row in found]
            ids = [row["document_id"] for row in found]
            if not found:
                return DeletionReceipt(collection, (), chunks=0, versions=0, blobs=0), ()
            removed = await chunks.delete_documents(
                connection, tables, document_nos=numbers, ids=ids
            )
            await connection.execute(SQL["cancel_jobs_of"], {"document_nos": numbers})
            versions = await _all(connection, "delete_versions", {"document_nos": numbers})
            await connection.execute(SQL["delete_documents"], {"document_nos": numbers})
            if actor is not None:
                told = {"actor": actor, "collection": collection, "document_ids": ids}
                await connection.execute(SQL["record_deletions"], told)
        receipt = DeletionReceipt(
            collection=collection,
            document_ids=tuple(ids),
            chunks=removed,
            versions=len(versions),
            blobs=0,
        )
        return receipt, tuple(row["version_id"] for row in versions)

    async def to_forget(self, collection: str, document_ids: Sequence[str]) -> DeletionReceipt:
        wanted = {"collection": collection, "document_ids": list(document_ids)}
        async with self._transaction() as connection:
            rows = await _all(connection, "to_forget", wanted)
        return DeletionReceipt(
            collection=collection,
            document_ids=tuple(row["document_id"] for row in rows),
            chunks=sum(row["chunks"] for row in rows),
            versions=sum(row["versions"] for row in rows),
            blobs=0,
        )

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


async def _first_answer(
    connection: Connection, idempotency: Idempotency | None, job_ids: Sequence[UUID]
) -> Sequence[Job]:
    """Return the jobs that the same idempotency key made before; none when it is new."""
    if idempotency is None:
        return ()
    key = {
        "scope": idempotency.scope,
        "key": idempotency.key,
        "body_hash": idempotency.body_hash,
        "job_ids": list(job_ids),
    }
    row = await _one(connection, "idempotent_jobs", key)
    assert row is not None  # the statement returns the row it wrote or met
    if row["job_ids"] == key["job_ids"]:
        return ()
    first = {
        found["job_id"]: job_of(found)
        for found in await _all(connection, "jobs_by_id", {"job_ids": row["job_ids"]})
    }
    if len(first) < len(row["job_ids"]):  # too old to be kept: so is what the key stood for
        await connection.execute(SQL["use_key_anew"], key)
        return ()
    if bytes(row["body_hash"]) != idempotency.body_hash:
        raise IdempotencyConflict(
            f"the idempotency key {idempotency.key!r} was used with another body; "
            "use a new key for a new request"
        )
    return [first[job_id] for job_id in row["job_ids"]]


async def hold_collections(connection: Connection, names: Set[str]) -> None:
    """Keep collections from being deleted for now. Raises CollectionNotFound."""
    rows = await _all(connection, "hold_collections", {"names": list(names)})
    if missing := names - {row["name"] for row in rows}:
        raise CollectionNotFound(f"there is no collection {min(missing)!r}")


def _in_lock_order(submissions: Sequence[Submission]) -> Sequence[int]:
    """Return the places of the submissions; those of one document stay in order."""
    ids = [(submission.collection, submission.document_id) for submission in submissions]
    return sorted(range(len(ids)), key=ids.__getitem__)


async def _submit(
    connection: Connection, submission: Submission, *, job_id: UUID, place: int
) -> Submitted:
    settled = await _settle(connection, submission, job_id=job_id, place=place)
    if settled is not None:
        return Submitted(settled, needs_blob=False)
    queued = await enqueue(connection, submission, job_id=job_id, place=place)
    return Submitted(queued, needs_blob=True)


async def _settle(
    connection: Connection, submission: Submission, *, job_id: UUID, place: int = 0
) -> Job | None:
    """Record a finished job when the newest version has these bytes; None when there is work.

    Leaves the document locked, if there is one.
    """
    wanted = {"collection": submission.collection, "document_id": submission.document_id}
    await connection.execute(SQL["lock_submitted"], wanted)
    current = await _one(connection, "current_version", wanted)
    if current is None or not _is_repeat(current, submission.sha256, submission.fingerprint):
        return None
    if current["last_sequence"] != current["sequence"]:
        return None  # other bytes are on their way: these are newer than those
    given = {
        "title": submission.title,
        "uri": submission.uri,
        "metadata": submission.metadata,
        "expires_at": submission.expires_at,
        "sent_at": current["sent_at"],
    }
    changed = await _redescribe(connection, current, given)
    if submission.marks is not None:
        await _mark(connection, current, marks=asdict(submission.marks))
    result = {
        "outcome": "updated" if changed else "unchanged",
        "chunks": current["chunks"],
        "pages": current["pages"],
        "language": current["language"],
    }
    whose = {"document_no": current["document_no"], "version_id": current["version_id"]}
    return await _insert_job(
        connection,
        "insert_settled_job",
        submission,
        {"job_id": job_id, "place": place} | whose | result,
    )


async def _redescribe(
    connection: Connection, current: Mapping[str, Any], given: Mapping[str, Any]
) -> bool:
    """Put what is given of title, uri, metadata and expiry on the document; tell if it was news."""
    expires_at = _expiry(current, given)
    described = {name: given[name] for name in ("title", "uri", "metadata")}
    is_news = expires_at != current["expires_at"] or any(
        value is not None and value != current[name] for name, value in described.items()
    )
    if is_news:
        values = described | {
            "metadata": _jsonb(given["metadata"]),
            "expires_at": expires_at,
            "document_no": current["document_no"],
        }
        await connection.execute(SQL["redescribe_document"], values)
    return is_news


async def enqueue(
    connection: Connection, submission: Submission, *, job_id: UUID, place: int = 0
) -> Job:
    """Record a version and its queued job, whatever is in place; in the caller's transaction."""
    document = {
        "collection": submission.collection,
        "document_id": submission.document_id,
        "uri": submission.uri,
        "expires_at": submission.expires_at,
    }
    row = await _one(connection, "upsert_document", document)
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
        "expires_at": submission.expires_at,
        "source": None if submission.source is None else Jsonb(asdict(submission.source)),
        "marks": None if submission.marks is None else Jsonb(asdict(submission.marks)),
    }
    await connection.execute(SQL["insert_version"], version)
    if submission.source is not None:
        source = {
            "document_no": row["document_no"],
            "collection": submission.collection,
            "bucket": submission.source.bucket,
            "key": submission.source.key,
        }
        await connection.execute(SQL["insert_source"], source)
    whose = {"document_no": row["document_no"], "version_id": submission.version_id}
    return await _insert_job(
        connection, "insert_job", submission, {"job_id": job_id, "place": place} | whose
    )


async def _insert_job(
    connection: Connection, name: str, submission: Submission, values: Mapping[str, Any]
) -> Job:
    """Record a job together with the callback it owes."""
    said = {
        "collection": submission.collection,
        "document_id": submission.document_id,
        "priority": submission.priority,
        "submitted_by": submission.submitted_by,
        "request_id": submission.request_id,
        "parent_id": submission.parent_id,
    }
    row = await _one(connection, name, said | dict(values))
    assert row is not None
    if submission.callback_url is not None:
        callback = {"job_id": row["job_id"], "url": submission.callback_url}
        await connection.execute(SQL["insert_callback"], callback)
    return job_of(row)


async def _existing_job(connection: Connection, job_id: UUID) -> DictRow:
    row = await _one(connection, "job", {"job_id": job_id})
    if row is None:
        raise JobNotFound(f"there is no job {str(job_id)!r}")
    return row


async def _shadow_of(connection: Connection, job_id: UUID) -> generations.Table | None:
    """Return the table that a reindex fills, with its collection taken; None for other jobs."""
    job = await _existing_job(connection, job_id)
    if job["kind"] != "reindex":
        return None
    shadow = (await generations.take(connection, job["collection"])).shadow
    return shadow if shadow is not None and shadow.job_id == job_id else None


async def _run_again(
    connection: Connection, job_ids: Sequence[UUID], statuses: Sequence[JobStatus]
) -> Sequence[Job]:
    """Queue those of the jobs that are in such a state and still have their files."""
    wanted = {"job_ids": list(job_ids), "statuses": list(statuses)}
    await connection.execute(SQL["lock_documents_of_jobs"], wanted)
    changed = [
        job_of(row)
        for name in ("run_again_superseded", "run_again")
        for row in await _all(connection, name, wanted)
    ]
    await connection.execute(
        SQL["owe_callbacks_again"], {"job_ids": [job.job_id for job in changed]}
    )
    order = {job_id: place for place, job_id in enumerate(job_ids)}
    return sorted(changed, key=lambda job: order[job.job_id])


async def _still_expired(connection: Connection, locked: Sequence[DictRow]) -> list[DictRow]:
    numbers = {"document_nos": [row["document_no"] for row in locked]}
    rows = await _rows(connection, _of_expired("still_expired"), numbers)
    expired = {row["document_no"] for row in rows}
    return [row for row in locked if row["document_no"] in expired]


async def _lock_document(connection: Connection, lease: DocumentLease) -> DictRow:
    wanted = {"document_no": lease.document_no}
    await connection.execute(SQL["lock_document"], wanted)
    row = await _one(connection, "locked_document", wanted)
    if row is None:
        raise LeaseLost(f"document {lease.job.document_id!r} was deleted while it was worked on")
    return row


async def _outcome_without_work(
    connection: Connection, lease: DocumentLease, current: Mapping[str, Any]
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
    await _mark(connection, current, source=mine["source"], marks=mine["marks"])
    return "updated" if await _redescribe(connection, current, mine) else "unchanged"


async def _mark(
    connection: Connection,
    current: Mapping[str, Any],
    *,
    source: Mapping[str, Any] | None = None,
    marks: Mapping[str, Any] | None = None,
) -> None:
    """Have the bytes in place known under newer marks: of the object or page they came from."""
    if source is not None or marks is not None:
        values = {"source": _jsonb(source), "marks": _jsonb(marks)}
        await connection.execute(
            SQL["mark_version"], {"version_id": current["version_id"]} | values
        )


async def _drop_version(
    connection: Connection, lease: DocumentLease, outcome: Outcome, current: Mapping[str, Any]
) -> Settled:
    """Finish a job whose version is not needed."""
    await _finish(connection, lease, outcome, current)
    state = {"version_id": lease.version_id, "state": "superseded"}
    await connection.execute(SQL["retire_version"], state)
    return Settled(outcome, (lease.version_id,))


async def _supersede_older(connection: Connection, lease: DocumentLease) -> Sequence[UUID]:
    """End the older jobs of the document that nobody holds; return their versions."""
    wanted = {"document_no": lease.document_no, "sequence": lease.sequence}
    return [row["version_id"] for row in await _all(connection, "supersede_older", wanted)]


async def _exchange_sequences(
    connection: Connection, lease: DocumentLease, current: Mapping[str, Any]
) -> None:
    """Make the version in place as new as the repeat of its bytes that has just arrived.

    What was sent between the two, and is still on its way, is then older than what is in place.
    """
    repeat, in_place = lease.version_id, current["version_id"]
    for version_id, sequence in (
        (repeat, -lease.sequence),  # out of the way: numbers are unique
        (in_place, lease.sequence),
        (repeat, current["sequence"]),
    ):
        values = {"version_id": version_id, "sequence": sequence}
        await connection.execute(SQL["renumber_version"], values)


async def _finish(
    connection: Connection,
    lease: Lease,
    outcome: Outcome,
    result: Mapping[str, Any],
    *,
    timings_ms: Mapping[str, float] | None = None,
    warnings: Sequence[str] = (),
) -> None:
    await fenced(
        connection,
        SQL["finish"],
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
    connection: Connection,
    lease: DocumentLease,
    version: IndexedVersion,
    current: Mapping[str, Any],
) -> None:
    given = await _one(connection, "version_of_lease", {"version_id": lease.version_id})
    assert given is not None
    if current["version_id"] is not None:
        replaced = {"version_id": current["version_id"], "state": "replaced"}
        await connection.execute(SQL["retire_version"], replaced)
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
            "expires_at": _expiry(current, given),
        },
    )


async def fenced(
    connection: Connection, query: str, lease: Lease, values: Mapping[str, Any]
) -> None:
    """Change the job only while the lease is ours; otherwise raise, which rolls back."""
    fence = {"job_id": lease.job.job_id, "token": lease.token}
    cursor = await connection.execute(query, fence | dict(values))
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


def _expiry(current: Mapping[str, Any], given: Mapping[str, Any]) -> datetime | None:
    """Return the date given, or the one the document has unless it was sent anew after that."""
    if given["expires_at"] is not None:
        date: datetime = given["expires_at"]
        return date
    kept: datetime | None = current["expires_at"]
    return kept if kept is not None and kept > given["sent_at"] else None


def _document_filter(filter_: Filter | None) -> tuple[str, Mapping[str, Any]]:
    if filter_ is None:
        return "true", {}
    return document_condition(filter_)


def _of_expired(name: str) -> str:
    return SQL[name].replace("{expired}", SQL["is_expired"])


def _jsonb(value: Metadata | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))


def job_of(row: Mapping[str, Any]) -> Job:
    """Make a job of its row in ragcore.jobs."""
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
        kind=row["kind"],
        parent_id=row["parent_id"],
        counts=(row["result"] or {}).get("counts", {}),
        result=(row["result"] or {}).get("reindex", {}),
    )


def source_of(row: Mapping[str, Any]) -> BucketObject | None:
    """Make the object of a version of its row in ragcore.versions."""
    return None if row["source"] is None else BucketObject(**row["source"])


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
        expires_at=row["expires_at"],
        chunks=row["chunks"],
        pages=row["pages"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _version(row: Mapping[str, Any]) -> Version:
    return Version(
        version_id=row["version_id"],
        sequence=row["sequence"],
        state=row["state"],
        sha256=bytes(row["sha256"]).hex(),
        size_bytes=row["size_bytes"],
        filename=row["filename"],
        mime_type=row["mime_type"],
        fingerprint=row["fingerprint"],
        chunks=row["chunks"],
        pages=row["pages"],
        language=row["language"],
        created_at=row["created_at"],
    )


def _page(row: Mapping[str, Any]) -> KnownPage:
    return KnownPage(
        marks=PageMarks(**row["marks"]),
        version_id=row["version_id"],
        sha256=bytes(row["sha256"]),
        size_bytes=row["size_bytes"],
        filename=row["filename"],
        title=row["title"],
    )


def _not_retryable(job: Job) -> NotRetryable:
    if job.status in ("failed", "cancelled"):
        return NotRetryable(
            f"document {job.document_id!r} of job {str(job.job_id)!r} was deleted; submit it again"
        )
    return NotRetryable(
        f"job {str(job.job_id)!r} is {job.status}: only failed and cancelled jobs are run again"
    )


def _document_not_found(collection: str, document_id: str) -> DocumentNotFound:
    return DocumentNotFound(
        f"there is no document {document_id!r} in collection {collection!r}; "
        "`ragcore docs list` shows those there are"
    )
