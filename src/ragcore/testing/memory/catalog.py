"""The catalogue in memory: one event loop, no durability, the same answers."""

import random
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID, uuid4

from ragcore.errors import (
    CollectionNotFound,
    DocumentNotFound,
    IdempotencyConflict,
    JobNotFound,
    LeaseLost,
    NotRetryable,
)
from ragcore.model import (
    AuditEntry,
    DeletionReceipt,
    Document,
    Filter,
    Job,
    JobFailure,
    JobStatus,
    Metadata,
    Outcome,
    QueueState,
    ReadingReport,
    Stage,
    Version,
    VersionState,
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
from ragcore.steps import filtering


@dataclass(slots=True)
class StoredVersion:
    submission: Submission
    sequence: int
    state: VersionState = "pending"
    indexed: IndexedVersion | None = None
    created_at: datetime = field(default_factory=lambda: _now())


@dataclass(slots=True)
class Entry:
    """A document and all its versions."""

    number: int
    document: Document
    versions: dict[UUID, StoredVersion] = field(default_factory=dict)
    last_sequence: int = 0

    @property
    def current(self) -> StoredVersion | None:
        version_id = self.document.version_id
        return None if version_id is None else self.versions[version_id]


@dataclass(slots=True)
class Task:
    """A job and who holds it."""

    job: Job
    version_id: UUID
    document_no: int
    submission: Submission
    number: int
    run_after: datetime
    crashes: int = 0
    token: UUID | None = None
    lease_until: datetime | None = None
    callback: "OwedCallback | None" = None


@dataclass(slots=True)
class OwedCallback:
    """What is owed to somebody when the job has finished."""

    url: str
    run_after: datetime
    attempts: int = 0
    error: str | None = None
    is_settled: bool = False


@dataclass(slots=True)
class IdempotentRequest:
    """An idempotency key and what it stands for."""

    body_hash: bytes
    job_ids: Sequence[UUID]
    created_at: datetime


class MemoryCatalog:
    """`ports.Catalog` for tests of flows. No method waits in between, so each is a transaction."""

    def __init__(self, *collections: str) -> None:
        self._collections = set(collections)
        self.entries: dict[tuple[str, str], Entry] = {}
        self.recorded: list[AuditEntry] = []
        """What it has put into the audit trail itself."""
        self.tasks: dict[UUID, Task] = {}
        self.idempotency_keys: dict[tuple[str, str], IdempotentRequest] = {}
        self._numbers = 0

    async def settle_unchanged(self, submission: Submission) -> Job | None:
        return self._settle(submission)

    async def submit(
        self, submission: Submission, *, idempotency: Idempotency | None = None
    ) -> Submitted:
        (submitted,) = await self.submit_all([submission], idempotency=idempotency)
        return submitted

    async def submit_all(
        self, submissions: Sequence[Submission], *, idempotency: Idempotency | None = None
    ) -> Sequence[Submitted]:
        first = self._first_answer(idempotency)
        if first:
            return [Submitted(job, needs_blob=False) for job in first]
        for submission in submissions:
            if submission.collection not in self._collections:
                raise CollectionNotFound(f"there is no collection {submission.collection!r}")
        submitted = [self._submit(submission) for submission in submissions]
        if idempotency is not None:
            made = [each.job.job_id for each in submitted]
            key = (idempotency.scope, idempotency.key)
            self.idempotency_keys[key] = IdempotentRequest(idempotency.body_hash, made, _now())
        return submitted

    async def claim(
        self,
        *,
        owner: str,
        lease: timedelta,
        job_id: UUID | None = None,
        parent_id: UUID | None = None,
        at_most_bytes: int | None = None,
    ) -> DocumentLease | None:
        found = [t for t in self._waiting() if job_id is None or t.job.job_id == job_id]
        if parent_id is not None:
            found = [t for t in found if t.job.parent_id == parent_id]
        if at_most_bytes is not None:
            found = [t for t in found if self._size_of(t) <= at_most_bytes]
        if not found:
            return None
        task = found[0]
        task.token, task.lease_until = uuid4(), _now() + lease
        task.job = replace(
            task.job,
            status="running",
            stage=None,
            progress=0.0,
            error=None,
            attempts=task.job.attempts + 1,
            started_at=task.job.started_at or _now(),
        )
        entry = self._entry_of(task)
        assert entry is not None  # a waiting job has a document
        version = entry.versions[task.version_id]
        return DocumentLease(
            job=task.job,
            token=task.token,
            version_id=task.version_id,
            document_no=task.document_no,
            sequence=version.sequence,
            filename=version.submission.filename,
            mime_type=version.submission.mime_type,
            crashes=task.crashes,
            request_id=version.submission.request_id,
        )

    def _size_of(self, task: Task) -> int:
        entry = self._entry_of(task)
        assert entry is not None  # a waiting job has a document
        return entry.versions[task.version_id].submission.size_bytes

    async def renew(
        self, lease: Lease, *, duration: timedelta, stage: Stage | None, progress: float
    ) -> None:
        task = self._held(lease)
        task.lease_until = _now() + duration
        task.job = replace(task.job, stage=stage or task.job.stage, progress=progress)

    async def settle_repeated(self, lease: DocumentLease) -> Settled | None:
        task = self._held(lease)
        entry = self._entry_of(task)
        assert entry is not None
        mine, current = entry.versions[lease.version_id], entry.current
        if current is None:
            return None
        if current.sequence > mine.sequence:
            return self._drop(task, entry, "superseded")
        if not _same(current.submission, mine.submission):
            return None
        described = _describe(entry, mine.submission, sent_at=mine.created_at)
        _mark(current, mine.submission)
        settled = self._drop(task, entry, "updated" if described else "unchanged")
        older = self._supersede_older(entry, mine.sequence)
        # In place is now what came last: what was sent between the two is older.
        mine.sequence, current.sequence = current.sequence, mine.sequence
        return Settled(settled.outcome, (*settled.retired, *older))

    async def put_in_place(self, lease: DocumentLease, version: IndexedVersion) -> Settled:
        task = self._held(lease)
        entry = self._entry_of(task)
        assert entry is not None
        mine, current = entry.versions[lease.version_id], entry.current
        if current is not None and current.sequence > mine.sequence:
            return self._drop(task, entry, "superseded")
        if current is not None:
            current.state = "replaced"
        given = mine.submission
        if version.fingerprint is not None:
            mine.submission = replace(given, fingerprint=version.fingerprint)
        mine.state, mine.indexed = "current", version
        entry.document = replace(
            entry.document,
            version_id=lease.version_id,
            title=given.title or version.title,
            uri=given.uri or entry.document.uri,
            metadata=entry.document.metadata if given.metadata is None else given.metadata,
            mime_type=version.report.mime_type,
            language=version.language,
            extracted=version.extracted,
            chunks=len(version.chunks),
            pages=version.report.pages,
            expires_at=_expiry(entry, given, sent_at=mine.created_at),
            updated_at=_now(),
        )
        outcome: Outcome = "created" if current is None else "updated"
        self._finish(task, outcome, entry)
        task.job = replace(
            task.job, timings_ms=version.timings_ms, warnings=tuple(version.warnings)
        )
        retired = self._supersede_older(entry, mine.sequence)
        if current is not None:
            retired.append(current.submission.version_id)
        return Settled(outcome, tuple(retired))

    async def give_back(self, lease: Lease) -> None:
        task = self._held(lease)
        task.token = task.lease_until = None
        task.run_after = _now()
        task.job = replace(
            task.job, status="queued", attempts=task.job.attempts - 1, stage=None, progress=0.0
        )

    async def survived(self, lease: Lease) -> None:
        task = self.tasks.get(lease.job.job_id)
        if task is not None and not task.job.is_finished:
            task.crashes = max(task.crashes - 1, 0)

    async def cancel(self, job_id: UUID) -> Job:
        task = self._task(job_id)
        if not task.job.is_finished:
            self._cancel(task)
        return task.job

    async def run_again(self, job_id: UUID) -> Job:
        task = self._task(job_id)
        if task.job.status not in ("failed", "cancelled"):
            raise NotRetryable(f"job {str(job_id)!r} is {task.job.status}")
        entry = self._entry_of(task)
        if entry is None:
            raise NotRetryable(f"document {task.job.document_id!r} was deleted; submit it again")
        self._run_again(task, entry)
        return task.job

    async def run_failed_again(
        self,
        *,
        collections: Set[str] | None = None,
        document_id: str | None = None,
        code: str | None = None,
        limit: int = 1000,
    ) -> Sequence[Job]:
        found = [
            (task, entry)
            for task in sorted(self.tasks.values(), key=lambda task: task.number)
            if (entry := self._entry_of(task)) is not None
            and _is_asked_for(task.job, collections, document_id, "failed")
            and (code is None or (task.job.error is not None and task.job.error.code == code))
        ]
        for task, entry in found[:limit]:
            self._run_again(task, entry)
        return [task.job for task, _ in found[:limit]]

    async def release_expired(self, *, pause: timedelta = timedelta()) -> Sequence[Job]:
        expired = [t for t in self.tasks.values() if _is_expired(t)]
        for task in expired:
            task.token = task.lease_until = None
            task.crashes += 1
            task.run_after = _now()
            if task.crashes > 1:
                factor = 2 ** (task.crashes - 2) * random.uniform(0.5, 1.5)  # noqa: S311
                task.run_after += pause * factor
            task.job = replace(task.job, status="queued")
        return [task.job for task in expired]

    async def waiting(self, *, limit: int = 100) -> Sequence[Job]:
        return [task.job for task in self._waiting()[:limit]]

    async def fail(self, lease: Lease, failure: JobFailure) -> None:
        task = self._held(lease)
        task.token = task.lease_until = None
        task.job = replace(task.job, status="failed", error=failure, stage=None, finished_at=_now())
        entry = self._entry_of(task)
        assert entry is not None
        entry.versions[task.version_id].state = "failed"

    async def retry(self, lease: Lease, failure: JobFailure, *, after: timedelta) -> None:
        task = self._held(lease)
        task.token = task.lease_until = None
        task.run_after = _now() + after
        task.job = replace(task.job, status="queued", error=failure, stage=None, progress=0.0)

    async def job(self, job_id: UUID) -> Job:
        return self._task(job_id).job

    async def jobs_by_id(self, job_ids: Sequence[UUID]) -> Sequence[Job]:
        return [self.tasks[job_id].job for job_id in job_ids if job_id in self.tasks]

    async def jobs(
        self,
        *,
        collections: Set[str] | None = None,
        document_id: str | None = None,
        status: JobStatus | None = None,
        limit: int = 50,
        after: UUID | None = None,
    ) -> Sequence[Job]:
        newest = sorted(self.tasks.values(), key=lambda task: -task.number)
        last = None if after is None else self._task(after).number
        found = [
            task.job
            for task in newest
            if _is_asked_for(task.job, collections, document_id, status)
            and (last is None or task.number < last)
        ]
        return found[:limit]

    async def queue_state(self) -> QueueState:
        jobs = dict.fromkeys(get_args(JobStatus), 0)
        for task in self.tasks.values():
            jobs[task.job.status] += 1
        ages = [(_now() - task.run_after).total_seconds() for task in self._waiting()]
        return QueueState(jobs, max(ages, default=0.0))

    async def document(self, collection: str, document_id: str) -> Document:
        return self._entry(collection, document_id).document

    async def documents(
        self,
        collection: str,
        *,
        filters: Filter | None = None,
        doubtful: bool = False,
        limit: int = 50,
        after: str | None = None,
    ) -> Sequence[Document]:
        found = [
            entry.document
            for (_, document_id), entry in sorted(self.entries.items())
            if entry.document.collection == collection
            and entry.current is not None
            and (after is None or document_id > after)
            and (not doubtful or _is_doubtful(entry))
            and (filters is None or filtering.matches(filters, filtering.fields_of(entry.document)))
        ]
        return found[:limit]

    async def document_by_uri(self, collection: str, uri: str) -> Document:
        found = [
            entry
            for entry in self.entries.values()
            if (entry.document.collection, entry.document.uri) == (collection, uri)
        ]
        if not found:
            raise DocumentNotFound(f"no document in collection {collection!r} came from {uri!r}")
        return max(found, key=lambda entry: (entry.current is not None, entry.number)).document

    async def page(self, collection: str, document_id: str) -> KnownPage | None:
        entry = self.entries.get((collection, document_id))
        current = None if entry is None else entry.current
        if entry is None or current is None or entry.last_sequence != current.sequence:
            return None
        said = current.submission
        if said.marks is None:
            return None
        return KnownPage(
            marks=said.marks,
            version_id=said.version_id,
            sha256=said.sha256,
            size_bytes=said.size_bytes,
            filename=said.filename,
            title=said.title,
        )

    async def versions(self, collection: str, document_id: str) -> Sequence[Version]:
        versions = self._entry(collection, document_id).versions.values()
        return [_told(version) for version in sorted(versions, key=lambda v: -v.sequence)]

    async def matching(
        self, collection: str, filters: Filter, *, limit: int = 1000, after: str | None = None
    ) -> Sequence[str]:
        found = [
            document_id
            for (name, document_id), entry in sorted(self.entries.items())
            if name == collection
            and (after is None or document_id > after)
            and filtering.matches(filters, filtering.fields_of(_as_submitted(entry)))
        ]
        return found[:limit]

    async def expired(self, *, limit: int = 100) -> Sequence[tuple[str, str]]:
        expired = [entry for entry in self.entries.values() if _has_expired(entry)]
        expired.sort(key=lambda entry: entry.document.expires_at or _now())
        return [(e.document.collection, e.document.document_id) for e in expired[:limit]]

    async def reading_report(self, collection: str, document_id: str) -> ReadingReport:
        current = self._entry(collection, document_id).current
        if current is None or current.indexed is None:
            raise DocumentNotFound(f"document {document_id!r} has not been read yet")
        return current.indexed.report

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
        entry = self._entry(collection, document_id)
        given: dict[str, Any] = {"title": title, "metadata": metadata, "expires_at": expires_at}
        changed = {name: value for name, value in given.items() if value is not None}
        if never_expires:
            changed["expires_at"] = None
        entry.document = replace(entry.document, **changed, updated_at=_now())
        return entry.document

    async def forget(
        self,
        collection: str,
        document_ids: Sequence[str],
        *,
        only_expired: bool = False,
        unless_after: Mapping[str, int] | None = None,
        actor: str | None = None,
    ) -> tuple[DeletionReceipt, Sequence[UUID]]:
        found = [
            document_id
            for document_id in dict.fromkeys(document_ids)
            if (entry := self.entries.get((collection, document_id))) is not None
            and (not only_expired or _has_expired(entry))
            and (unless_after is None or entry.last_sequence <= unless_after.get(document_id, 0))
        ]
        receipt = await self.to_forget(collection, found)
        versions: list[UUID] = []
        for document_id in found:
            entry = self.entries.pop((collection, document_id))
            versions += entry.versions
            for task in self.tasks.values():
                if task.document_no == entry.number and not task.job.is_finished:
                    self._cancel(task)
            if actor is not None:
                told = AuditEntry("document.delete", actor, collection, document_id)
                self.recorded.append(told)
        return receipt, versions

    async def to_forget(self, collection: str, document_ids: Sequence[str]) -> DeletionReceipt:
        found = [d for d in document_ids if (collection, d) in self.entries]
        entries = [self.entries[collection, document_id] for document_id in found]
        return DeletionReceipt(
            collection,
            tuple(found),
            chunks=sum(entry.document.chunks for entry in entries),
            versions=sum(len(entry.versions) for entry in entries),
            blobs=0,
        )

    async def are_live(self, version_ids: Sequence[UUID]) -> Set[UUID]:
        return {
            version_id
            for entry in self.entries.values()
            for version_id, version in entry.versions.items()
            if version_id in version_ids and _is_live(version, entry)
        }

    # --- parts -----------------------------------------------------------------------------

    def _first_answer(self, idempotency: Idempotency | None) -> Sequence[Job]:
        if idempotency is None:
            return ()
        key = self.idempotency_keys.get((idempotency.scope, idempotency.key))
        if key is None or key.created_at < _now() - timedelta(hours=24):
            return ()
        if not all(job_id in self.tasks for job_id in key.job_ids):
            return ()
        if key.body_hash != idempotency.body_hash:
            raise IdempotencyConflict(f"the key {idempotency.key!r} was used with another body")
        return [self.tasks[job_id].job for job_id in key.job_ids]

    def _submit(self, submission: Submission) -> Submitted:
        settled = self._settle(submission)
        return Submitted(settled or self._enqueue(submission), needs_blob=settled is None)

    def _settle(self, submission: Submission) -> Job | None:
        entry = self.entries.get((submission.collection, submission.document_id))
        if entry is None or (current := entry.current) is None:
            return None
        if not _same(current.submission, submission) or entry.last_sequence != current.sequence:
            return None
        is_news = _describe(entry, submission, sent_at=_now())
        _mark(current, submission)
        task = self._add_task(entry, submission, current.submission.version_id)
        self._finish(task, "updated" if is_news else "unchanged", entry)
        return task.job

    def _enqueue(self, submission: Submission) -> Job:
        key = (submission.collection, submission.document_id)
        if key not in self.entries:
            document = Document(
                *key,
                uri=submission.uri,
                expires_at=submission.expires_at,
                created_at=_now(),
                updated_at=_now(),
            )
            self.entries[key] = Entry(self._next_number(), document)
        entry = self.entries[key]
        entry.last_sequence += 1
        entry.versions[submission.version_id] = StoredVersion(submission, entry.last_sequence)
        return self._add_task(entry, submission, submission.version_id).job

    def _add_task(self, entry: Entry, submission: Submission, version_id: UUID) -> Task:
        job = Job(
            uuid4(),
            submission.collection,
            submission.document_id,
            "queued",
            created_at=_now(),
            parent_id=submission.parent_id,
        )
        task = Task(job, version_id, entry.number, submission, self._next_number(), _now())
        if submission.callback_url is not None:
            task.callback = OwedCallback(submission.callback_url, _now())
        self.tasks[job.job_id] = task
        return task

    def _run_again(self, task: Task, entry: Entry) -> None:
        version, current = entry.versions[task.version_id], entry.current
        if current is not None and current.sequence > version.sequence:
            self._supersede(task, version)
        else:
            version.state = "pending"
            task.crashes, task.run_after = 0, _now()
            task.job = replace(
                task.job,
                status="queued",
                stage=None,
                progress=0.0,
                error=None,
                attempts=0,
                started_at=None,
                finished_at=None,
            )
        if task.callback is not None:
            task.callback = OwedCallback(task.callback.url, _now())

    def _finish(self, task: Task, outcome: Outcome, entry: Entry) -> None:
        task.token = task.lease_until = None
        task.job = replace(
            task.job,
            status="succeeded",
            outcome=outcome,
            stage=None,
            progress=1.0,
            chunks=entry.document.chunks,
            pages=entry.document.pages,
            language=entry.document.language,
            started_at=task.job.started_at or _now(),
            finished_at=_now(),
        )

    def _drop(self, task: Task, entry: Entry, outcome: Outcome) -> Settled:
        self._finish(task, outcome, entry)
        entry.versions[task.version_id].state = "superseded"
        return Settled(outcome, (task.version_id,))

    def _supersede_older(self, entry: Entry, sequence: int) -> list[UUID]:
        retired = []
        for task in self.tasks.values():
            if task.document_no != entry.number:
                continue
            version = entry.versions[task.version_id]
            if version.sequence < sequence and (task.job.status == "queued" or _is_expired(task)):
                self._supersede(task, version)
                retired.append(task.version_id)
        return retired

    def _supersede(self, task: Task, version: StoredVersion) -> None:
        """End a job that nobody holds and whose version is too old to matter."""
        version.state = "superseded"
        task.token = task.lease_until = None
        task.job = replace(
            task.job,
            status="succeeded",
            outcome="superseded",
            stage=None,
            error=None,
            finished_at=_now(),
        )

    def _cancel(self, task: Task) -> None:
        task.token = task.lease_until = None
        task.job = replace(task.job, status="cancelled", stage=None, finished_at=_now())
        entry = self._entry_of(task)
        if entry is not None:
            entry.versions[task.version_id].state = "failed"

    def _waiting(self) -> list[Task]:
        now = _now()
        ready = [t for t in self.tasks.values() if t.job.status == "queued" and t.run_after <= now]
        return sorted(ready, key=lambda task: (-task.submission.priority, task.number))

    def _held(self, lease: Lease) -> Task:
        task = self.tasks.get(lease.job.job_id)
        if task is None or task.token != lease.token or task.job.status != "running":
            raise LeaseLost(f"job {str(lease.job.job_id)!r} was cancelled or taken over")
        return task

    def _task(self, job_id: UUID) -> Task:
        if job_id not in self.tasks:
            raise JobNotFound(f"there is no job {str(job_id)!r}")
        return self.tasks[job_id]

    def _entry(self, collection: str, document_id: str) -> Entry:
        entry = self.entries.get((collection, document_id))
        if entry is None:
            raise DocumentNotFound(
                f"there is no document {document_id!r} in collection {collection!r}"
            )
        return entry

    def _entry_of(self, task: Task) -> Entry | None:
        entry = self.entries.get((task.job.collection, task.job.document_id))
        return entry if entry is not None and entry.number == task.document_no else None

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers


def _describe(entry: Entry, given: Submission, *, sent_at: datetime) -> bool:
    """Put title, URI, metadata and expiry on the document; tell whether that changed anything."""
    before = entry.document
    entry.document = replace(
        before,
        title=given.title or before.title,
        uri=given.uri or before.uri,
        metadata=before.metadata if given.metadata is None else given.metadata,
        expires_at=_expiry(entry, given, sent_at=sent_at),
    )
    return entry.document != before


def _mark(current: StoredVersion, given: Submission) -> None:
    """Have the bytes in place known under newer marks."""
    if given.marks is not None:
        current.submission = replace(current.submission, marks=given.marks)


def _expiry(entry: Entry, given: Submission, *, sent_at: datetime) -> datetime | None:
    kept = entry.document.expires_at
    if given.expires_at is not None:
        return given.expires_at
    return kept if kept is not None and kept > sent_at else None


def _has_expired(entry: Entry) -> bool:
    expires_at = entry.document.expires_at
    if expires_at is None or expires_at > _now():
        return False
    on_their_way = [v for v in entry.versions.values() if v.state == "pending"]
    return not any(
        v.created_at >= expires_at
        if v.submission.expires_at is None
        else v.submission.expires_at > _now()
        for v in on_their_way
    )


def _as_submitted(entry: Entry) -> Document:
    """Describe a document that does not answer yet by its newest submission."""
    if entry.current is not None or not entry.versions:
        return entry.document
    said = max(entry.versions.values(), key=lambda version: version.sequence).submission
    metadata = entry.document.metadata if said.metadata is None else said.metadata
    return replace(entry.document, title=said.title, mime_type=said.mime_type, metadata=metadata)


def _is_asked_for(
    job: Job, collections: Set[str] | None, document_id: str | None, status: JobStatus | None
) -> bool:
    return (
        (collections is None or job.collection in collections)
        and document_id in (None, job.document_id)
        and status in (None, job.status)
    )


def _told(version: StoredVersion) -> Version:
    said, indexed = version.submission, version.indexed
    return Version(
        version_id=said.version_id,
        sequence=version.sequence,
        state=version.state,
        sha256=said.sha256.hex(),
        size_bytes=said.size_bytes,
        filename=said.filename,
        mime_type=said.mime_type if indexed is None else indexed.report.mime_type,
        fingerprint=said.fingerprint,
        chunks=None if indexed is None else len(indexed.chunks),
        pages=None if indexed is None else indexed.report.pages,
        language=None if indexed is None else indexed.language,
        created_at=version.created_at,
    )


def _same(one: Submission, other: Submission) -> bool:
    return (one.sha256, one.fingerprint) == (other.sha256, other.fingerprint)


def _is_live(version: StoredVersion, entry: Entry) -> bool:
    newest = 0 if entry.current is None else entry.current.sequence
    return version.state in ("pending", "current") or (
        version.state == "failed" and version.sequence > newest
    )


def _is_doubtful(entry: Entry) -> bool:
    current = entry.current
    return (
        current is not None and current.indexed is not None and current.indexed.report.is_doubtful
    )


def _is_expired(task: Task) -> bool:
    return (
        task.job.status == "running" and task.lease_until is not None and task.lease_until < _now()
    )


def _now() -> datetime:
    return datetime.now(UTC)
