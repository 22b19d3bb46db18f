"""Callbacks from PostgreSQL to a receiver on loopback."""

import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ragcore.adapters.postgres.callbacks import PostgresCallbacks
from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import open_pool
from ragcore.adapters.web import Web
from ragcore.flows.callbacks import DeliverCallbacks, job_content
from ragcore.model import EmbeddingSpec, Job
from ragcore.testing.contracts.catalog import ingest, submission
from ragcore_api.schemas.jobs import JobOut

SECRET = b"shared with the receiver"


@dataclass
class Receiver:
    """Answers with the statuses it was given, in turn, then with 204; remembers what came."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    heard: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.heard.append((dict(self.headers), body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            self.send_header("Location", f"{receiver.url}/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        receiver.url = f"http://127.0.0.1:{server.server_port}/done"
        yield receiver
        server.shutdown()
        thread.join()


@dataclass
class Bench:
    catalog: PostgresCatalog
    deliver: DeliverCallbacks

    async def finished(self, url: str) -> Job:
        job = (await ingest(self.catalog, submission("one", callback_url=url), "one")).job
        return await self.catalog.job(job.job_id)


@pytest.fixture
async def bench(database_url: str) -> AsyncIterator[Bench]:
    web = Web(allowed_hosts=["127.0.0.1"], timeout_seconds=30)
    async with open_pool(database_url, size=4) as pool:
        spec = EmbeddingSpec(model="test:three", dimension=3, max_tokens=100)
        await PostgresCollections(pool).open("default", embedding=spec, chunker="test")
        deliver = DeliverCallbacks(
            callbacks=PostgresCallbacks(pool),
            post=web.post,
            secret=SECRET,
            attempts=3,
            first_wait=timedelta(),
        )
        yield Bench(PostgresCatalog(pool), deliver)
    await web.aclose()


async def test_a_receiver_hears_how_the_job_ended_and_can_tell_who_says_so(
    bench: Bench, receiver: Receiver
) -> None:
    job = await bench.finished(receiver.url)
    assert await bench.deliver() == 1
    assert await bench.deliver() == 0
    ((headers, body),) = receiver.heard
    assert json.loads(body) == JobOut.of(job).model_dump(mode="json")
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Ragcore-Event"] == "job.finished"
    assert headers["X-Ragcore-Delivery"].startswith(f"{job.job_id}.")
    signed = headers["X-Ragcore-Timestamp"].encode() + b"." + body
    digest = hmac.new(SECRET, signed, hashlib.sha256).hexdigest()
    assert headers["X-Ragcore-Signature"] == f"sha256={digest}"


async def test_without_a_secret_nothing_is_signed(bench: Bench, receiver: Receiver) -> None:
    await bench.finished(receiver.url)
    await replace(bench.deliver, secret=None)()
    ((headers, _),) = receiver.heard
    assert "X-Ragcore-Signature" not in headers


async def test_what_fails_is_tried_again_under_the_same_name(
    bench: Bench, receiver: Receiver
) -> None:
    await bench.finished(receiver.url)
    receiver.statuses = [500, 302]  # no redirect is followed: it is no success either
    assert [await bench.deliver() for _ in range(4)] == [0, 0, 1, 0]
    assert len({headers["X-Ragcore-Delivery"] for headers, _ in receiver.heard}) == 1
    assert len(receiver.heard) == 3


async def test_it_is_given_up_after_so_many_tries(bench: Bench, receiver: Receiver) -> None:
    await bench.finished(receiver.url)
    receiver.statuses = [503] * 9
    for _ in range(5):
        assert await bench.deliver() == 0
    assert len(receiver.heard) == 3


async def test_a_receiver_that_is_gone_is_not_asked_again(bench: Bench, receiver: Receiver) -> None:
    await bench.finished(receiver.url)
    receiver.statuses = [410]
    for _ in range(3):
        assert await bench.deliver() == 0
    assert len(receiver.heard) == 1


async def test_a_worker_that_dies_in_between_leaves_the_delivery_to_others(
    bench: Bench, receiver: Receiver
) -> None:
    await bench.finished(receiver.url)

    died = await bench.deliver.callbacks.claim_due(lease=timedelta(seconds=-1))
    assert len(died) == 1  # and it was killed here
    assert await bench.deliver() == 1
    assert len(receiver.heard) == 1


async def test_an_address_that_must_not_be_called_is_not_called(
    bench: Bench, receiver: Receiver
) -> None:
    await bench.finished(receiver.url)
    guarded = Web()
    try:
        assert await replace(bench.deliver, post=guarded.post)() == 0
    finally:
        await guarded.aclose()
    assert receiver.heard == []


async def test_one_receiver_that_fails_does_not_keep_others_waiting(
    bench: Bench, receiver: Receiver
) -> None:
    for document_id, url in (("x", "http://127.0.0.1:9/"), ("y", receiver.url)):
        made = submission(document_id, document_id=document_id, callback_url=url)
        await ingest(bench.catalog, made, document_id)
    assert await bench.deliver() == 1
    assert len(receiver.heard) == 1


async def test_a_job_is_told_in_the_shape_of_the_api(bench: Bench) -> None:
    job = await bench.finished("http://127.0.0.1:9/")
    running = replace(job, status="running", stage="embedding", warnings=("a", "б"))
    for each in (job, running):
        assert job_content(each) == JobOut.of(each).model_dump(mode="json")
