"""Buckets in PostgreSQL: what is known of their objects, and the jobs that list them."""

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final
from uuid import UUID, uuid4

from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from ragcore.adapters.postgres import sql
from ragcore.adapters.postgres.catalog import enqueue, fenced, hold_collections, job_of
from ragcore.adapters.postgres.errors import translated
from ragcore.adapters.postgres.pool import Connection, Pool
from ragcore.model import BucketObject, Job, JobFailure, KnownObject, Metadata
from ragcore.ports import (
    BucketLease,
    BucketOrder,
    BucketState,
    DocumentLease,
    ObjectNote,
    ObjectResult,
    OpenObject,
    Submission,
)
from ragcore.steps.comparing import decide
from ragcore.steps.identity import id_from_uri

SQL: Final = sql.load("sources.sql")

_LAST_LETTER: Final = "\U0010ffff"
"""Sorts after all that can follow a prefix."""


class PostgresSources:
    """`ports.Sources` over a pool; every method is one transaction.

    A listing's own job is locked before everything else, then a bucket's turn, then what the
    catalogue locks, in its order. Who cancels a bucket's job locks that first, too.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    # --- jobs of buckets -------------------------------------------------------------------

    async def start(
        self, order: BucketOrder, *, submitted_by: str, request_id: str | None = None
    ) -> Job:
        values = {
            "job_id": uuid4(),
            "collection": order.collection,
            "document_id": id_from_uri(order.uri),
            "arguments": Jsonb(asdict(order)),
            "submitted_by": submitted_by,
            "request_id": request_id,
        }
        async with self._transaction() as connection:
            await connection.execute(SQL["take_turns"], {"place": _place(order)})
            row = await _one(connection, "waiting", values)
            row = row or await _one(connection, "insert_job", values)
        assert row is not None
        return job_of(row)

    async def claim(
        self, *, owner: str, lease: timedelta, job_id: UUID | None = None
    ) -> BucketLease | None:
        values = {"owner": owner, "lease": lease, "job_id": job_id}
        async with self._transaction() as connection:
            row = await _one(connection, "claim", values)
        if row is None:
            return None
        return BucketLease(
            job=job_of(row),
            token=row["lease_token"],
            crashes=row["crashes"],
            order=_order(row["arguments"]),
            submitted_by=row["submitted_by"],
            request_id=row["request_id"],
        )

    async def park(
        self, lease: BucketLease, counts: Mapping[str, int], failure: JobFailure | None = None
    ) -> None:
        values = {
            "result": Jsonb({"listed": dict(counts), "counts": dict(counts)}),
            "error": None if failure is None else Jsonb(asdict(failure)),
        }
        async with self._transaction() as connection:
            await fenced(connection, SQL["park"], lease, values)

    async def settle_parked(self) -> Sequence[Job]:
        async with self._transaction() as connection:
            parked = {row["job_id"]: row for row in await _all(connection, "parked", {})}
            if not parked:
                return ()
            wanted = {"job_ids": list(parked)}
            done: dict[UUID, dict[str, int]] = defaultdict(dict)
            for row in await _all(connection, "actions", wanted):
                done[row["job_id"]][row["action"]] = row["objects"]
            for row in await _all(connection, "children", wanted):
                counts = done[row["parent_id"]]
                counts[row["ended"]] = counts.get(row["ended"], 0) + row["jobs"]
            ended: list[Job] = []
            for job_id in sorted(parked):
                news = _settled(parked[job_id], done[job_id])
                if news is None:
                    continue
                settled = await _one(connection, "settle", news)
                if settled is not None and settled["status"] != "running":
                    ended.append(job_of(settled))
            return ended

    async def state(self, order: BucketOrder) -> BucketState:
        wanted = {"collection": order.collection, "document_id": id_from_uri(order.uri)}
        async with self._transaction() as connection:
            row = await _one(connection, "state", wanted)
        assert row is not None  # an aggregate always answers
        return BucketState(row["started"], row["succeeded"], row["is_under_way"])

    # --- objects ---------------------------------------------------------------------------

    async def known(
        self, collection: str, bucket: str, *, prefix: str, after: str | None, limit: int
    ) -> Sequence[KnownObject]:
        wanted = {
            "collection": collection,
            "bucket": bucket,
            "prefix": prefix,
            "last": prefix + _LAST_LETTER,
            "after": after,
            "limit": limit,
        }
        async with self._transaction() as connection:
            return await _known(connection, "keys_under_prefix", wanted)

    async def known_one(self, collection: str, bucket: str, key: str) -> KnownObject | None:
        wanted = {"collection": collection, "bucket": bucket, "keys": [key], "limit": 1}
        async with self._transaction() as connection:
            found = await _known(connection, "these_keys", wanted)
        return found[0] if found else None

    async def take(
        self, submissions: Sequence[Submission], *, lease: BucketLease | None = None
    ) -> Sequence[Job]:
        if not submissions:
            return ()
        objects = {each.document_id: _source(each) for each in submissions}
        first = submissions[0]
        async with self._transaction() as connection:
            if lease is not None:
                await fenced(connection, SQL["hold"], lease, {})
            turn = {"place": f"{first.collection}/{_source(first).bucket}"}
            await connection.execute(SQL["take_turns"], turn)
            await hold_collections(connection, {first.collection})
            wanted = {
                "collection": first.collection,
                "bucket": _source(first).bucket,
                "keys": [each.key for each in objects.values()],
                "limit": len(objects),
            }
            known = {each.key: each for each in await _known(connection, "these_keys", wanted)}
            made: list[Job] = []
            for submission in sorted(submissions, key=lambda each: each.document_id):
                listed = _source(submission)
                action = decide(listed, known.get(listed.key))
                if action not in ("new", "changed"):
                    continue  # somebody else saw it meanwhile
                job = await enqueue(connection, submission, job_id=uuid4(), place=len(made))
                made.append(job)
                if lease is not None:
                    decided = {
                        "job_id": lease.job.job_id,
                        "key": listed.key,
                        "action": action,
                        "child_id": job.job_id,
                    }
                    await connection.execute(SQL["insert_object"], decided)
            return made

    async def note(self, lease: BucketLease, notes: Sequence[ObjectNote]) -> None:
        values = [{"job_id": lease.job.job_id, **asdict(note)} for note in notes]
        async with self._transaction() as connection, connection.cursor() as cursor:
            await cursor.executemany(SQL["note"], values)

    async def fetched(
        self,
        lease: DocumentLease,
        found: OpenObject,
        *,
        sha256: bytes,
        size_bytes: int,
        metadata: Metadata,
    ) -> None:
        values = {
            "version_id": lease.version_id,
            "sha256": sha256,
            "size_bytes": size_bytes,
            "source": Jsonb(asdict(found.object)),
            "filename": found.filename,
            "mime_type": found.mime_type,
            "metadata": Jsonb(dict(metadata)),
        }
        async with self._transaction() as connection:
            await fenced(connection, SQL["hold"], lease, {})
            await connection.execute(SQL["fetched"], values)

    async def objects(
        self, job_id: UUID, *, limit: int = 100, after: str | None = None
    ) -> Sequence[ObjectResult]:
        wanted = {"job_id": job_id, "limit": limit, "after": after}
        async with self._transaction() as connection:
            return [_result(row) for row in await _all(connection, "objects", wanted)]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        with translated():
            async with self._pool.connection() as connection, connection.transaction():
                yield connection


# --- rows to values ------------------------------------------------------------------------


async def _known(
    connection: Connection, which: str, wanted: Mapping[str, Any]
) -> Sequence[KnownObject]:
    query = SQL["known"].replace("{keys}", SQL[which])
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(query, wanted)
        return [_known_object(row) for row in await cursor.fetchall()]


def _known_object(row: Mapping[str, Any]) -> KnownObject:
    return KnownObject(
        key=row["key"],
        document_id=row["document_id"],
        sequence=row["last_sequence"],
        in_place=_object(row["in_place"]),
        newest=_object(row["newest"]),
        newest_state=row["newest_state"],
        failure=JobFailure(**row["error"]) if row["error"] else None,
        parent_id=row["parent_id"],
    )


def _object(marks: Mapping[str, Any] | None) -> BucketObject | None:
    return None if marks is None else BucketObject(**marks)


def _order(arguments: Mapping[str, Any]) -> BucketOrder:
    patterns = {name: tuple(arguments[name]) for name in ("include", "exclude")}
    return BucketOrder(**{**arguments, **patterns})


def _settled(parked: Mapping[str, Any], done: Mapping[str, int]) -> dict[str, Any] | None:
    """Add up what was listed and what became of it since; None when that is not news."""
    counts = dict(parked["result"]["listed"])
    for name, number in done.items():
        counts[name] = counts.get(name, 0) + number
    waiting = done.get("waiting", 0)
    if waiting and counts == parked["result"]["counts"]:
        return None
    ended = sum(done.get(each, 0) for each in _ENDED)
    return {
        "job_id": parked["job_id"],
        "result": Jsonb({**parked["result"], "counts": counts}),
        "progress": 1.0 if not waiting else ended / (ended + waiting),
        "is_over": not waiting,
    }


_ENDED: Final = ("created", "updated", "unchanged", "superseded", "failed", "cancelled")


def _result(row: Mapping[str, Any]) -> ObjectResult:
    return ObjectResult(
        note=ObjectNote(row["key"], row["action"], row["reason"]),
        job_id=row["child_id"],
        status=row["status"],
        outcome=row["outcome"],
        error=JobFailure(**row["error"]) if row["error"] else None,
    )


def _source(submission: Submission) -> BucketObject:
    assert submission.source is not None  # who takes objects says which
    return submission.source


def _place(order: BucketOrder) -> str:
    return f"{order.collection}/{order.bucket}"


async def _one(connection: Connection, name: str, values: Mapping[str, Any]) -> DictRow | None:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL[name], values)
        return await cursor.fetchone()


async def _all(connection: Connection, name: str, values: Mapping[str, Any]) -> list[DictRow]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL[name], values)
        return await cursor.fetchall()
