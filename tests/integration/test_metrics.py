"""What Prometheus reads from the API, and what is logged of requests."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import server_directory
from ragcore.adapters.prometheus import Gauges
from ragcore.embedded import EmbeddedServers
from ragcore.errors import QueueUnavailable, StoreUnavailable
from ragcore.model import QueueState
from ragcore.settings import Settings
from serving import serving

ADMIN = {"X-API-Key": "the-first-key-of-a-new-stack"}


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with server_directory() as directory:
        yield directory / "data"


@pytest.fixture
def http(embedded: EmbeddedServers, database_url: str, data_dir: Path) -> Iterator[httpx.Client]:
    settings = Settings(
        database_url=database_url,
        redis_url=embedded.redis_url,
        data_dir=data_dir,
        access={"admin_key": ADMIN["X-API-Key"]},
    )
    with serving(settings) as url, httpx.Client(base_url=url, headers=ADMIN) as client:
        yield client


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def test_metrics_tell_of_requests_searches_and_the_queue(
    http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ragcore_api.metrics")
    http.post("/ingest", json={"text": "Cats purr."}).raise_for_status()
    http.post("/search", json={"question": "Who purrs?"}).raise_for_status()
    for job_id in ("00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"):
        assert http.get(f"/jobs/{job_id}").status_code == 404
    http.get("/no-such-path/of-anybody")
    answer = http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    told = samples_of(answer.text)

    requests = "ragcore_http_requests_total"
    assert value(told, requests, method="POST", route="/search", status="200") == 1
    assert value(told, requests, method="GET", route="/jobs/{job_id}", status="404") == 2
    assert value(told, requests, method="GET", route="(none)", status="404") == 1
    assert "of-anybody" not in answer.text
    assert value(told, "ragcore_search_seconds_count", mode="hybrid", stage="retrieve") == 1
    assert value(told, "ragcore_search_shortfall_rows_total") == 0
    assert value(told, "ragcore_jobs", status="queued") == 1
    assert value(told, "ragcore_queue_oldest_waiting_seconds") > 0
    assert value(told, "ragcore_queue_unheard_rings") >= 1
    assert value(told, "ragcore_dependency_up", dependency="database") == 1
    assert value(told, "ragcore_database_connections", state="allowed") == 10
    assert value(told, "ragcore_disk_free_bytes") > 0
    assert value(told, "ragcore_http_requests_in_progress") == 1

    line = next(record for record in caplog.records if record.getMessage() == "POST /search")
    assert vars(line)["status"] == 200
    assert vars(line)["caller"] == "admin"
    assert vars(line)["duration_ms"] > 0


def test_metrics_take_an_administrators_key(http: httpx.Client) -> None:
    assert httpx.get(http.base_url.join("/metrics")).status_code == 401


# --- states that can't be had --------------------------------------------------------------


class NoPool:
    def get_stats(self) -> dict[str, int]:
        return {}


def gauges(*, queue_state: object, unheard: object, every_seconds: float = 0.0) -> Gauges:
    return Gauges(
        queue_state=queue_state,  # type: ignore[arg-type]
        unheard=unheard,  # type: ignore[arg-type]
        pool=NoPool(),
        free_bytes=lambda: 7,
        every_seconds=every_seconds,
        patience_seconds=0.01,
    )


async def test_a_dead_or_hanging_server_is_told_and_not_waited_for() -> None:
    state = QueueState(jobs={"queued": 3}, oldest_waiting_seconds=5.0)
    is_away = False

    async def queue_state() -> QueueState:
        if is_away:
            raise StoreUnavailable("away")
        return state

    async def hanging() -> int:
        await asyncio.Event().wait()
        return 0

    asked = gauges(queue_state=queue_state, unheard=hanging)
    before = samples_of((await asked.exposition()).decode())
    assert value(before, "ragcore_jobs", status="queued") == 3
    assert value(before, "ragcore_dependency_up", dependency="queue") == 0
    is_away = True
    after = samples_of((await asked.exposition()).decode())
    assert value(after, "ragcore_dependency_up", dependency="database") == 0
    assert not [name for name, _ in after if name == "ragcore_jobs"]  # and not the old number
    oldest = value(after, "ragcore_queue_oldest_waiting_seconds")
    assert oldest != oldest  # NaN


async def test_however_often_metrics_are_read_the_database_is_asked_now_and_then() -> None:
    looks = 0

    async def queue_state() -> QueueState:
        nonlocal looks
        looks += 1
        return QueueState(jobs={}, oldest_waiting_seconds=0.0)

    async def unheard() -> int:
        raise QueueUnavailable("away")

    asked = gauges(queue_state=queue_state, unheard=unheard, every_seconds=3600)
    await asyncio.gather(*(asked.exposition() for _ in range(5)))
    assert looks == 1
