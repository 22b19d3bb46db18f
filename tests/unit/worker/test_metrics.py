import asyncio
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from ragcore.errors import NotConfigured
from ragcore.model import Job, JobFailure
from ragcore_worker.metrics import WorkerMetrics, alive, served

START = datetime(2026, 1, 1, tzinfo=UTC)


def job(**fields: object) -> Job:
    made = {"created_at": START, "started_at": START + timedelta(seconds=3), **fields}
    return Job(uuid4(), "a-collection", "a-document", **made)  # type: ignore[arg-type]


async def told(metrics: WorkerMetrics) -> dict[tuple[str, str], float]:
    text = (await metrics.exposition()).decode()
    assert "a-collection" not in text
    assert "a-document" not in text
    return {
        (sample.name, " ".join(sorted(filter(None, sample.labels.values())))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_jobs_are_counted_by_how_they_ended() -> None:
    metrics = WorkerMetrics()
    stored = {"timings_ms": {"convert": 2000.0, "embed": 500.0}, "pages": 4, "chunks": 9}
    metrics.job_ended(job(status="succeeded", outcome="created", **stored))
    metrics.job_ended(job(status="succeeded", outcome="unchanged"))
    failure = JobFailure("no_text_found", "it holds no text", retryable=False)
    metrics.job_ended(job(status="failed", error=failure))
    away = JobFailure("model_unavailable", "it did not answer", retryable=True)
    metrics.job_ended(job(status="queued", error=away))
    numbers = await told(metrics)
    assert numbers["ragcore_jobs_ended_total", "created succeeded"] == 1
    assert numbers["ragcore_jobs_ended_total", "succeeded unchanged"] == 1
    assert numbers["ragcore_jobs_ended_total", "failed no_text_found"] == 1
    assert numbers["ragcore_job_retries_total", "model_unavailable"] == 1
    assert numbers["ragcore_documents_stored_total", ""] == 1
    assert numbers["ragcore_pages_stored_total", ""] == 4
    assert numbers["ragcore_chunks_stored_total", ""] == 9
    assert numbers["ragcore_job_stage_seconds_sum", "convert"] == 2.0
    assert numbers["ragcore_job_waited_seconds_count", ""] == 3
    assert numbers["ragcore_job_waited_seconds_sum", ""] == 9


async def test_what_the_flows_tell_is_counted() -> None:
    metrics = WorkerMetrics()
    meter = metrics.meter
    meter.recalled(known=3, missing=2, missing_tokens=40)
    meter.embedded(2, seconds=0.5)
    meter.embedding_failed("model_unavailable")
    meter.child_started()
    meter.child_ended("timeout")
    meter.called_back("given_up")
    numbers = await told(metrics)
    assert numbers["ragcore_embedding_texts_total", "cache"] == 3
    assert numbers["ragcore_embedding_texts_total", "model"] == 2
    assert numbers["ragcore_embedding_tokens_total", ""] == 40
    assert numbers["ragcore_embedding_batch_seconds_count", ""] == 1
    assert numbers["ragcore_embedding_errors_total", "model_unavailable"] == 1
    assert numbers["ragcore_conversion_children_started_total", ""] == 1
    assert numbers["ragcore_conversion_children_ended_total", "timeout"] == 1
    assert numbers["ragcore_callbacks_total", "given_up"] == 1


async def test_a_worker_answers_prometheus_and_health_checks() -> None:
    pages = {"/metrics": WorkerMetrics().exposition, "/health": alive}
    async with (
        served(pages, host="127.0.0.1", port=0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
    ):
        metrics = await http.get("/metrics")
        assert metrics.status_code == 200
        assert "ragcore_info" in metrics.text
        assert (await http.get("/health")).text == "ok\n"
        assert (await http.get("/elsewhere")).status_code == 404
        assert (await http.post("/metrics")).status_code == 404


@pytest.mark.parametrize("request_line", [b"\r\n\r\n", b"nonsense\r\n", b"x" * 100_000, b""])
async def test_nonsense_harms_no_one(request_line: bytes) -> None:
    async with served({"/health": alive}, host="127.0.0.1", port=0) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_line)
        writer.write_eof()
        await reader.read()
        writer.close()
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"http://127.0.0.1:{port}/health")).status_code == 200


async def test_a_port_that_is_taken_is_named() -> None:
    async with served({}, host="127.0.0.1", port=0) as port:
        with pytest.raises(NotConfigured, match=f"127.0.0.1:{port}"):
            async with served({}, host="127.0.0.1", port=port):
                pass
