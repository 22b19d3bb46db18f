"""What every `ports.Retention` promises."""

from datetime import timedelta

import pytest

from ragcore.errors import DocumentNotFound, IdempotencyConflict, JobNotFound, NotRetryable
from ragcore.model import AuditEntry
from ragcore.ports import Audit, Callbacks, Catalog, Idempotency, Retention
from ragcore.testing.contracts.catalog import FAILURE, HOLD, claimed, ingest, submission

NOW = timedelta(seconds=-1)
"""Older than a moment to come: everything there is."""


class RetentionContract:
    """Subclass, supply `catalog`, `callbacks`, `audit` and `retention` over the same data."""

    async def test_finished_jobs_go_when_they_are_old(
        self, catalog: Catalog, retention: Retention
    ) -> None:
        finished = await ingest(catalog, submission("one"), "one")
        waiting = (await catalog.submit(submission("two"))).job
        assert await retention.forget_jobs(older_than=HOLD) == 0
        assert await retention.forget_jobs(older_than=NOW) == 1
        assert await retention.forget_jobs(older_than=NOW) == 0
        assert await catalog.jobs() == [await catalog.job(waiting.job_id)]
        with pytest.raises(JobNotFound):
            await catalog.job(finished.job.job_id)
        assert (await catalog.document("default", "a")).chunks == 1

    async def test_a_job_that_owes_a_callback_stays(
        self, catalog: Catalog, callbacks: Callbacks, retention: Retention
    ) -> None:
        lease = await ingest(catalog, submission("one", callback_url="http://a"), "one")
        assert await retention.forget_jobs(older_than=NOW) == 0
        await callbacks.delivered(lease.job.job_id)
        assert await retention.forget_jobs(older_than=NOW) == 1

    async def test_so_many_at_a_time(self, catalog: Catalog, retention: Retention) -> None:
        for name in "abc":
            await ingest(catalog, submission(name, document_id=name), name)
        counts = [await retention.forget_jobs(older_than=NOW, limit=2) for _ in range(3)]
        assert counts == [2, 1, 0]

    async def test_versions_of_the_past_go_with_the_last_job_that_names_them(
        self, catalog: Catalog, retention: Retention
    ) -> None:
        for text in ("one", "two"):
            await ingest(catalog, submission(text), text)
        await catalog.cancel((await catalog.submit(submission("three"))).job.job_id)
        assert await retention.forget_versions() == 0
        await retention.forget_jobs(older_than=NOW)
        assert await retention.forget_versions() == 2
        (current,) = await catalog.versions("default", "a")
        assert current.state == "current"

    async def test_a_version_on_its_way_stays(self, catalog: Catalog, retention: Retention) -> None:
        await catalog.submit(submission("one"))
        assert await retention.forget_versions() == 0
        assert len(await catalog.versions("default", "a")) == 1

    async def test_what_can_be_run_again_keeps_its_files(
        self, catalog: Catalog, retention: Retention
    ) -> None:
        job = (await catalog.submit(submission("one"))).job
        lease = await claimed(catalog, job.job_id)
        await catalog.fail(lease, FAILURE)
        assert await retention.forget_versions() == 0
        assert await catalog.are_live([lease.version_id]) == {lease.version_id}
        await retention.forget_jobs(older_than=NOW)
        assert await retention.forget_versions() == 1
        assert await catalog.are_live([lease.version_id]) == set()

    async def test_a_document_that_never_answered_goes_with_its_last_version(
        self, catalog: Catalog, retention: Retention
    ) -> None:
        job = (await catalog.submit(submission("one"))).job
        await catalog.cancel(job.job_id)
        await retention.forget_jobs(older_than=NOW)
        await retention.forget_versions()
        with pytest.raises(DocumentNotFound):
            await catalog.document("default", "a")
        await ingest(catalog, submission("one"), "one")
        assert (await catalog.document("default", "a")).chunks == 1

    async def test_a_key_whose_jobs_are_gone_is_new(
        self, catalog: Catalog, retention: Retention
    ) -> None:
        key = Idempotency("k", b"one")
        first = await catalog.submit(submission("one"), idempotency=key)
        await catalog.fail(await claimed(catalog, first.job.job_id), FAILURE)
        await retention.forget_jobs(older_than=NOW)
        with pytest.raises(JobNotFound):
            await catalog.run_again(first.job.job_id)
        again = await catalog.submit(submission("two"), idempotency=Idempotency("k", b"two"))
        assert again.needs_blob
        same = await catalog.submit(submission("two"), idempotency=Idempotency("k", b"two"))
        assert same.job == again.job
        with pytest.raises(IdempotencyConflict):
            await catalog.submit(submission("one"), idempotency=key)

    async def test_keys_are_kept_for_a_day(self, catalog: Catalog, retention: Retention) -> None:
        key = Idempotency("k", b"one")
        first = await catalog.submit(submission("one"), idempotency=key)
        assert await retention.forget_idempotency_keys() == 0
        assert (await catalog.submit(submission("one"), idempotency=key)).job == first.job

    async def test_the_audit_trail_goes_when_it_is_old(
        self, audit: Audit, retention: Retention
    ) -> None:
        await audit.record([AuditEntry("key.create", "ann"), AuditEntry("key.revoke", "ann")])
        assert await retention.forget_audit(older_than=HOLD) == 0
        assert await retention.forget_audit(older_than=NOW, limit=1) == 1
        assert [entry.action for entry in await audit.entries()] == ["key.revoke"]

    async def test_a_job_of_a_deleted_document_is_not_run_again(
        self, catalog: Catalog, retention: Retention
    ) -> None:
        job = (await catalog.submit(submission("one"))).job
        await catalog.forget("default", ["a"])
        assert await retention.forget_versions() == 0
        with pytest.raises(NotRetryable, match="deleted"):
            await catalog.run_again(job.job_id)
