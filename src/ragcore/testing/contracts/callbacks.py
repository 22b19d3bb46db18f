"""What every `ports.Callbacks` promises."""

import asyncio
from datetime import timedelta
from uuid import UUID

from ragcore.ports import Callbacks, Catalog
from ragcore.testing.contracts.catalog import (
    FAILURE,
    HOLD,
    claimed,
    indexed,
    ingest,
    submission,
)

URL = "http://n8n:5678/webhook/done"


async def owed(catalog: Catalog, text: str = "one", *, document_id: str = "a") -> UUID:
    """Finish a job that somebody wants to hear of."""
    made = submission(text, document_id=document_id, callback_url=URL)
    return (await ingest(catalog, made, text)).job.job_id


class CallbacksContract:
    """Subclass, supply the fixtures `catalog` and `callbacks` over the same jobs."""

    async def test_a_callback_is_due_when_its_job_has_finished(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        job = (await catalog.submit(submission("one", callback_url=URL))).job
        assert await callbacks.claim_due(lease=HOLD) == []
        lease = await claimed(catalog, job.job_id)
        assert await callbacks.claim_due(lease=HOLD) == []
        await catalog.put_in_place(lease, indexed("one"))
        (due,) = await callbacks.claim_due(lease=HOLD)
        assert (due.job, due.url, due.attempts) == (await catalog.job(job.job_id), URL, 0)

    async def test_failed_and_cancelled_jobs_are_told_too(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        failed = (await catalog.submit(submission("one", callback_url=URL))).job
        await catalog.fail(await claimed(catalog, failed.job_id), FAILURE)
        cancelled = (await catalog.submit(submission("two", callback_url=URL))).job
        await catalog.cancel(cancelled.job_id)
        due = await callbacks.claim_due(lease=HOLD)
        assert {(each.job.job_id, each.job.status) for each in due} == {
            (failed.job_id, "failed"),
            (cancelled.job_id, "cancelled"),
        }

    async def test_the_end_by_deletion_is_told_too(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        await catalog.submit(submission("one", callback_url=URL))
        await catalog.forget("default", ["a"])
        (due,) = await callbacks.claim_due(lease=HOLD)
        assert due.job.status == "cancelled"

    async def test_an_unchanged_document_is_told_at_once(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        await ingest(catalog, submission("one"), "one")
        job = await catalog.settle_unchanged(submission("one", callback_url=URL))
        (due,) = await callbacks.claim_due(lease=HOLD)
        assert due.job == job

    async def test_a_job_without_callback_owes_none(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        await ingest(catalog, submission("one"), "one")
        assert await callbacks.claim_due(lease=HOLD) == []

    async def test_a_delivery_has_one_holder(self, catalog: Catalog, callbacks: Callbacks) -> None:
        for name in "abc":
            await owed(catalog, document_id=name)
        found = await asyncio.gather(
            *(callbacks.claim_due(lease=HOLD, limit=2) for _ in range(4)),
        )
        held = [each.job.document_id for some in found for each in some]
        held += [each.job.document_id for each in await callbacks.claim_due(lease=HOLD)]
        assert sorted(held) == ["a", "b", "c"]

    async def test_a_holder_that_dies_leaves_the_delivery_due(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        job_id = await owed(catalog)
        assert len(await callbacks.claim_due(lease=timedelta(seconds=-1))) == 1
        (again,) = await callbacks.claim_due(lease=HOLD)
        assert (again.job.job_id, again.attempts) == (job_id, 1)

    async def test_what_is_delivered_is_settled(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        job_id = await owed(catalog)
        await callbacks.claim_due(lease=timedelta(seconds=-1))
        await callbacks.delivered(job_id)
        await callbacks.failed(job_id, error="too late to matter", after=timedelta())
        assert await callbacks.claim_due(lease=HOLD) == []

    async def test_a_failed_delivery_waits_and_comes_again(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        job_id = await owed(catalog)
        await callbacks.claim_due(lease=HOLD)
        await callbacks.failed(job_id, error="connection refused\0", after=HOLD)
        assert await callbacks.claim_due(lease=HOLD) == []
        await callbacks.failed(job_id, error="500", after=timedelta(seconds=-1))
        (due,) = await callbacks.claim_due(lease=HOLD)
        assert due.attempts == 1

    async def test_a_delivery_can_be_given_up(self, catalog: Catalog, callbacks: Callbacks) -> None:
        job_id = await owed(catalog)
        await callbacks.claim_due(lease=timedelta(seconds=-1))
        await callbacks.failed(job_id, error="410 Gone", after=None)
        assert await callbacks.claim_due(lease=HOLD) == []

    async def test_a_job_that_runs_again_is_told_again(
        self, catalog: Catalog, callbacks: Callbacks
    ) -> None:
        job = (await catalog.submit(submission("one", callback_url=URL))).job
        await catalog.fail(await claimed(catalog, job.job_id), FAILURE)
        await callbacks.claim_due(lease=HOLD)
        await callbacks.delivered(job.job_id)
        await catalog.run_again(job.job_id)
        await callbacks.delivered(job.job_id)  # of the failure, by a slow one: not of what comes
        await catalog.put_in_place(await claimed(catalog, job.job_id), indexed("one"))
        (due,) = await callbacks.claim_due(lease=HOLD)
        assert (due.job.status, due.attempts) == ("succeeded", 0)
