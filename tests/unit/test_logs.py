import asyncio
import io
import json
import logging
import os
from collections.abc import Callable, Iterator

import pytest

from ragcore import logs

log = logging.getLogger("ragcore.somewhere")


@pytest.fixture
def written() -> Iterator[Callable[..., Callable[[], str]]]:
    """Configure logging into a string; what pytest and others configured comes back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def configure(log_format: logs.LogFormat, level: str = "info") -> Callable[[], str]:
        stream = io.StringIO()
        logs.configure(level=level, log_format=log_format, stream=stream)
        return stream.getvalue

    yield configure
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_says_when_where_and_what_it_is_about(
    written: Callable[..., Callable[[], str]],
) -> None:
    lines = written("json")
    with logs.about(request_id="r-1"), logs.about(job_id="j-1"):
        log.warning("%d вещей", 3, extra={"status": 503})
    told = json.loads(lines())
    assert told.pop("time").endswith("+00:00")
    assert told == {
        "level": "WARNING",
        "pid": os.getpid(),
        "logger": "ragcore.somewhere",
        "message": "3 вещей",
        "request_id": "r-1",
        "job_id": "j-1",
        "status": 503,
    }


def test_a_line_for_people_ends_with_what_it_is_about(
    written: Callable[..., Callable[[], str]],
) -> None:
    lines = written("human")
    with logs.about(job_id="j-1"):
        log.info("converted")
    log.info("idle")
    first, second = lines().splitlines()
    assert first.endswith("Z INFO converted (job_id=j-1)")
    assert second.endswith("Z INFO idle")


async def test_tasks_and_threads_carry_what_their_starter_was_about(
    written: Callable[..., Callable[[], str]],
) -> None:
    lines = written("human")

    async def one(job: str) -> None:
        with logs.about(job_id=job):
            await asyncio.gather(asyncio.to_thread(log.info, "in a thread"))

    await asyncio.gather(one("a"), one("b"))
    ends = sorted(line.rpartition("INFO ")[2] for line in lines().splitlines())
    assert ends == ["in a thread (job_id=a)", "in a thread (job_id=b)"]


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_no_secret_gets_into_a_line_or_a_traceback(
    written: Callable[..., Callable[[], str]], log_format: logs.LogFormat
) -> None:
    lines = written(log_format)
    key = "rk_" + "k" * 43
    try:
        raise ValueError("postgresql://me:hunter2@db:5432/x and redis://:hunter2@cache/0")
    except ValueError:
        log.exception("sent %s; Authorization: Bearer hunter2hunter2", key)
    log.info("host=db user=me password=hunter2 dbname=x; s3://id:hunter2@minio:9000/bucket")
    assert "hunter2" not in lines()
    assert key not in lines()
    assert "postgresql://me:***@db:5432/x" in lines()


def test_addresses_without_a_password_stay_as_they_are() -> None:
    text = "http://127.0.0.1:8700/documents?uri=https://example.org/@me and a@b.org"
    assert logs.without_secrets(text) == text


def test_a_message_with_line_breaks_forges_no_line(
    written: Callable[..., Callable[[], str]],
) -> None:
    lines = written("human")
    log.info("title: %s", "x\n2026-01-01T00:00:00.000Z ERROR all is lost")
    assert len(lines().splitlines()) == 1


def test_libraries_are_heard_only_when_they_warn_or_when_debugging(
    written: Callable[..., Callable[[], str]],
) -> None:
    library = logging.getLogger("dramatiq.worker")
    lines = written("human")
    library.info("fetched")
    library.warning("lost")
    assert [line.rpartition(" ")[2] for line in lines().splitlines()] == ["lost"]
    lines = written("human", "debug")
    library.info("fetched")
    assert "fetched" in lines()
