"""Random histories of the catalogue: PostgreSQL and memory answer alike, and nothing is lost."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, LiteralString
from uuid import UUID

import hypothesis.strategies as st
import psycopg
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.adapters.postgres.retention import PostgresRetention
from ragcore.errors import RagError
from ragcore.model import EmbeddingSpec, Job, JobFailure
from ragcore.ports import Catalog, Idempotency, IndexedVersion, Lease, Settled, Submission
from ragcore.testing.contracts.catalog import indexed, submission
from ragcore.testing.memory.audit import MemoryAudit
from ragcore.testing.memory.catalog import MemoryCatalog
from ragcore.testing.memory.retention import MemoryRetention

NAMES = ("a", "b")
TEXTS = ("one", "two two", "three three three")
PASSING = JobFailure("model_unavailable", "no answer", retryable=True)
LASTING = JobFailure("conversion_failed", "the parser crashed", retryable=False)
FOR_LONG = timedelta(minutes=10)
GONE = timedelta(seconds=-1)
"""The lease of a worker that dies as soon as it has the job."""


@dataclass(frozen=True)
class Twins:
    """The same thing as PostgreSQL and as memory know it."""

    real: Any
    model: Any

    def of(self, catalog: Catalog) -> Any:
        return self.real if isinstance(catalog, PostgresCatalog) else self.model


@dataclass(frozen=True)
class Sent:
    document_id: str
    text: str
    job_id: UUID


class Stores:
    """Both catalogues, on one event loop that stays."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._connection = psycopg.connect(database_url, autocommit=True)

    def __enter__(self) -> "Stores":
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self.run(self._stack.aclose())
        self._runner.close()

    async def _open(self) -> None:
        pool = await self._stack.enter_async_context(open_pool(self._url, size=2))
        spec = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)
        await PostgresCollections(pool).open("default", embedding=spec, chunker="test")
        self.catalog = PostgresCatalog(pool)
        self.retention = PostgresRetention(pool)

    def run(self, call: Awaitable[Any]) -> Any:
        async def awaited() -> Any:
            return await call

        return self._runner.run(awaited())

    def rows(self, statement: LiteralString) -> list[Any]:
        cursor = self._connection.execute(statement)
        return cursor.fetchall() if cursor.description else []

    def empty(self) -> None:
        self.rows(
            "TRUNCATE ragcore.jobs, ragcore.versions, ragcore.documents, ragcore.idempotency_keys,"
            ' vecs."default" CASCADE'  # and what refers to them
        )


class Histories(RuleBasedStateMachine):
    """Uploads, workers that end well, badly or not at all, and people who change their minds."""

    stores: Stores

    jobs = Bundle("jobs")
    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.stores.empty()
        self.model = MemoryCatalog("default")
        self.model_retention = MemoryRetention(self.model, MemoryAudit())
        self.sent: list[Sent] = []
        """What was acknowledged, in order, of documents that were not deleted since."""
        self.texts: dict[UUID, str] = {}
        """By version."""
        self.acknowledged: set[UUID] = set()
        """Every job there ever was."""
        self.succeeded: set[UUID] = set()
        """Jobs that succeeded and are forgotten by now."""

    # --- what happens ----------------------------------------------------------------------

    @rule(
        target=jobs,
        name=st.sampled_from(NAMES),
        text=st.sampled_from(TEXTS),
        priority=st.integers(0, 1),
        year=st.none() | st.integers(1, 2),
    )
    def submit(self, name: str, text: str, priority: int, year: int | None) -> Any:
        metadata = None if year is None else {"year": year}
        made = submission(text, document_id=name, priority=priority, metadata=metadata)
        return self._submit({name: text}, [made], None)

    @rule(target=jobs, texts=st.tuples(st.sampled_from(TEXTS), st.sampled_from(TEXTS)))
    def submit_under_one_key(self, texts: tuple[str, str]) -> Any:
        asked = dict(zip(("b", "a"), texts, strict=True))
        made = [submission(text, document_id=name) for name, text in asked.items()]
        return self._submit(asked, made, Idempotency("k", "|".join(texts).encode()))

    def _submit(
        self, asked: Mapping[str, str], made: Sequence[Submission], key: Idempotency | None
    ) -> Any:
        answers = self._both(lambda catalog: catalog.submit_all(made, idempotency=key))
        if answers is None:  # the key was used for something else
            return multiple()
        assert [a.needs_blob for a in answers.real] == [a.needs_blob for a in answers.model]
        jobs = [
            Twins(real.job.job_id, model.job.job_id)
            for real, model in zip(answers.real, answers.model, strict=True)
        ]
        for (name, text), each, job in zip(asked.items(), made, jobs, strict=True):
            self.texts[each.version_id] = text
            if job.real not in self.acknowledged:
                self.sent.append(Sent(name, text, job.real))
                self.acknowledged.add(job.real)
        return multiple(*jobs)

    @rule(target=leases, dies=st.booleans())
    def claim(self, dies: bool) -> Any:
        lease = self._claim(GONE if dies else FOR_LONG)
        return multiple() if lease is None else lease

    def _claim(self, duration: timedelta) -> Twins | None:
        lease = self._both(lambda catalog: catalog.claim(owner="me", lease=duration))
        assert lease is not None
        if lease.real is None or lease.model is None:
            assert lease.real is lease.model
            return None
        for name in ("version_id", "sequence", "crashes", "tries"):
            assert getattr(lease.real, name) == getattr(lease.model, name)
        return lease

    @rule(lease=leases)
    def finish(self, lease: Twins) -> None:
        """By whoever holds it, or held it once."""
        made = indexed_as(lease.real.job.document_id, self.texts[lease.real.version_id])
        ends = self._both(lambda catalog: finished(catalog, lease.of(catalog), made))
        if ends is not None:
            assert ends.real.outcome == ends.model.outcome
            assert set(ends.real.retired) == set(ends.model.retired)

    @rule(lease=consumes(leases), lasting=st.booleans())
    def fail(self, lease: Twins, lasting: bool) -> None:
        if lasting:
            self._both(lambda catalog: catalog.fail(lease.of(catalog), LASTING))
        else:
            self._both(lambda catalog: catalog.retry(lease.of(catalog), PASSING, after=timedelta()))

    @rule(lease=leases)
    def give_back(self, lease: Twins) -> None:
        self._both(lambda catalog: catalog.give_back(lease.of(catalog)))

    @rule(lease=consumes(leases))
    def survive(self, lease: Twins) -> None:
        self._both(lambda catalog: catalog.survived(lease.of(catalog)))

    @rule()
    def sweep(self) -> None:
        released = self._both(lambda catalog: catalog.release_expired())
        assert released is not None
        assert len(released.real) == len(released.model)

    @rule(job=jobs)
    def cancel(self, job: Twins) -> None:
        self._both(lambda catalog: catalog.cancel(job.of(catalog)))

    @rule(job=jobs)
    def run_again(self, job: Twins) -> None:
        self._both(lambda catalog: catalog.run_again(job.of(catalog)))

    @rule(name=st.none() | st.sampled_from(NAMES))
    def run_failed_again(self, name: str | None) -> None:
        again = self._both(lambda catalog: catalog.run_failed_again(document_id=name))
        assert again is not None
        assert [told(job) for job in again.real] == [told(job) for job in again.model]

    @rule(name=st.sampled_from(NAMES))
    def forget(self, name: str) -> None:
        gone = self._both(lambda catalog: catalog.forget("default", [name]))
        assert gone is not None
        assert gone.real[0] == gone.model[0]
        assert set(gone.real[1]) == set(gone.model[1])
        self.sent = [each for each in self.sent if each.document_id != name]

    @rule()
    def forget_the_past(self) -> None:
        statuses = self._statuses()
        self.succeeded |= {job_id for job_id in statuses if statuses[job_id] == "succeeded"}
        counts = []
        for store in (self.stores.retention, self.model_retention):
            forgotten = self.stores.run(store.forget_jobs(older_than=GONE))
            counts.append((forgotten, self.stores.run(store.forget_versions())))
        assert counts[0] == counts[1]

    # --- what holds ------------------------------------------------------------------------

    @invariant()
    def they_answer_alike(self) -> None:
        for look in (looks_of_jobs, looks_of_documents, looks_of_versions, looks_of_the_queue):
            seen = self._both(look)
            assert seen is not None
            assert seen.real == seen.model

    @invariant()
    def each_document_is_there_once(self) -> None:
        documents = self.stores.run(self.stores.catalog.documents("default"))
        stored = self.stores.rows('SELECT document_id FROM vecs."default"')
        assert Counter(row[0] for row in stored) == {
            document.document_id: document.chunks for document in documents
        }

    def teardown(self) -> None:
        """Let others finish what is left; then every document is there in its newest bytes."""
        self._drain()
        statuses = self._statuses()
        assert not {"queued", "running"} & set(statuses.values())
        expected = {
            each.document_id: len(each.text.split())
            for each in self.sent
            if each.job_id in self.succeeded or statuses.get(each.job_id) == "succeeded"
        }
        documents = self.stores.run(self.stores.catalog.documents("default"))
        assert {document.document_id: document.chunks for document in documents} == expected

    def _drain(self) -> None:
        # Nobody comes back to what is held: those leases run out.
        self.stores.rows(
            "UPDATE ragcore.jobs SET lease_until = '-infinity' WHERE status = 'running'"
        )
        for task in self.model.tasks.values():
            if task.lease_until is not None:
                task.lease_until -= 2 * FOR_LONG
        self.sweep()
        while (lease := self._claim(FOR_LONG)) is not None:
            self.finish(lease)
        self.they_answer_alike()
        self.each_document_is_there_once()

    # --- parts -----------------------------------------------------------------------------

    def _both(self, call: Callable[[Catalog], Awaitable[Any]]) -> Twins | None:
        """Ask both; None when both refused, in the same way."""
        answers, errors = [], []
        for catalog in (self.stores.catalog, self.model):
            try:
                answers.append(self.stores.run(call(catalog)))
            except RagError as error:
                errors.append(type(error))
        if errors:
            assert not answers, f"one of them raised {errors[0].__name__}"
            assert errors[0] is errors[1]
            return None
        return Twins(*answers)

    def _statuses(self) -> dict[Any, str]:
        jobs: list[Job] = self.stores.run(self.stores.catalog.jobs(limit=1000))
        return {job.job_id: job.status for job in jobs}


async def finished(catalog: Catalog, lease: Lease, made: IndexedVersion) -> Settled:
    return await catalog.settle_repeated(lease) or await catalog.put_in_place(lease, made)


def indexed_as(name: str, text: str) -> IndexedVersion:
    """A version of as many chunks as words, with the ids that every run of them gets."""
    made = indexed(*text.split())
    chunks = [replace(chunk, chunk_id=f"{name}-{chunk.ordinal}") for chunk in made.chunks]
    return replace(made, chunks=chunks)


def told(job: Job) -> tuple[object, ...]:
    code = job.error and job.error.code
    return (job.document_id, job.status, job.outcome, job.attempts, job.chunks, code)


async def looks_of_jobs(catalog: Catalog) -> object:
    return [told(job) for job in await catalog.jobs(limit=1000)]


async def looks_of_documents(catalog: Catalog) -> object:
    return [
        (each.document_id, each.version_id, each.chunks, each.title, each.metadata)
        for each in await catalog.documents("default")
    ]


async def looks_of_versions(catalog: Catalog) -> object:
    looks: dict[str, object] = {}
    for name in NAMES:
        try:
            versions = await catalog.versions("default", name)
        except RagError as error:
            looks[name] = type(error)
        else:
            looks[name] = [(v.version_id, v.sequence, v.state, v.chunks) for v in versions]
    ids = [v[0] for each in looks.values() if isinstance(each, list) for v in each]
    return looks, await catalog.are_live(ids)


async def looks_of_the_queue(catalog: Catalog) -> object:
    waiting = [job.document_id for job in await catalog.waiting()]
    return waiting, (await catalog.queue_state()).jobs


def test_random_histories_lose_nothing(database_url: str) -> None:
    with Stores(database_url) as stores:
        machine = type("Histories", (Histories,), {"stores": stores})
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=12,
                # The same histories every time; `max_examples` and another seed look further.
                derandomize=True,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
