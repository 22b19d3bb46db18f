"""A collection kept like a bucket of a real S3 server."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from buckets import Bucket, S3Server
from ragcore import Rag
from ragcore.adapters.buckets import S3Buckets
from ragcore.errors import BucketNotFound, Forbidden, NotConfigured, SourceUnavailable
from ragcore.flows.events import DrainEvents, HearEvents, ScheduledSync, StartDueSyncs
from ragcore.flows.sync import bucket_order
from ragcore.model import BucketObject
from ragcore.runtime import open_bucket_events, open_buckets
from ragcore.settings import Settings
from ragcore.testing.memory.embedder import MemoryEmbedder


@pytest.fixture
async def rag(
    database_url: str, data_dir: Path, s3_server: S3Server, bucket: Bucket
) -> AsyncIterator[Rag]:
    async with opened(database_url, data_dir, s3_server.settings(bucket.name)) as rag:
        yield rag


@asynccontextmanager
async def opened(
    database_url: str, data_dir: Path, server: Mapping[str, Any], **more: Any
) -> AsyncIterator[Rag]:
    settings = Settings(
        database_url=database_url,  # type: ignore[arg-type]
        data_dir=data_dir,
        buckets={"servers": {"test": server}, **more},  # type: ignore[arg-type]
    )
    async with Rag.open(settings, embedding=MemoryEmbedder()) as rag:
        yield rag


async def texts(rag: Rag) -> dict[str, str]:
    """What is stored, by URI."""
    found = {}
    for document in await rag.documents(limit=1000):
        chunks = await rag.chunks(document.document_id)
        found[str(document.uri)] = "\n".join(chunk.text for chunk in chunks)
    return found


async def test_what_is_new_or_changed_is_ingested_and_nothing_else_is_read(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a/x.txt", "The pump stands.")
    bucket.put("a.txt", "The valve turns.")  # listed after a/x.txt by this server
    bucket.put("z/ü б.md", "# Насос\n\nНасос стоит.")
    first = await rag.sync(bucket.uri())
    assert first.status == "succeeded"
    assert counts_of(first) == {"listed": 3, "new": 3, "created": 3}
    assert await texts(rag) == {
        bucket.uri("a/x.txt"): "The pump stands.",
        bucket.uri("a.txt"): "The valve turns.",
        bucket.uri("z/ü б.md"): "Насос стоит.",
    }

    again = await rag.sync(bucket.uri())
    assert counts_of(again) == {"listed": 3, "unchanged": 3}

    bucket.put("a.txt", "The valve turns no more.")
    changed = await rag.sync(bucket.uri())
    assert counts_of(changed) == {"listed": 3, "unchanged": 2, "changed": 1, "updated": 1}
    assert (await texts(rag))[bucket.uri("a.txt")] == "The valve turns no more."
    (told,) = await rag.bucket_objects(changed.job_id)
    assert (told.note.key, told.note.action, told.outcome) == ("a.txt", "changed", "updated")


async def test_ingest_takes_a_bucket_and_answers_with_its_documents(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("in/one.txt", "one")
    bucket.put("out/two.txt", "two")
    (job,) = await rag.ingest(bucket.uri("in/"))
    assert (job.status, job.outcome, job.kind) == ("succeeded", "created", "document")
    assert (await rag.document_by_uri(bucket.uri("in/one.txt"))).document_id == job.document_id


async def test_metadata_and_tags_become_the_documents(rag: Rag, bucket: Bucket) -> None:
    bucket.put(
        "report.txt",
        "The harbour grew.",
        metadata={"Year": "2024", "author": "=?utf-8?b?0JjQstCw0L0=?=", "kind": "draft"},
        tags={"kind": "final", "open": "true"},
    )
    await rag.sync(bucket.uri(), metadata={"source": "archive", "year": 1900})
    document = await rag.document_by_uri(bucket.uri("report.txt"))
    assert document.metadata == {
        "source": "archive", "year": 2024, "author": "Иван", "kind": "final", "open": True
    }  # fmt: skip
    assert document.mime_type == "text/plain"


async def test_globs_sizes_and_types_leave_objects_out_and_say_why(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("docs/a.txt", "a")
    bucket.put("docs/deep/b.txt", "b")
    bucket.put("docs/draft.txt", "draft")
    bucket.put("docs/empty.txt", "")
    bucket.put("docs/film.mp4", "not read")
    bucket.put("other/c.txt", "c")
    job = await rag.sync(bucket.uri(), include=["docs/**"], exclude=["draft*"])
    assert counts_of(job) == {"listed": 6, "excluded": 2, "skipped": 2, "new": 2, "created": 2}
    told = {each.note.key: each.note for each in await rag.bucket_objects(job.job_id)}
    assert told["docs/empty.txt"].reason == "it is empty"
    assert told["docs/film.mp4"].action == "skipped"
    assert "draft" not in str(list(told))


async def test_a_dry_run_tells_the_plan_and_does_nothing(rag: Rag, bucket: Bucket) -> None:
    bucket.put("keep.txt", "keep")
    bucket.put("gone.txt", "gone")
    await rag.sync(bucket.uri())
    bucket.remove("gone.txt")
    bucket.put("new.txt", "new")
    job = await rag.sync(bucket.uri(), delete_missing=True, dry_run=True)
    assert counts_of(job) == {"listed": 2, "unchanged": 1, "new": 1, "gone": 1}
    told = [(each.note.key, each.note.action) for each in await rag.bucket_objects(job.job_id)]
    assert told == [("gone.txt", "gone"), ("new.txt", "new")]
    assert set(await texts(rag)) == {bucket.uri("keep.txt"), bucket.uri("gone.txt")}


async def test_what_is_gone_is_deleted_on_request_and_only_what_came_from_there(
    rag: Rag, bucket: Bucket
) -> None:
    for key in ("in/a.txt", "in/b.txt", "other/c.txt"):
        bucket.put(key, f"text of {key}")
    await rag.sync(bucket.uri())
    await rag.ingest_text("uploaded", document_id="uploaded")
    bucket.remove("in/a.txt", "other/c.txt")

    kept = await rag.sync(bucket.uri("in/"))
    assert counts_of(kept) == {"listed": 1, "unchanged": 1, "gone": 1}
    assert bucket.uri("in/a.txt") in await texts(rag)

    job = await rag.sync(bucket.uri("in/"), delete_missing=True)
    assert counts_of(job) == {"listed": 1, "unchanged": 1, "gone": 1, "deleted": 1}
    assert set(await texts(rag)) == {bucket.uri("in/b.txt"), bucket.uri("other/c.txt"), "None"}
    trail = await rag.runtime.audit.entries(action="document.delete")
    assert [entry.details for entry in trail] == [{"gone": bucket.uri("in/a.txt")}]


async def test_a_listing_that_lost_too_much_deletes_nothing_unless_told(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("only.txt", "the only one")
    await rag.sync(bucket.uri())
    bucket.remove("only.txt")
    refused = await rag.sync(bucket.uri(), delete_missing=True)
    assert refused.status == "failed"
    assert refused.error is not None
    assert refused.error.code == "deletion_refused"
    assert len(await texts(rag)) == 1
    told = await rag.sync(bucket.uri(), delete_missing=True, max_delete_share=1)
    assert counts_of(told) == {"gone": 1, "deleted": 1}
    assert await texts(rag) == {}


class BrokenListing:
    """Buckets whose listing breaks after the first page, or tells of less than there is."""

    def __init__(self, inner: S3Buckets, *, breaks: bool) -> None:
        self._inner = inner
        self._breaks = breaks

    async def list(self, bucket: str, prefix: str) -> AsyncIterator[list[BucketObject]]:
        async for page in self._inner.list(bucket, prefix):
            yield list(page)[:1]
            if self._breaks:
                raise SourceUnavailable("the server went away")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("breaks", [True, False])
async def test_a_partial_listing_deletes_nothing(rag: Rag, bucket: Bucket, breaks: bool) -> None:
    for key in ("a.txt", "b.txt", "c.txt"):
        bucket.put(key, key)
    await rag.sync(bucket.uri())
    runtime = rag.runtime
    listing = BrokenListing(runtime.buckets, breaks=breaks)
    work = replace(runtime.sync.work, backoff=())
    sync = replace(runtime.sync, buckets=listing, work=work)  # type: ignore[arg-type]
    order = bucket_order(
        bucket.uri(), collection="default", delete_missing=True, max_delete_share=1
    )
    job = await sync.start(order, submitted_by="test")
    ended = await sync.next(job_id=job.job_id)
    assert ended is not None
    if breaks:
        assert ended.error is not None
        assert ended.error.code == "source_unavailable"
    else:  # each object is asked for by name before its document goes
        assert counts_of(ended) == {"listed": 1, "unchanged": 1, "gone": 2}
    assert len(await texts(rag)) == 3


async def test_an_object_that_changed_since_it_was_listed_is_stored_as_it_was_read(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a.txt", "as it was listed")
    job = await listed(rag, bucket)
    bucket.put("a.txt", "as it was read")
    await rag._work_on_children(job, None)
    assert await texts(rag) == {bucket.uri("a.txt"): "as it was read"}
    assert counts_of(await rag.sync(bucket.uri())) == {"listed": 1, "unchanged": 1}


async def test_an_object_that_vanished_since_it_was_listed_is_told(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a.txt", "short-lived")
    job = await listed(rag, bucket)
    bucket.remove("a.txt")
    await rag._work_on_children(job, None)
    (told,) = await rag.bucket_objects(job.job_id)
    assert told.error is not None
    assert (told.status, told.error.code) == ("failed", "object_gone")
    assert await texts(rag) == {}


async def test_what_failed_is_not_tried_again_before_it_changes(rag: Rag, bucket: Bucket) -> None:
    bucket.put("broken.pdf", b"%PDF-1.7 and nothing more")
    first = await rag.sync(bucket.uri())
    assert counts_of(first) == {"listed": 1, "new": 1, "failed": 1}
    second = await rag.sync(bucket.uri())
    assert counts_of(second) == {"listed": 1, "failed_before": 1}
    (told,) = await rag.bucket_objects(second.job_id)
    assert str(told.note.reason).startswith("conversion_failed: ")
    bucket.put("broken.pdf", "This is a text after all.")
    assert counts_of(await rag.sync(bucket.uri())) == {"listed": 1, "new": 1, "created": 1}


async def test_the_same_bytes_under_newer_marks_are_not_converted_again(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a.txt", "the same")
    await rag.sync(bucket.uri())
    await asyncio.sleep(1.1)  # the server's clock tells whole seconds
    bucket.put("a.txt", "the same", metadata={"year": "1931"})
    job = await rag.sync(bucket.uri())
    assert counts_of(job) == {"listed": 1, "changed": 1, "updated": 1}
    (document,) = await rag.documents()
    assert document.metadata == {"year": 1931}
    (current, *_) = await rag.versions(document.document_id)
    assert current.state == "current"
    assert counts_of(await rag.sync(bucket.uri())) == {"listed": 1, "unchanged": 1}


async def test_a_deleted_document_comes_back_as_long_as_its_object_is_there(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a.txt", "here to stay")
    (job,) = await rag.ingest(bucket.uri())
    await rag.delete(job.document_id)
    assert counts_of(await rag.sync(bucket.uri())) == {"listed": 1, "new": 1, "created": 1}


async def test_a_job_that_was_killed_in_the_middle_goes_on_where_it_was(
    rag: Rag, bucket: Bucket, database_url: str
) -> None:
    for number in range(5):
        bucket.put(f"{number}.txt", f"number {number}")
    runtime = rag.runtime
    order = bucket_order(bucket.uri(), collection="default")
    job = await runtime.sync.start(order, submitted_by="test")
    lease = await runtime.sources.claim(owner="dead", lease=runtime.work.lease, job_id=job.job_id)
    assert lease is not None
    found = await runtime.buckets.find(bucket.name, "3.txt")
    assert found is not None
    submission = runtime.sync._submission(order, found, submitted_by="test", lease=lease)
    await runtime.sources.take([submission], lease=lease)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute(
            "UPDATE ragcore.jobs SET lease_until = now() WHERE kind = 'bucket'"
        )
    await runtime.catalog.release_expired()

    ended = await rag._finish_bucket(job, None)
    assert counts_of(ended) == {"listed": 5, "new": 5, "created": 5}
    assert len(await texts(rag)) == 5
    assert len(await runtime.catalog.jobs(limit=50)) == 6


async def test_what_a_killed_process_left_is_done_by_the_next(rag: Rag, bucket: Bucket) -> None:
    """Without any worker: it was killed when it had listed the bucket, with its jobs waiting."""
    for number in range(3):
        bucket.put(f"{number}.txt", f"number {number}")
    killed = await listed(rag, bucket)
    plan = await rag.sync(bucket.uri(), dry_run=True)
    assert plan.counts["under_way"] == 3  # a plan does nothing
    assert not (await rag.runtime.catalog.job(killed.job_id)).is_finished

    ended = await rag.sync(bucket.uri())
    assert counts_of(ended) == {"listed": 3, "unchanged": 3}
    assert counts_of(await rag.runtime.catalog.job(killed.job_id)) == {
        "listed": 3,
        "new": 3,
        "created": 3,
    }
    assert len(await texts(rag)) == 3
    assert all(job.is_finished for job in await rag.runtime.catalog.jobs(limit=50))


async def test_cancelling_a_buckets_job_cancels_what_is_left_of_it(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a.txt", "a")
    bucket.put("b.txt", "b")
    job = await listed(rag, bucket)
    cancelled = await rag.runtime.catalog.cancel(job.job_id)
    assert cancelled.status == "cancelled"
    children = await rag._children(job)
    assert [child.status for child in children] == ["cancelled", "cancelled"]
    assert counts_of(await rag.sync(bucket.uri()))["created"] == 2


async def test_the_same_order_that_waits_is_one_job(rag: Rag, bucket: Bucket) -> None:
    order = bucket_order(bucket.uri(), collection="default")
    one, other = await asyncio.gather(
        *(rag.runtime.sync.start(order, submitted_by="test") for _ in range(2))
    )
    assert one.job_id == other.job_id


async def test_only_configured_buckets_are_reached(
    rag: Rag, bucket: Bucket, s3_server: S3Server, database_url: str, data_dir: Path
) -> None:
    other = s3_server.make_bucket()
    with pytest.raises(BucketNotFound, match="not configured"):
        await rag.sync(other.uri())
    server = s3_server.settings(bucket.name, collections=["reports"])
    async with opened(database_url, data_dir / "second", server) as second:
        with pytest.raises(Forbidden, match="not for collection"):
            await second.sync(bucket.uri())
        job = await second.sync(bucket.uri(), collection="reports")
        assert job.status == "succeeded"


async def test_credentials_that_are_refused_and_buckets_that_are_missing_are_told(
    database_url: str, data_dir: Path, s3_server: S3Server, bucket: Bucket
) -> None:
    server = s3_server.settings(bucket.name, "no-such-bucket", secret_key="wrong")
    async with opened(database_url, data_dir, server) as rag:
        job = await rag.sync(bucket.uri())
        assert job.error is not None
        assert job.error.code == "not_configured"
    server = s3_server.settings("no-such-bucket")
    async with opened(database_url, data_dir, server) as rag:
        job = await rag.sync("s3://no-such-bucket")
        assert job.error is not None
        assert job.error.code == "bucket_not_found"


def test_the_bucket_of_the_stored_files_is_no_source(s3_server: S3Server) -> None:
    settings = Settings(
        blobs_url=f"s3://k:s@{s3_server.address}/own?secure=false",  # type: ignore[arg-type]
        buckets={"servers": {"test": s3_server.settings("own")}},  # type: ignore[arg-type]
    )
    with pytest.raises(NotConfigured, match="own files"):
        open_buckets(settings)


# --- events and schedule -------------------------------------------------------------------


def event(bucket: Bucket, key: str) -> dict[str, Any]:
    return {"s3": {"bucket": {"name": bucket.name}, "object": {"key": key}}}


async def test_events_in_any_order_and_number_lead_to_what_is_in_the_bucket(
    rag: Rag, bucket: Bucket
) -> None:
    order = bucket_order(bucket.uri("docs/"), collection="default", delete_missing=True)
    hear = HearEvents(
        rag.runtime.sync, [ScheduledSync("docs", order, 0)], rag.runtime.open_collection
    )
    bucket.put("docs/a b.txt", "first")
    message = {"EventName": "s3:ObjectCreated:Put", "Records": [event(bucket, "docs%2Fa+b.txt")]}
    assert await hear(message) == 1
    assert await hear(message) == 0  # twice
    assert await hear({"Records": [event(bucket, "elsewhere/x.txt")]}) == 0
    await work(rag)
    assert await texts(rag) == {bucket.uri("docs/a b.txt"): "first"}

    bucket.put("docs/a b.txt", "second, longer")
    assert await hear(message) == 1
    await work(rag)
    assert await texts(rag) == {bucket.uri("docs/a b.txt"): "second, longer"}
    assert await hear(message) == 0  # late: it names what is there

    bucket.remove("docs/a b.txt")
    assert await hear(message) == 1  # one of creation, after the removal
    assert await hear(message) == 0
    assert await texts(rag) == {}


async def test_an_object_that_comes_back_while_it_is_deleted_stays(
    rag: Rag, bucket: Bucket
) -> None:
    bucket.put("a.txt", "first")
    (job,) = await rag.ingest(bucket.uri())
    known = await rag.runtime.sources.known_one("default", bucket.name, "a.txt")
    assert known is not None
    bucket.remove("a.txt")
    order = bucket_order(bucket.uri(), collection="default")
    newer = BucketObject(bucket.name, "a.txt", 9, "other", 1)  # another event came meanwhile
    submission = rag.runtime.sync._submission(order, newer, submitted_by="test")
    await rag.runtime.sources.take([submission])
    assert not await rag.runtime.sync._remove(order, [known], actor="test")
    assert (await rag.document(job.document_id)).chunks == 1


async def test_events_in_a_redis_list_are_removed_when_their_jobs_are_durable(
    rag: Rag, bucket: Bucket, redis_url: str
) -> None:
    import redis

    settings = Settings(
        redis_url=redis_url,  # type: ignore[arg-type]
        buckets={"events_key": "bucketevents"},  # type: ignore[arg-type]
    )
    order = bucket_order(bucket.uri(), collection="default")
    hear = HearEvents(
        rag.runtime.sync, [ScheduledSync("all", order, 0)], rag.runtime.open_collection
    )
    bucket.put("a.txt", "told by Redis")
    written = [{"Event": [event(bucket, "a.txt")], "EventTime": "2026-01-12T09:30:00.000Z"}]
    with redis.Redis.from_url(redis_url) as client:
        client.rpush("bucketevents", json.dumps(written), "no JSON", json.dumps(written))
        async with open_bucket_events(settings) as events:
            assert events is not None
            assert await DrainEvents(events, hear)() == 3
        assert client.llen("bucketevents") == 0
    (job,) = await rag.runtime.catalog.jobs()
    assert job.status == "queued"
    await work(rag)
    assert await texts(rag) == {bucket.uri("a.txt"): "told by Redis"}


async def test_a_schedule_queues_what_is_due_once(rag: Rag, bucket: Bucket) -> None:
    bucket.put("a.txt", "now and then")
    order = bucket_order(bucket.uri(), collection="default")
    wanted = ScheduledSync("often", order, every_seconds=3600)
    by_hand = ScheduledSync("never", bucket_order(bucket.uri("x"), collection="default"), 0)
    start = StartDueSyncs(rag.runtime.sync, [wanted, by_hand], rag.runtime.open_collection)
    assert await start.ages() == {"often": None, "never": None}
    assert await start() == 1
    assert await start() == 0  # under way
    (job,) = await rag.runtime.catalog.jobs()
    await rag._finish_bucket(job, None)
    assert await start() == 0  # not due yet
    ages = await start.ages()
    assert ages["often"] is not None
    soon = replace(start, syncs=[replace(wanted, every_seconds=0.001)])
    assert await soon() == 1


# --- helpers -------------------------------------------------------------------------------


def counts_of(job: Any) -> dict[str, int]:
    return {name: count for name, count in job.counts.items() if count}


async def listed(rag: Rag, bucket: Bucket) -> Any:
    """Run a bucket's job and none of its children."""
    order = bucket_order(bucket.uri(), collection="default")
    job = await rag.runtime.sync.start(order, submitted_by="test")
    return await rag.runtime.sync.next(job_id=job.job_id)


async def work(rag: Rag) -> None:
    while await rag.runtime.work.next():
        pass
