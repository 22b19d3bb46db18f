"""A collection moved to another model while it is searched and written, and workers are killed.

    python benchmarks/reindex.py [--chunks 10000] [--kills 8] [--seconds 40]

A real PostgreSQL and Valkey, the API and two workers as processes of their own. Documents in
Russian and English, cut so that two paragraphs are a chunk, are moved to a model of Ollama's and to
one paragraph a chunk, which tells in every answer which generation it came from. The model is the
tests' scripted Ollama: the real protocol, the bundled model's vectors. Two clients search and one
writes (new documents, new versions, deletions, metadata), first for so many seconds without a
reindex, then during it; the worker that fills is killed again and again. Searches that fail, or
miss the document they ask for, or mix chunks of both, and documents that are not there as they were
acknowledged, after the switch and after going back, are counted. Aim: 0 of each. Exits with 1 else.
"""

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx
import psycopg
from psycopg import sql

from load import Load
from loading import database
from ragcore.embedded import embedded_servers
from services import KEY, api_of, environment_of

_OLLAMA = Path(__file__).resolve().parents[1] / "tests" / "fakes" / "ollama.py"
COLLECTION = "moving"
MODEL = "ollama:nomic-embed-text-v2-moe:latest"
PARAGRAPHS = 10
"""Of a document, each a chunk after the move."""
LARGE, SMALL = 128, 64
"""Tokens of a chunk before and after it: two paragraphs, and one."""

TEXTS = (
    "The keeper of {name} wrote on page {page}, edition {edition}, that the wind had turned to the"
    " north before dawn, and that the lamp of {name} had burnt low while the ferry waited outside"
    " the harbour until noon.",
    "Смотритель {name} записал на странице {page}, издание {edition}, что перед рассветом ветер"
    " повернул к северу, а лампа {name} горела слабо, пока паром ждал у входа в гавань до полудня.",
)
QUESTIONS = (
    "What did the keeper of {name} write on page {page}?",
    "Что смотритель {name} записал на странице {page}?",
)
SYLLABLES = (
    ("ba", "ko", "di", "mu", "ze", "ri", "la", "po", "te", "su"),
    ("ба", "ко", "ди", "му", "зе", "ри", "ла", "по", "те", "су"),
)


def name_of(number: int) -> str:
    """Return a word that no other document has, in the document's own alphabet."""
    syllables = SYLLABLES[number % 2]
    return "".join(syllables[int(digit)] for digit in f"{number:05}").capitalize()


def text_of(number: int, edition: int) -> str:
    return "\n\n".join(
        TEXTS[number % 2].format(name=name_of(number), page=page, edition=edition)
        for page in range(1, PARAGRAPHS + 1)
    )


def id_of(number: int) -> str:
    return f"log-{number:05}"


def paragraphs_in(text: str) -> int:
    """Tell a chunk's generation: 2 is the one before the move, 1 the one after."""
    return text.count("edition ") + text.count("издание ")


async def main() -> int:
    arguments = _arguments()
    documents = arguments.chunks // PARAGRAPHS
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with (
            database(arguments.database_url) as url,
            embedded_servers(data_dir, postgres=False) as servers,
        ):
            with _scripted_ollama() as ollama:
                environment = environment_of(url, servers.redis_url, data_dir) | {
                    "RAGCORE_OLLAMA__URL": ollama,
                    "RAGCORE_CHUNKING__MAX_TOKENS": str(LARGE),
                    "RAGCORE_EMBEDDING__THREADS": "1",
                    "RAGCORE_CONVERSION__PROCESSES": "1",
                }
                with api_of(environment) as api, Workers(environment, 2) as workers:
                    async with httpx.AsyncClient(
                        base_url=f"http://127.0.0.1:{api.port}",
                        headers={"X-API-Key": KEY},
                        timeout=120,
                    ) as http:
                        bench = Bench(http, url, workers, documents)
                        return await bench.run(arguments.kills, arguments.seconds)


class Workers:
    """Worker processes, each started again when it is killed."""

    def __init__(self, environment: Mapping[str, str], count: int) -> None:
        self._environment = dict(environment)
        self._running = [self._start() for _ in range(count)]
        self.killed = 0

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.terminate()
        for running in self._running:
            running.wait(60)

    def kill(self, pid: int) -> bool:
        """Kill a worker and start another; False when it is none of ours."""
        for place, running in enumerate(self._running):
            if running.pid == pid and running.poll() is None:
                running.send_signal(signal.SIGKILL)
                running.wait()
                self._running[place] = self._start()
                self.killed += 1
                return True
        return False

    def _start(self) -> "Popen[bytes]":
        return Popen([sys.executable, "-m", "ragcore_worker"], env=self._environment)


@dataclass
class Told:
    """What searches were answered with."""

    times: list[tuple[float, float]] = field(default_factory=list)
    """When each began, by `time.monotonic`, and its seconds."""
    failed: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)

    def between(self, begin: float, end: float) -> Load:
        times = [seconds for began, seconds in self.times if begin <= began < end]
        return Load(len(times), end - begin, times, processor=0.0)


@dataclass
class Ledger:
    """What the service has acknowledged."""

    editions: dict[int, int] = field(default_factory=dict)
    """Of each document that is there."""
    years: dict[int, int] = field(default_factory=dict)
    """Metadata that were changed."""
    writes: int = 0


class Bench:
    def __init__(self, http: httpx.AsyncClient, url: str, workers: Workers, documents: int) -> None:
        self._http = http
        self._url = url
        self._workers = workers
        self._documents = documents
        self._told = Told()
        self._ledger = Ledger()
        self._random = random.Random(1)
        self._lost: list[str] = []
        self._is_over = False
        self._switched_at = 0.0

    async def run(self, kills: int, calm_seconds: float) -> int:
        await self._fill()
        self._check("before the move", paragraphs=2)
        async with self._searching_and_writing():
            await asyncio.sleep(3)  # first questions open connections
            calm = await self._calm(calm_seconds)
            moving = await self._move(kills)
            await asyncio.sleep(5)
        await self._idle()
        self._check("after the switch", paragraphs=1)
        answer = await self._http.post(f"/collections/{COLLECTION}/reindex/rollback", json={})
        assert answer.status_code == 200, answer.text
        self._check("after going back", paragraphs=2)
        return self._report(calm, moving)

    async def _fill(self) -> None:
        print(f"ingesting {self._documents} documents", flush=True)
        started = time.monotonic()
        gate = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            async with gate:
                await self._ingest(number, edition=1)

        async with asyncio.TaskGroup() as group:
            for number in range(self._documents):
                group.create_task(one(number))
        await self._idle()
        print(f"  took {time.monotonic() - started:.0f} s", flush=True)

    async def _calm(self, seconds: float) -> Load:
        begin = time.monotonic()
        await asyncio.sleep(seconds)
        return self._told.between(begin, time.monotonic())

    async def _move(self, kills: int) -> Load:
        begin = time.monotonic()
        answer = await self._http.post(
            f"/collections/{COLLECTION}/reindex",
            json={"embedding_model": MODEL, "max_tokens": SMALL},
        )
        assert answer.status_code == 202, answer.text
        job = answer.json()
        while job["status"] in ("queued", "running"):
            await asyncio.sleep(0.2)
            job = (await self._http.get(f"/jobs/{job['job_id']}")).json()
            total = job["counts"].get("documents", 0)
            reached = job["counts"].get("done", 0)
            if total and reached * (kills + 1) > total * (self._workers.killed + 1):
                await asyncio.to_thread(self._kill_holder, job["job_id"])
        self._switched_at = end = time.monotonic()
        assert job["status"] == "succeeded", job["error"]
        assert job["result"]["state"] == "switched", job["result"]
        comparison = job["result"]["comparison"]
        print(
            f"moved {job['counts']['documents']} documents in {end - begin:.0f} s,"
            f" {self._workers.killed} workers killed meanwhile;"
            f" compared on {comparison['questions']} questions: their source found"
            f" {comparison['found_before']:.0%} before, {comparison['found_after']:.0%} after"
        )
        return self._told.between(begin, end)

    def _kill_holder(self, job_id: str) -> None:
        with psycopg.connect(self._url) as connection:
            row = connection.execute(
                "SELECT lease_owner FROM ragcore.jobs WHERE job_id = %s", [job_id]
            ).fetchone()
        if row is not None and row[0] is not None:
            self._workers.kill(int(row[0].split(":")[1]))

    # --- clients ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _searching_and_writing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for work in (self._keep_searching(), self._keep_searching(), self._keep_writing()):
                group.create_task(work)
            try:
                yield
            finally:
                self._is_over = True  # each ends with an answer: what was sent is known

    async def _keep_searching(self) -> None:
        """Ask for documents that nobody changes; a pause leaves the processor to the others."""
        while not self._is_over:
            number = self._random.randrange(self._documents // 2)
            page = self._random.randint(1, PARAGRAPHS)
            question = QUESTIONS[number % 2].format(name=name_of(number), page=page)
            began = time.monotonic()
            try:
                answer = await self._http.post(
                    "/search", json={"question": question, "collection": COLLECTION, "top_k": 10}
                )
            except httpx.HTTPError as error:
                self._told.failed.append(f"{question}: {error!r}")
                continue
            self._told.times.append((began, time.monotonic() - began))
            if answer.status_code != 200:
                self._told.failed.append(f"{question}: {answer.status_code} {answer.text[:200]}")
            else:
                self._judge(question, id_of(number), answer.json()["passages"])
            await asyncio.sleep(0.05)

    def _judge(self, question: str, wanted: str, passages: Sequence[Mapping[str, Any]]) -> None:
        if wanted not in [passage["document_id"] for passage in passages]:
            self._told.missed.append(question)
        if len({paragraphs_in(passage["text"]) for passage in passages}) != 1:
            self._told.mixed.append(question)

    async def _keep_writing(self) -> None:
        """Change the other half of the documents, each once at most, and add new ones for ever."""
        left = list(range(self._documents // 2, self._documents))
        self._random.shuffle(left)
        added = self._documents
        while not self._is_over:
            kind = self._ledger.writes % 4 if left else 0
            if kind == 0:
                await self._ingest(added, edition=1)
                added += 1
            elif kind == 1:
                await self._ingest(left.pop(), edition=2)
            elif kind == 2:
                number = left.pop()
                await self._send("DELETE", f"/documents/{id_of(number)}")
                self._ledger.editions.pop(number)
            else:
                number = left.pop()
                year = 1900 + number
                await self._send(
                    "PATCH", f"/documents/{id_of(number)}", {"metadata": {"year": year}}
                )
                self._ledger.years[number] = year
            self._ledger.writes += 1
            await asyncio.sleep(0.5)

    async def _ingest(self, number: int, *, edition: int) -> None:
        await self._send(
            "POST",
            "/ingest",
            {
                "text": text_of(number, edition),
                "document_id": id_of(number),
                "collection": COLLECTION,
            },
        )
        self._ledger.editions[number] = edition

    async def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> None:
        within = None if path == "/ingest" else {"collection": COLLECTION}
        answer = await self._http.request(method, path, params=within, json=body)
        assert answer.is_success, answer.text

    async def _idle(self) -> None:
        """Wait until no document waits any more."""
        while True:
            counts = [
                len((await self._http.get("/jobs", params={"status": status})).json()["jobs"])
                for status in ("queued", "running")
            ]
            if not any(counts):
                return
            await asyncio.sleep(0.5)

    # --- what is there ---------------------------------------------------------------------

    def _check(self, when: str, *, paragraphs: int) -> None:
        """Compare the table that answers with the ledger."""
        found: dict[int, list[str]] = {}
        with psycopg.connect(self._url) as connection:
            query = sql.SQL("SELECT document_id, metadata ->> 'text' FROM vecs.{}")
            for document_id, text in connection.execute(query.format(sql.Identifier(COLLECTION))):
                found.setdefault(int(document_id.removeprefix("log-")), []).append(text)
            years = dict(
                connection.execute(
                    "SELECT document_id, (metadata ->> 'year')::integer FROM ragcore.documents"
                    " WHERE collection = %s AND metadata ? 'year'",
                    [COLLECTION],
                ).fetchall()
            )
        wrong = list(self._wrong(found, paragraphs))
        expected = {id_of(number): year for number, year in self._ledger.years.items()}
        wrong += [f"{each}: metadata" for each in set(years.items()) ^ set(expected.items())]
        chunks = sum(map(len, found.values()))
        print(f"{when}: {len(found)} documents, {chunks} chunks, {len(wrong)} wrong", flush=True)
        self._lost += [f"{when}: {each}" for each in wrong]

    def _wrong(self, found: Mapping[int, Sequence[str]], paragraphs: int) -> Iterator[str]:
        for number in found.keys() ^ self._ledger.editions.keys():
            yield f"{id_of(number)}: {'there' if number in found else 'not there'}"
        for number, edition in self._ledger.editions.items():
            texts = found.get(number, ())
            words = (f"edition {edition},", f"издание {edition},")[number % 2]
            if texts and (
                len(texts) * paragraphs != PARAGRAPHS
                or sum(text.count(words) for text in texts) != PARAGRAPHS
            ):
                yield f"{id_of(number)}: {len(texts)} chunks, not all of edition {edition}"

    def _report(self, calm: Load, moving: Load) -> int:
        told = self._told
        for what, load in (("without a reindex", calm), ("during the reindex", moving)):
            print(
                f"searches {what}: {load.requests}, p50 {load.p50:.1f} ms,"
                f" p99 {load.quantile(0.99):.1f} ms, slowest {load.quantile(1):.0f} ms"
            )
        switch = told.between(self._switched_at - 3, self._switched_at + 1)
        print(f"slowest of the {switch.requests} around the switch: {switch.quantile(1):.0f} ms")
        print(
            f"ratio p50 {moving.p50 / calm.p50:.2f},"
            f" p99 {moving.quantile(0.99) / calm.quantile(0.99):.2f}"
        )
        print(
            f"{len(told.times)} searches and {self._ledger.writes} writes: {len(told.failed)}"
            f" failed, {len(told.missed)} missed their document, {len(told.mixed)} mixed;"
            f" {len(self._lost)} documents lost or wrong"
        )
        complaints = [*told.failed, *told.missed, *told.mixed, *self._lost]
        for complaint in complaints[:20]:
            print(f"FAILED: {complaint}")
        return int(bool(complaints))


@contextmanager
def _scripted_ollama() -> Iterator[str]:
    """Run Ollama's stand-in as a process of its own and give its address."""
    command = [sys.executable, str(_OLLAMA)]
    with Popen(command, stdout=PIPE, text=True, env=dict(os.environ)) as running:
        assert running.stdout is not None
        yield running.stdout.readline().split()[1]
        running.terminate()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", help="an existing database; default: a server of its own")
    parser.add_argument("--chunks", type=int, default=10_000, help="after the move")
    parser.add_argument("--kills", type=int, default=8, help="of the worker that fills")
    parser.add_argument("--seconds", type=float, default=40, help="without a reindex")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
