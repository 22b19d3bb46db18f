"""`ragcore jobs` over a real database."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner

from ragcore.adapters.postgres.audit import PostgresAudit
from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.model import EmbeddingSpec
from ragcore.testing.contracts.catalog import FAILURE, claimed, indexed, submission


class Jobs:
    """One job of each kind, and the command over them."""

    def __init__(self, database_url: str) -> None:
        self.database_url = database_url
        self.ids: dict[str, UUID] = {}
        asyncio.run(self._make())

    async def _make(self) -> None:
        async with self.opened() as catalog:
            for name in ("queued", "failed", "done"):
                job = (await catalog.submit(submission(name, document_id=name))).job
                self.ids[name] = job.job_id
            await catalog.fail(await claimed(catalog, self.ids["failed"]), FAILURE)
            await catalog.put_in_place(await claimed(catalog, self.ids["done"]), indexed("done"))

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[PostgresCatalog]:
        async with open_pool(self.database_url, size=1) as pool:
            spec = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)
            await PostgresCollections(pool).open("default", embedding=spec, chunker="test")
            yield PostgresCatalog(pool)

    def __call__(self, *arguments: str, code: ExitCode = ExitCode.OK) -> Any:
        run = CliRunner().invoke(app, ["jobs", *arguments, "--json"])
        assert run.exit_code == code, run.output
        return json.loads(run.stdout)

    def audited(self) -> list[tuple[str, str, str | None]]:
        async def fetch() -> list[tuple[str, str, str | None]]:
            async with open_pool(self.database_url, size=1) as pool:
                entries = await PostgresAudit(pool).entries()
                return [(entry.action, entry.actor, entry.target) for entry in entries]

        return asyncio.run(fetch())


@pytest.fixture
def jobs(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    monkeypatch.setenv("RAGCORE_DATABASE_URL", database_url)
    return Jobs(database_url)


def test_jobs_are_listed_by_their_state(jobs: Jobs) -> None:
    assert {job["document_id"] for job in jobs("list")["jobs"]} == {"queued", "failed", "done"}
    (failed,) = jobs("list", "--status", "failed")["jobs"]
    assert failed["error"]["code"] == "conversion_failed"
    assert jobs("list", "--collection", "other")["jobs"] == []
    first = jobs("list", "--limit", "2")
    rest = jobs("list", "--limit", "2", "--after", first["next_cursor"])
    assert len(first["jobs"]) == 2
    assert [job["document_id"] for job in rest["jobs"]] == ["queued"]


def test_a_table_is_for_people(jobs: Jobs) -> None:
    run = CliRunner().invoke(app, ["jobs", "list"])
    assert run.exit_code == 0
    assert "conversion_failed" in run.stdout
    assert str(jobs.ids["queued"]) in run.stdout


def test_one_job_is_shown_whole(jobs: Jobs) -> None:
    shown = jobs("show", str(jobs.ids["done"]))
    assert shown["outcome"] == "created"
    assert shown["timings_ms"] == {"convert": 1.0}
    assert "error" in jobs("show", str(uuid4()), code=ExitCode.NOT_FOUND)


def test_watching_ends_with_the_job_and_tells_a_failure(jobs: Jobs) -> None:
    assert jobs("watch", str(jobs.ids["done"]))["status"] == "succeeded"
    assert jobs("watch", str(jobs.ids["failed"]), code=ExitCode.FAILED)["status"] == "failed"


def test_cancelling_stops_a_job_once_and_is_in_the_audit_trail(jobs: Jobs) -> None:
    queued = str(jobs.ids["queued"])
    for _ in range(2):
        (cancelled,) = jobs("cancel", queued)["jobs"]
        assert cancelled["status"] == "cancelled"
    assert jobs("cancel", str(jobs.ids["done"]))["jobs"][0]["status"] == "succeeded"
    assert jobs.audited() == [("job.cancel", "command line", queued)]


def test_failed_jobs_run_again_one_or_all(jobs: Jobs) -> None:
    failed = str(jobs.ids["failed"])
    assert jobs("retry", "--failed", "--code", "no_text_found")["jobs"] == []
    (again,) = jobs("retry", "--failed", "--code", "conversion_failed")["jobs"]
    assert (again["job_id"], again["status"]) == (failed, "queued")
    refused = jobs("retry", failed, code=ExitCode.FAILED)
    assert refused["error"]["code"] == "not_retryable"
    assert [action for action, _, _ in jobs.audited()] == ["job.retry"] * 3


@pytest.mark.parametrize(
    "arguments", [(), ("--failed", str(uuid4())), ("--code", "internal", str(uuid4()))]
)
def test_what_to_retry_must_be_said_once(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, ["jobs", "retry", *arguments]).exit_code == ExitCode.USAGE
