"""What every `ports.Catalog` promises."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from ragcore.errors import (
    CollectionNotFound,
    DocumentNotFound,
    IdempotencyConflict,
    JobNotFound,
    LeaseLost,
    NotRetryable,
)
from ragcore.model import (
    AllOf,
    Chunk,
    Condition,
    Filter,
    Job,
    JobFailure,
    PageMarks,
    ReadingReport,
)
from ragcore.ports import Catalog, DocumentLease, Idempotency, IndexedVersion, Submission

HOLD = timedelta(seconds=60)
_NOW = datetime.now(UTC)
PAGE = PageMarks("https://a.example/", "https://b.example/", etag='"1"', mime_type="text/html")
FAILURE = JobFailure("conversion_failed", "the parser crashed", retryable=False)


def at(minutes: int) -> datetime:
    """A moment so far from now, the same one throughout a run."""
    return _NOW + timedelta(minutes=minutes)


def submission(
    text: str, *, document_id: str = "a", fingerprint: str = "one", **changes: object
) -> Submission:
    made = Submission(
        collection="default",
        document_id=document_id,
        version_id=uuid4(),
        sha256=sha256(text.encode()).digest(),
        size_bytes=len(text),
        fingerprint=fingerprint,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def indexed(*texts: str, title: str | None = None) -> IndexedVersion:
    """A converted version with vectors of three dimensions."""
    vectors = np.eye(3, dtype=np.float32)[np.arange(len(texts)) % 3]
    return IndexedVersion(
        chunks=[
            Chunk(f"{uuid4()}", number, text, text, len(text.split()))
            for number, text in enumerate(texts)
        ],
        vectors=vectors,
        title=title,
        language="en",
        extracted={"author": "Ann"},
        report=ReadingReport(parser="test", profile="text", mime_type="text/plain"),
        timings_ms={"convert": 1.0},
    )


async def claimed(catalog: Catalog, job_id: UUID, *, lease: timedelta = HOLD) -> DocumentLease:
    found = await catalog.claim(owner="me", lease=lease, job_id=job_id)
    assert found is not None
    return found


async def ingest(catalog: Catalog, made: Submission, *texts: str) -> DocumentLease:
    """Submit and put in place."""
    job = (await catalog.submit(made)).job
    lease = await claimed(catalog, job.job_id)
    await catalog.put_in_place(lease, indexed(*texts))
    return lease


class CatalogContract:
    """Subclass, supply a `catalog` fixture with a collection `default`, inherit the tests."""

    # --- submitting and working ------------------------------------------------------------

    async def test_a_submission_becomes_a_document(self, catalog: Catalog) -> None:
        submitted = await catalog.submit(submission("one", title="Given", metadata={"year": 2024}))
        assert submitted.needs_blob
        assert submitted.job.status == "queued"
        lease = await claimed(catalog, submitted.job.job_id)
        assert lease.job.status == "running"
        settled = await catalog.put_in_place(lease, indexed("one", "two", title="Found"))
        assert settled.outcome == "created"
        job = await catalog.job(submitted.job.job_id)
        assert (job.status, job.outcome, job.chunks) == ("succeeded", "created", 2)
        assert job.timings_ms == {"convert": 1.0}
        document = await catalog.document("default", "a")
        assert (document.title, document.chunks, document.language) == ("Given", 2, "en")
        assert document.metadata == {"year": 2024}
        assert document.extracted == {"author": "Ann"}
        report = await catalog.reading_report("default", "a")
        assert report.mime_type == "text/plain"

    async def test_a_title_found_in_the_file_is_the_second_choice(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        await catalog.put_in_place(
            await claimed(catalog, job.job_id), indexed("one", title="Found")
        )
        assert (await catalog.document("default", "a")).title == "Found"

    async def test_a_collection_must_exist(self, catalog: Catalog) -> None:
        with pytest.raises(CollectionNotFound, match="nowhere"):
            await catalog.submit(submission("one", collection="nowhere"))

    async def test_the_same_bytes_again_are_unchanged(self, catalog: Catalog) -> None:
        first = await ingest(catalog, submission("one"), "one")
        again = submission("one")
        job = await catalog.settle_unchanged(again)
        assert job is not None
        assert (job.status, job.outcome, job.chunks) == ("succeeded", "unchanged", 1)
        submitted = await catalog.submit(again)
        assert (submitted.job.outcome, submitted.needs_blob) == ("unchanged", False)
        assert (await catalog.document("default", "a")).version_id == first.version_id

    async def test_other_metadata_on_the_same_bytes_updates(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", metadata={"year": 1}), "one")
        job = await catalog.settle_unchanged(submission("one", metadata={"year": 2}))
        assert job is not None
        assert job.outcome == "updated"
        assert (await catalog.document("default", "a")).metadata == {"year": 2}

    async def test_metadata_that_is_not_given_stays(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", metadata={"year": 1}, title="Kept"), "one")
        await ingest(catalog, submission("two"), "two")
        assert (await catalog.document("default", "a")).metadata == {"year": 1}

    async def test_another_pipeline_is_work(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one"), "one")
        assert await catalog.settle_unchanged(submission("one", fingerprint="two")) is None
        assert (await catalog.submit(submission("one", fingerprint="two"))).needs_blob

    async def test_a_version_is_known_by_the_pipeline_that_made_it(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one", fingerprint="old"))).job
        made = replace(indexed("one"), fingerprint="new")
        await catalog.put_in_place(await claimed(catalog, job.job_id), made)
        assert await catalog.settle_unchanged(submission("one", fingerprint="old")) is None
        assert await catalog.settle_unchanged(submission("one", fingerprint="new")) is not None

    async def test_a_new_version_replaces_the_old(self, catalog: Catalog) -> None:
        old = await ingest(catalog, submission("one"), "one", "more")
        job = (await catalog.submit(submission("two"))).job
        settled = await catalog.put_in_place(await claimed(catalog, job.job_id), indexed("two"))
        assert (settled.outcome, settled.retired) == ("updated", (old.version_id,))
        assert (await catalog.document("default", "a")).chunks == 1
        assert await catalog.are_live([old.version_id]) == set()

    async def test_the_order_of_arrival_decides(self, catalog: Catalog) -> None:
        old = (await catalog.submit(submission("one"))).job
        slow = await claimed(catalog, old.job_id)
        new = await ingest(catalog, submission("two"), "two")
        settled = await catalog.put_in_place(slow, indexed("one"))
        assert (settled.outcome, settled.retired) == ("superseded", (slow.version_id,))
        assert (await catalog.document("default", "a")).version_id == new.version_id
        assert (await catalog.job(old.job_id)).outcome == "superseded"

    async def test_older_jobs_that_nobody_holds_end_with_a_newer_version(
        self, catalog: Catalog
    ) -> None:
        old = (await catalog.submit(submission("one"))).job
        newer = (await catalog.submit(submission("two"))).job
        lease = await claimed(catalog, newer.job_id)
        await catalog.put_in_place(lease, indexed("two"))
        assert (await catalog.job(old.job_id)).outcome == "superseded"
        assert await catalog.claim(owner="me", lease=HOLD) is None

    async def test_older_bytes_sent_again_are_newer(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one"), "one")
        await catalog.submit(submission("two"))
        assert await catalog.settle_unchanged(submission("one")) is None

    async def test_a_repeat_that_was_queued_is_settled_without_work(self, catalog: Catalog) -> None:
        known: dict[str, Any] = {"uri": "file:///a", "metadata": {"year": 1}}
        first = (await catalog.submit(submission("one", **known))).job
        second = (await catalog.submit(submission("one", **known))).job
        await catalog.put_in_place(await claimed(catalog, first.job_id), indexed("one"))
        lease = await claimed(catalog, second.job_id)
        settled = await catalog.settle_repeated(lease)
        assert settled is not None
        assert (settled.outcome, settled.retired) == ("unchanged", (lease.version_id,))

    async def test_what_was_sent_between_repeats_does_not_replace_the_last(
        self, catalog: Catalog
    ) -> None:
        first = (await catalog.submit(submission("one", priority=1))).job
        between = (await catalog.submit(submission("two"))).job
        again = (await catalog.submit(submission("one", priority=1))).job
        await catalog.put_in_place(await claimed(catalog, first.job_id), indexed("one"))
        lease = await claimed(catalog, again.job_id)
        settled = await catalog.settle_repeated(lease)
        assert settled is not None
        assert settled.outcome == "unchanged"
        assert (await catalog.job(between.job_id)).outcome == "superseded"
        assert len(settled.retired) == 2
        assert next(v.state for v in await catalog.versions("default", "a")) == "current"

    async def test_what_another_holds_between_repeats_does_not_replace_the_last(
        self, catalog: Catalog
    ) -> None:
        first = (await catalog.submit(submission("one"))).job
        between = (await catalog.submit(submission("two"))).job
        again = (await catalog.submit(submission("one"))).job
        held = await claimed(catalog, between.job_id)
        await catalog.put_in_place(await claimed(catalog, first.job_id), indexed("one"))
        await catalog.settle_repeated(await claimed(catalog, again.job_id))
        assert (await catalog.put_in_place(held, indexed("two"))).outcome == "superseded"

    async def test_a_queued_repeat_that_says_more_updates(self, catalog: Catalog) -> None:
        first = (await catalog.submit(submission("one"))).job
        second = (await catalog.submit(submission("one", metadata={"year": 2}))).job
        await catalog.put_in_place(await claimed(catalog, first.job_id), indexed("one"))
        settled = await catalog.settle_repeated(await claimed(catalog, second.job_id))
        assert settled is not None
        assert settled.outcome == "updated"
        assert (await catalog.document("default", "a")).metadata == {"year": 2}

    async def test_work_that_is_needed_is_not_settled(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        assert await catalog.settle_repeated(await claimed(catalog, job.job_id)) is None

    # --- idempotency -----------------------------------------------------------------------

    async def test_an_idempotency_key_gives_the_first_answer(self, catalog: Catalog) -> None:
        key = Idempotency("k", b"body")
        first = await catalog.submit(submission("one", callback_url="http://a"), idempotency=key)
        again = await catalog.submit(submission("one", callback_url="http://a"), idempotency=key)
        assert again.job.job_id == first.job.job_id
        assert not again.needs_blob

    async def test_an_idempotency_key_with_another_body_conflicts(self, catalog: Catalog) -> None:
        await catalog.submit(submission("one"), idempotency=Idempotency("k", b"body"))
        with pytest.raises(IdempotencyConflict, match="'k'"):
            await catalog.submit(submission("one"), idempotency=Idempotency("k", b"other"))

    async def test_idempotency_keys_are_apart_by_scope(self, catalog: Catalog) -> None:
        first = await catalog.submit(
            submission("one"), idempotency=Idempotency("k", b"one", scope="ann")
        )
        other = await catalog.submit(
            submission("two"), idempotency=Idempotency("k", b"two", scope="bob")
        )
        assert first.job.job_id != other.job.job_id

    async def test_one_key_covers_all_documents_of_a_request(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("old", document_id="old"), "old")
        names = ("new", "old", "more")
        request = [submission(name, document_id=name) for name in names]
        key = Idempotency("k", b"body")
        first = await catalog.submit_all(request, idempotency=key)
        assert [each.job.document_id for each in first] == list(names)
        assert [each.needs_blob for each in first] == [True, False, True]
        again = await catalog.submit_all(
            [submission(name, document_id=name) for name in names], idempotency=key
        )
        assert [each.job for each in again] == [each.job for each in first]
        assert not any(each.needs_blob for each in again)

    async def test_documents_of_a_request_are_recorded_all_or_none(self, catalog: Catalog) -> None:
        request = [submission("one"), submission("two", collection="nowhere")]
        key = Idempotency("k", b"body")
        with pytest.raises(CollectionNotFound):
            await catalog.submit_all(request, idempotency=key)
        assert await catalog.jobs() == []
        assert (await catalog.submit_all(request[:1], idempotency=key))[0].needs_blob

    async def test_the_same_document_twice_in_a_request_is_two_versions(
        self, catalog: Catalog
    ) -> None:
        first, second = await catalog.submit_all([submission("one"), submission("two")])
        assert [v.sequence for v in await catalog.versions("default", "a")] == [2, 1]
        await catalog.put_in_place(await claimed(catalog, second.job.job_id), indexed("two"))
        assert (await catalog.job(first.job.job_id)).outcome == "superseded"

    # --- leases ----------------------------------------------------------------------------

    async def test_a_claim_tells_which_request_made_the_job(self, catalog: Catalog) -> None:
        await catalog.submit(submission("one", request_id="r-1"))
        lease = await catalog.claim(owner="me", lease=HOLD)
        assert lease is not None
        assert lease.request_id == "r-1"

    async def test_a_claim_may_pass_over_large_files(self, catalog: Catalog) -> None:
        await catalog.submit(submission("x" * 100, document_id="large", priority=5))
        await catalog.submit(submission("x" * 10, document_id="small"))
        small = await catalog.claim(owner="me", lease=HOLD, at_most_bytes=10)
        assert small is not None
        assert small.job.document_id == "small"
        assert await catalog.claim(owner="me", lease=HOLD, at_most_bytes=99) is None
        assert await catalog.claim(owner="me", lease=HOLD) is not None

    async def test_the_best_job_goes_first(self, catalog: Catalog) -> None:
        await catalog.submit(submission("one", document_id="a"))
        await catalog.submit(submission("two", document_id="b"))
        await catalog.submit(submission("three", document_id="c", priority=5))
        assert [job.document_id for job in await catalog.waiting()] == ["c", "a", "b"]
        order = [await catalog.claim(owner="me", lease=HOLD) for _ in range(4)]
        assert [lease and lease.job.document_id for lease in order] == ["c", "a", "b", None]

    async def test_a_job_has_one_holder(self, catalog: Catalog) -> None:
        await catalog.submit(submission("one"))
        leases = await asyncio.gather(*(catalog.claim(owner=f"{n}", lease=HOLD) for n in range(8)))
        assert len([lease for lease in leases if lease is not None]) == 1

    async def test_who_lost_the_lease_writes_nothing(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        slow = await claimed(catalog, job.job_id, lease=timedelta(seconds=-1))
        assert [j.job_id for j in await catalog.release_expired()] == [job.job_id]
        assert await catalog.release_expired() == []
        fast = await claimed(catalog, job.job_id)
        assert fast.job.attempts == 2
        for call in (
            catalog.renew(slow, duration=HOLD, stage="storing", progress=1.0),
            catalog.put_in_place(slow, indexed("slow")),
            catalog.fail(slow, FAILURE),
            catalog.retry(slow, FAILURE, after=timedelta()),
        ):
            with pytest.raises(LeaseLost):
                await call
        await catalog.put_in_place(fast, indexed("fast", "er"))
        assert (await catalog.document("default", "a")).chunks == 2
        with pytest.raises(LeaseLost):
            await catalog.put_in_place(fast, indexed("again"))

    async def test_renewing_tells_the_progress(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        lease = await claimed(catalog, job.job_id)
        await catalog.renew(lease, duration=HOLD, stage="embedding", progress=0.5)
        seen = await catalog.job(job.job_id)
        assert (seen.stage, seen.progress) == ("embedding", 0.5)

    async def test_a_failed_update_leaves_the_old_version(self, catalog: Catalog) -> None:
        old = await ingest(catalog, submission("one"), "one")
        job = (await catalog.submit(submission("two"))).job
        lease = await claimed(catalog, job.job_id)
        await catalog.fail(lease, FAILURE)
        failed = await catalog.job(job.job_id)
        assert (failed.status, failed.error) == ("failed", FAILURE)
        assert (await catalog.document("default", "a")).version_id == old.version_id
        assert await catalog.are_live([old.version_id, lease.version_id]) == {
            old.version_id,
            lease.version_id,  # a retry by hand needs its file
        }

    async def test_a_retry_waits_its_time(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        await catalog.retry(await claimed(catalog, job.job_id), FAILURE, after=HOLD)
        assert (await catalog.job(job.job_id)).status == "queued"
        assert await catalog.claim(owner="me", lease=HOLD) is None
        assert await catalog.waiting() == []

    async def test_a_cancelled_job_takes_the_lease(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        lease = await claimed(catalog, job.job_id)
        assert (await catalog.cancel(job.job_id)).status == "cancelled"
        with pytest.raises(LeaseLost):
            await catalog.put_in_place(lease, indexed("one"))

    async def test_a_finished_job_is_not_cancelled(self, catalog: Catalog) -> None:
        lease = await ingest(catalog, submission("one"), "one")
        assert (await catalog.cancel(lease.job.job_id)).status == "succeeded"

    async def test_jobs_are_told_by_what_they_are_for(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", document_id="a"), "one")
        await catalog.submit(submission("two", document_id="b"))
        assert [j.document_id for j in await catalog.jobs()] == ["b", "a"]
        assert [j.document_id for j in await catalog.jobs(status="queued")] == ["b"]
        assert [j.document_id for j in await catalog.jobs(document_id="a")] == ["a"]
        assert await catalog.jobs(collections={"other"}) == []
        with pytest.raises(JobNotFound):
            await catalog.job(uuid4())

    async def test_jobs_come_in_pages(self, catalog: Catalog) -> None:
        made = [
            await catalog.submit(submission(name, document_id=name))
            for name in ("a", "b", "c", "d")
        ]
        await catalog.submit_all([submission(name, document_id=name) for name in ("e", "f", "g")])
        everything = await catalog.jobs()
        assert [job.document_id for job in everything] == list("gfedcba")
        pages: list[Job] = []
        while page := await catalog.jobs(limit=2, after=pages[-1].job_id if pages else None):
            pages += page
        assert pages == list(everything)
        queued = await catalog.jobs(
            collections={"default", "other"}, status="queued", after=made[1].job.job_id
        )
        assert [job.document_id for job in queued] == ["a"]
        assert await catalog.jobs(collections=set()) == []
        with pytest.raises(JobNotFound):
            await catalog.jobs(after=uuid4())

    async def test_the_queue_tells_its_state(self, catalog: Catalog) -> None:
        empty = await catalog.queue_state()
        assert set(empty.jobs.values()) == {0}
        assert empty.oldest_waiting_seconds == 0
        await ingest(catalog, submission("one", document_id="a"), "one")
        await catalog.submit(submission("two", document_id="b"))
        job = (await catalog.submit(submission("three", document_id="c"))).job
        await catalog.retry(await claimed(catalog, job.job_id), FAILURE, after=HOLD)
        state = await catalog.queue_state()
        assert state.jobs == {
            "queued": 2,
            "running": 0,
            "succeeded": 1,
            "failed": 0,
            "cancelled": 0,
        }
        assert 0 < state.oldest_waiting_seconds < 60

    async def test_a_job_given_back_was_never_claimed(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        lease = await claimed(catalog, job.job_id)
        await catalog.give_back(lease)
        again = await claimed(catalog, job.job_id)
        assert (again.job.attempts, again.crashes) == (1, 0)
        with pytest.raises(LeaseLost):
            await catalog.give_back(lease)

    async def test_a_lease_that_ran_out_counts_as_a_crash_of_its_worker(
        self, catalog: Catalog
    ) -> None:
        job = (await catalog.submit(submission("one"))).job
        lost = await claimed(catalog, job.job_id, lease=timedelta(seconds=-1))
        await catalog.release_expired()
        second = await claimed(catalog, job.job_id, lease=timedelta(seconds=-1))
        assert (second.crashes, second.tries) == (1, 1)
        await catalog.survived(lost)
        await catalog.release_expired()
        third = await claimed(catalog, job.job_id)
        assert third.crashes == 1
        await catalog.put_in_place(third, indexed("one"))
        await catalog.survived(lost)  # too late: nothing happens

    async def test_a_job_that_lost_several_workers_waits(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        for _ in range(2):  # the first time it is taken over at once
            await claimed(catalog, job.job_id, lease=timedelta(seconds=-1))
            (released,) = await catalog.release_expired(pause=timedelta(hours=1))
            assert released.status == "queued"
        assert await catalog.waiting() == []
        assert await catalog.claim(owner="w", lease=timedelta(seconds=1)) is None

    # --- once more -------------------------------------------------------------------------

    @pytest.mark.parametrize("ending", ["failed", "cancelled"])
    async def test_what_did_not_succeed_is_run_again(self, catalog: Catalog, ending: str) -> None:
        job = (await catalog.submit(submission("one"))).job
        lease = await claimed(catalog, job.job_id)
        if ending == "failed":
            await catalog.fail(lease, FAILURE)
        else:
            await catalog.cancel(job.job_id)
        again = await catalog.run_again(job.job_id)
        assert (again.job_id, again.status, again.attempts) == (job.job_id, "queued", 0)
        assert (again.error, again.finished_at) == (None, None)
        assert await catalog.are_live([lease.version_id]) == {lease.version_id}
        (version,) = await catalog.versions("default", "a")
        assert version.state == "pending"
        with pytest.raises(LeaseLost):
            await catalog.put_in_place(lease, indexed("one"))
        await catalog.put_in_place(await claimed(catalog, job.job_id), indexed("one"))
        assert (await catalog.job(job.job_id)).outcome == "created"

    async def test_what_is_too_old_to_run_again_is_superseded(self, catalog: Catalog) -> None:
        old = (await catalog.submit(submission("one"))).job
        await catalog.fail(await claimed(catalog, old.job_id), FAILURE)
        new = await ingest(catalog, submission("two"), "two")
        again = await catalog.run_again(old.job_id)
        assert (again.status, again.outcome, again.error) == ("succeeded", "superseded", None)
        assert await catalog.claim(owner="me", lease=HOLD) is None
        assert (await catalog.document("default", "a")).version_id == new.version_id
        states = [version.state for version in await catalog.versions("default", "a")]
        assert states == ["current", "superseded"]

    async def test_what_has_not_failed_is_not_run_again(self, catalog: Catalog) -> None:
        done = await ingest(catalog, submission("one"), "one")
        waiting = (await catalog.submit(submission("two"))).job
        for job_id in (done.job.job_id, waiting.job_id):
            with pytest.raises(NotRetryable):
                await catalog.run_again(job_id)
        with pytest.raises(JobNotFound):
            await catalog.run_again(uuid4())

    async def test_failed_jobs_that_match_are_run_again(self, catalog: Catalog) -> None:
        failures = {"a": FAILURE, "b": FAILURE, "c": replace(FAILURE, code="internal")}
        failed = {}
        for name in ("b", "a", "c"):
            job = (await catalog.submit(submission(name, document_id=name))).job
            await catalog.fail(await claimed(catalog, job.job_id), failures[name])
            failed[name] = job.job_id
        cancelled = (await catalog.submit(submission("d", document_id="d"))).job
        await catalog.cancel(cancelled.job_id)
        gone = (await catalog.submit(submission("e", document_id="e"))).job
        await catalog.fail(await claimed(catalog, gone.job_id), FAILURE)
        await catalog.forget("default", ["e"])
        assert await catalog.run_failed_again(collections={"other"}) == []
        assert await catalog.run_failed_again(document_id="nowhere") == []
        first = await catalog.run_failed_again(code=FAILURE.code, limit=1)
        assert [job.job_id for job in first] == [failed["b"]]
        again = await catalog.run_failed_again(collections={"default"}, code=FAILURE.code)
        assert [(job.job_id, job.status) for job in again] == [(failed["a"], "queued")]
        assert [job.job_id for job in await catalog.run_failed_again()] == [failed["c"]]
        assert await catalog.run_failed_again() == []

    async def test_several_jobs_are_told_at_once(self, catalog: Catalog) -> None:
        jobs = [(await catalog.submit(submission(text))).job for text in ("one", "two", "three")]
        asked = [jobs[2].job_id, uuid4(), jobs[0].job_id]
        found = {job.job_id: job for job in await catalog.jobs_by_id(asked)}
        assert found == {job.job_id: job for job in (jobs[0], jobs[2])}
        assert await catalog.jobs_by_id([]) == []

    # --- documents -------------------------------------------------------------------------

    async def test_documents_come_in_pages(self, catalog: Catalog) -> None:
        for name in ("c", "a", "b"):
            await ingest(catalog, submission(name, document_id=name), name)
        await catalog.submit(submission("on its way", document_id="d"))
        first = await catalog.documents("default", limit=2)
        assert [d.document_id for d in first] == ["a", "b"]
        rest = await catalog.documents("default", limit=2, after="b")
        assert [d.document_id for d in rest] == ["c"]

    @pytest.mark.parametrize(
        ("filters", "expected"),
        [
            (Condition("year", "gte", 2), ["b"]),
            (Condition("year", "ne", 1), ["b", "c"]),
            (Condition("document_id", "in", ["a", "c"]), ["a", "c"]),
            (Condition("language", "eq", "en"), ["a", "b", "c"]),
            (AllOf((Condition("year", "exists", True), Condition("year", "lt", 2))), ["a"]),
        ],
    )
    async def test_documents_are_filtered(
        self, catalog: Catalog, filters: Filter, expected: list[str]
    ) -> None:
        await ingest(catalog, submission("one", document_id="a", metadata={"year": 1}), "one")
        await ingest(catalog, submission("two", document_id="b", metadata={"year": 2}), "two")
        await ingest(catalog, submission("three", document_id="c"), "three")
        found = await catalog.documents("default", filters=filters)
        assert [d.document_id for d in found] == expected

    @pytest.mark.parametrize(
        "doubt",
        [
            {"pages_without_text": (2,)},
            {"ocr_confidence": 0.5},
            {"replaced_characters": 1},
            {"warnings": ("a table was lost",)},
        ],
        ids=lambda doubt: next(iter(doubt)),
    )
    async def test_badly_read_documents_can_be_found(
        self, catalog: Catalog, doubt: dict[str, Any]
    ) -> None:
        await ingest(catalog, submission("fine", document_id="fine"), "fine")
        job = (await catalog.submit(submission("bad", document_id="bad"))).job
        version = indexed("bad")
        version = replace(version, report=replace(version.report, **doubt))
        await catalog.put_in_place(await claimed(catalog, job.job_id), version)
        found = await catalog.documents("default", doubtful=True)
        assert [d.document_id for d in found] == ["bad"]

    async def test_a_document_is_described_anew(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", metadata={"year": 1}), "one")
        changed = await catalog.update_document("default", "a", title="New")
        assert (changed.title, changed.metadata) == ("New", {"year": 1})
        changed = await catalog.update_document("default", "a", metadata={})
        assert (changed.title, changed.metadata) == ("New", {})
        with pytest.raises(DocumentNotFound, match="'b'"):
            await catalog.update_document("default", "b", title="New")

    async def test_a_document_is_found_by_where_it_came_from(self, catalog: Catalog) -> None:
        await catalog.submit(submission("one", document_id="a", uri="http://a"))
        await ingest(catalog, submission("two", document_id="b", uri="http://a"), "two")
        await catalog.submit(submission("three", document_id="c", uri="http://a"))
        assert (await catalog.document_by_uri("default", "http://a")).document_id == "b"
        with pytest.raises(DocumentNotFound, match="http://b"):
            await catalog.document_by_uri("default", "http://b")
        with pytest.raises(DocumentNotFound):
            await catalog.document_by_uri("other", "http://a")

    async def test_a_document_with_a_very_long_uri_is_found_by_it(self, catalog: Catalog) -> None:
        """Longer than an index of PostgreSQL takes, of letters that can't be packed."""
        letters = [sha256(bytes([number])).hexdigest() for number in range(64)]
        uri = "https://example.org/" + "".join(letters)
        await ingest(catalog, submission("text", uri=uri), "text")
        assert (await catalog.document_by_uri("default", uri)).document_id == "a"
        with pytest.raises(DocumentNotFound):
            await catalog.document_by_uri("default", uri + "x")

    async def test_the_page_of_what_is_in_place_is_known(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", marks=PAGE, title="T", filename="a.html"), "text")
        known = await catalog.page("default", "a")
        assert known is not None
        assert (known.marks, known.title, known.filename) == (PAGE, "T", "a.html")
        assert (known.sha256, known.size_bytes) == (sha256(b"one").digest(), 3)
        assert await catalog.page("default", "b") is None

    async def test_a_page_is_not_known_while_something_newer_is_on_its_way(
        self, catalog: Catalog
    ) -> None:
        await ingest(catalog, submission("one", marks=PAGE), "text")
        await catalog.submit(submission("two"))
        assert await catalog.page("default", "a") is None

    async def test_what_came_otherwise_has_no_page(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", marks=PAGE), "text")
        await ingest(catalog, submission("two"), "text")
        assert await catalog.page("default", "a") is None

    async def test_the_same_bytes_are_known_by_their_newest_marks(self, catalog: Catalog) -> None:
        newer, newest = replace(PAGE, etag='"2"'), replace(PAGE, etag='"3"')
        await ingest(catalog, submission("one"), "text")
        assert await catalog.settle_unchanged(submission("one", marks=PAGE)) is not None
        known = await catalog.page("default", "a")
        assert known is not None and known.marks == PAGE
        await catalog.submit(submission("two"))
        job = (await catalog.submit(submission("one", marks=newer))).job
        await catalog.settle_repeated(await claimed(catalog, job.job_id))
        known = await catalog.page("default", "a")
        assert known is not None and known.marks == newer
        await catalog.submit(submission("one", marks=newest))
        known = await catalog.page("default", "a")
        assert known is not None and known.marks == newest

    async def test_a_document_tells_its_versions(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", filename="one.txt"), "one")
        new = await ingest(catalog, submission("second"), "two", "more")
        job = (await catalog.submit(submission("three"))).job
        await catalog.fail(await claimed(catalog, job.job_id), FAILURE)
        versions = await catalog.versions("default", "a")
        assert [version.state for version in versions] == ["failed", "current", "replaced"]
        assert [version.sequence for version in versions] == [3, 2, 1]
        current = versions[1]
        assert (current.version_id, current.chunks, current.size_bytes) == (new.version_id, 2, 6)
        assert current.sha256 == sha256(b"second").hexdigest()
        assert versions[2].filename == "one.txt"
        with pytest.raises(DocumentNotFound):
            await catalog.versions("default", "b")

    # --- expiry ----------------------------------------------------------------------------

    async def test_a_document_expires(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", document_id="old", expires_at=at(-60)), "one")
        await ingest(catalog, submission("two", document_id="older", expires_at=at(-90)), "two")
        await ingest(catalog, submission("three", document_id="young", expires_at=at(60)), "three")
        await ingest(catalog, submission("four", document_id="eternal"), "four")
        assert await catalog.expired() == [("default", "older"), ("default", "old")]
        assert await catalog.expired(limit=1) == [("default", "older")]
        receipt, _ = await catalog.forget("default", ["old", "young", "eternal"], only_expired=True)
        assert receipt.document_ids == ("old",)

    async def test_a_document_that_never_got_in_place_expires_too(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one", expires_at=at(-60)))).job
        await catalog.fail(await claimed(catalog, job.job_id), FAILURE)
        assert await catalog.expired() == [("default", "a")]

    async def test_an_expiry_can_be_changed_and_taken_away(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", expires_at=at(60)), "one")
        assert (await catalog.document("default", "a")).expires_at == at(60)
        changed = await catalog.update_document("default", "a", expires_at=at(90))
        assert changed.expires_at == at(90)
        assert (await catalog.update_document("default", "a", title="New")).expires_at == at(90)
        changed = await catalog.update_document("default", "a", never_expires=True)
        assert changed.expires_at is None

    async def test_an_expiry_that_is_not_given_stays(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", expires_at=at(60)), "one")
        await ingest(catalog, submission("two"), "two")
        assert (await catalog.document("default", "a")).expires_at == at(60)
        job = await catalog.settle_unchanged(submission("two"))
        assert job is not None and job.outcome == "unchanged"
        job = await catalog.settle_unchanged(submission("two", expires_at=at(90)))
        assert job is not None and job.outcome == "updated"
        assert (await catalog.document("default", "a")).expires_at == at(90)

    async def test_an_expired_document_that_is_sent_again_lives_on(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", expires_at=at(-60)), "one")
        job = (await catalog.submit(submission("two"))).job
        assert await catalog.expired() == []
        receipt, _ = await catalog.forget("default", ["a"], only_expired=True)
        assert receipt.document_ids == ()
        await catalog.put_in_place(await claimed(catalog, job.job_id), indexed("two"))
        assert (await catalog.document("default", "a")).expires_at is None

    async def test_an_expired_document_that_is_sent_again_unchanged_lives_on(
        self, catalog: Catalog
    ) -> None:
        await ingest(catalog, submission("one", expires_at=at(-60)), "one")
        job = await catalog.settle_unchanged(submission("one"))
        assert job is not None and job.outcome == "updated"
        assert await catalog.expired() == []

    async def test_an_update_that_fails_lets_the_document_expire(self, catalog: Catalog) -> None:
        await ingest(catalog, submission("one", expires_at=at(-60)), "one")
        job = (await catalog.submit(submission("two", expires_at=at(60)))).job
        assert await catalog.expired() == []
        await catalog.cancel(job.job_id)
        assert await catalog.expired() == [("default", "a")]

    # --- forgetting ------------------------------------------------------------------------

    async def test_documents_that_match_are_named_a_page_at_a_time(self, catalog: Catalog) -> None:
        for name, year in (("c", 1), ("a", 1), ("b", 2)):
            made = submission(name, document_id=name, metadata={"year": year})
            await ingest(catalog, made, name)
        wanted = Condition("year", "eq", 1)
        assert await catalog.matching("default", wanted) == ["a", "c"]
        assert await catalog.matching("default", AllOf(()), limit=2) == ["a", "b"]
        assert await catalog.matching("default", AllOf(()), limit=2, after="b") == ["c"]
        assert await catalog.matching("other", AllOf(())) == []

    async def test_documents_on_their_way_match_by_what_was_submitted(
        self, catalog: Catalog
    ) -> None:
        await catalog.submit(submission("one", document_id="on-its-way", metadata={"year": 1}))
        await catalog.submit(submission("two", document_id="other", metadata={"year": 2}))
        failed = submission("three", document_id="failed", metadata={"year": 1}, title="Three")
        job = (await catalog.submit(failed)).job
        await catalog.fail(await claimed(catalog, job.job_id), FAILURE)
        await ingest(catalog, submission("four", document_id="in-place"), "four")
        await catalog.submit(submission("five", document_id="in-place", metadata={"year": 1}))
        wanted = Condition("year", "eq", 1)
        assert await catalog.matching("default", wanted) == ["failed", "on-its-way"]
        assert await catalog.matching("default", wanted, limit=1) == ["failed"]
        assert await catalog.matching("default", wanted, after="failed") == ["on-its-way"]
        assert await catalog.matching("default", Condition("title", "eq", "Three")) == ["failed"]
        assert len(await catalog.matching("default", AllOf(()))) == 4

    async def test_forgetting_leaves_nothing(self, catalog: Catalog) -> None:
        kept = await ingest(catalog, submission("one", document_id="kept"), "one")
        gone = await ingest(catalog, submission("two", document_id="gone"), "two", "more")
        waiting = (await catalog.submit(submission("three", document_id="gone"))).job
        lease = await claimed(catalog, waiting.job_id)
        versions = {gone.version_id, lease.version_id}
        expected = await catalog.to_forget("default", ["gone", "unknown"])
        assert (expected.document_ids, expected.chunks, expected.versions) == (("gone",), 2, 2)
        receipt, retired = await catalog.forget("default", ["gone", "unknown"])
        assert receipt == expected
        assert set(retired) == versions
        assert await catalog.are_live([kept.version_id, *versions]) == {kept.version_id}
        with pytest.raises(DocumentNotFound):
            await catalog.document("default", "gone")
        with pytest.raises(LeaseLost):
            await catalog.put_in_place(lease, indexed("three"))
        assert (await catalog.job(waiting.job_id)).status == "cancelled"
        receipt, retired = await catalog.forget("default", ["gone"])
        assert (receipt.document_ids, list(retired)) == ((), [])

    async def test_a_forgotten_document_can_come_back(self, catalog: Catalog) -> None:
        job = (await catalog.submit(submission("one"))).job
        late = await claimed(catalog, job.job_id)
        await catalog.forget("default", ["a"])
        await ingest(catalog, submission("two"), "two")
        with pytest.raises(LeaseLost):
            await catalog.put_in_place(late, indexed("one"))
        assert (await catalog.document("default", "a")).chunks == 1
