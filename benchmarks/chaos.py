"""Documents and questions while Ollama fails all the time: none lost, none answered with a 5xx.

    python benchmarks/chaos.py [--documents 500] [--questions 500] [--share 0.2] [--seed 1]

Embeddings and answers come from a scripted Ollama (a process of its own, over HTTP, with the
bundled model behind it) of whose answers a share is an error 500, a reset, a timeout or breaks off
in the middle. Documents go in through the API and a worker; while they do, and after, questions are
asked of `/query`, every other one as a stream, every tenth with the turns before it. Afterwards the
same texts are ingested without faults into another collection, and every document must be there
once, with as many chunks. Aim: 0 lost, 0 different, 0 stuck, no 5xx and no stream that ends in an
error. Exits with 1 when one is missed.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import httpx

from judged import xquad
from ragcore.embedded import embedded_servers
from services import KEY, api_of, environment_of, worker_of

_OLLAMA = Path(__file__).resolve().parents[1] / "tests" / "fakes" / "ollama.py"
_FAULTS = ("error", "reset", "timeout", "truncated", "broken")
_AT_ONCE = 6
_CLEAN, _CHAOS = "clean", "chaos"
_STUCK_SECONDS = 900.0
"""So long after the last question no job may be unfinished."""


@dataclass
class Report:
    """What came of it."""

    statuses: Counter[str] = field(default_factory=Counter)
    generators: Counter[str] = field(default_factory=Counter)
    warned: int = 0
    failed_streams: int = 0
    jobs: Counter[str] = field(default_factory=Counter)
    retried: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Documents that are missing, or have other chunks than without faults."""

    @property
    def complaints(self) -> Iterator[str]:
        bad = {s: n for s, n in self.statuses.items() if s.split()[1] not in ("200", "202")}
        unfinished = {s: n for s, n in self.jobs.items() if s not in ("succeeded",)}
        if bad:
            yield f"answers that are none: {bad}"
        if self.failed_streams:
            yield f"{self.failed_streams} streams ended in an error"
        if unfinished:
            yield f"jobs that did not succeed: {unfinished}"
        if self.wrong:
            yield f"{len(self.wrong)} documents lost or different: {self.wrong[:5]}"


async def main(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with embedded_servers(data_dir) as servers:
            with scripted_ollama(arguments.seed) as ollama:
                environment = environment_of(servers.database_url, servers.redis_url, data_dir) | {
                    "RAGCORE_OLLAMA__URL": ollama,
                    "RAGCORE_EMBEDDING__PROVIDER": "ollama",
                    "RAGCORE_EMBEDDING__TIMEOUT_SECONDS": "5",
                    "RAGCORE_GENERATION__PROVIDER": "ollama",
                    "RAGCORE_GENERATION__TIMEOUT_SECONDS": "5",
                    "RAGCORE_LOG_LEVEL": "error",
                }
                with api_of(environment) as api, worker_of(environment):
                    async with client_of(api.port) as client:
                        report = await _campaign(client, ollama, arguments)
    return _print(report)


@contextmanager
def scripted_ollama(seed: int) -> Iterator[str]:
    """Run it without faults until it is told; gives its address."""
    command = [sys.executable, str(_OLLAMA), "--seed", str(seed), "--hang-seconds", "8"]
    with Popen(command, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
        process.terminate()


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"X-API-Key": KEY}, timeout=120
    ) as client:
        yield client


async def _campaign(
    client: httpx.AsyncClient, ollama: str, arguments: argparse.Namespace
) -> Report:
    report = Report()
    texts = _texts(arguments.documents, arguments.seed)
    shares = dict.fromkeys(_FAULTS, arguments.share / len(_FAULTS))
    for name in (_CHAOS, _CLEAN):
        (await client.put(f"/collections/{name}", json={})).raise_for_status()
    async with httpx.AsyncClient(base_url=ollama) as control:
        await control.put("/scripted/faults", json=shares)
        questions = _questions(arguments.questions)
        half = len(questions) // 2
        await asyncio.gather(
            _ingest(client, _CHAOS, texts, report), _ask(client, questions[:half], report)
        )
        report.jobs, report.retried = await _finished(client, _CHAOS)
        await _ask(client, questions[half:], report)
        report.faults = (await control.get("/scripted/counts")).json()
        await control.put("/scripted/faults", json={})
    await _ingest(client, _CLEAN, texts, report)
    clean, _ = await _finished(client, _CLEAN)
    if set(clean) != {"succeeded"}:
        raise SystemExit(f"without faults not all documents came in: {clean}")
    right, found = await _chunks(client, _CLEAN), await _chunks(client, _CHAOS)
    if len(right) != len(texts):
        raise SystemExit(f"without faults {len(right)} documents of {len(texts)} are there")
    report.wrong = [name for name in right.keys() | found if right.get(name) != found.get(name)]
    return report


# --- documents -----------------------------------------------------------------------------


def _texts(count: int, seed: int) -> Mapping[str, str]:
    """Documents of one to four paragraphs, in both languages."""
    generator = random.Random(seed)
    paragraphs = {
        language: [t.text for t in xquad(language, language).texts] for language in _ASKED
    }
    texts = {}
    for number in range(count):
        language = _ASKED[number % len(_ASKED)]
        chosen = generator.sample(paragraphs[language], generator.randint(1, 4))
        # Words of its own, so that no two documents are one to the cache of embeddings.
        texts[f"doc-{number}"] = "\n\n".join(f"Number {number}. {text}" for text in chosen)
    return texts


_ASKED = ("en", "ru")


async def _ingest(
    client: httpx.AsyncClient, collection: str, texts: Mapping[str, str], report: Report
) -> None:
    async def send(name: str) -> None:
        body = {"text": texts[name], "document_id": name, "collection": collection}
        answer = await client.post("/ingest", json=body)
        report.statuses[f"/ingest {answer.status_code}"] += 1

    await _several_at_once([send(name) for name in texts])


async def _finished(client: httpx.AsyncClient, collection: str) -> tuple[Counter[str], int]:
    """Wait for the end of all jobs; return how they ended, and how often one was tried again."""
    deadline = time.monotonic() + _STUCK_SECONDS
    while True:
        jobs = await _all(client, "jobs", collection)
        ended = Counter(job["status"] for job in jobs)
        if not {"queued", "running"} & set(ended) or time.monotonic() > deadline:
            return ended, sum(job["attempts"] > 1 for job in jobs)
        await asyncio.sleep(1)


async def _chunks(client: httpx.AsyncClient, collection: str) -> Mapping[str, int]:
    """Return how many chunks each document has."""
    documents = await _all(client, "documents", collection)
    if twice := [name for name, n in Counter(d["document_id"] for d in documents).items() if n > 1]:
        raise SystemExit(f"{collection}: documents listed twice: {twice}")
    return {document["document_id"]: document["chunks"] for document in documents}


async def _all(client: httpx.AsyncClient, what: str, collection: str) -> Sequence[Any]:
    found: list[Any] = []
    cursor = None
    while True:
        options = {"collection": collection, "limit": 100} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(f"/{what}", params=options)).raise_for_status().json()
        found += page[what]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


# --- questions -----------------------------------------------------------------------------


def _questions(count: int) -> Sequence[Mapping[str, Any]]:
    texts = [q.text for language in _ASKED for q in xquad(language, language).questions]
    random.Random(0).shuffle(texts)
    history = [{"role": "user", "content": "Tell me of it."}]
    return [
        {
            "question": texts[number % len(texts)],
            "collection": _CHAOS,
            "stream": number % 2 == 1,
            "history": history if number % 10 == 0 else [],
        }
        for number in range(count)
    ]


async def _ask(
    client: httpx.AsyncClient, questions: Sequence[Mapping[str, Any]], report: Report
) -> None:
    async def ask(body: Mapping[str, Any]) -> None:
        answer = await client.post("/query", json=body)
        report.statuses[f"/query {answer.status_code}"] += 1
        if not answer.is_success:
            return
        whole = _last_event(answer.text) if body["stream"] else answer.json()
        if whole is None:
            report.failed_streams += 1
            return
        report.generators[whole["generator"]] += 1
        report.warned += bool(whole["warnings"])

    await _several_at_once([ask(body) for body in questions])


def _last_event(stream: str) -> Any:
    """Return the data of `done`; None when the stream does not end with it."""
    *_, last = (block for block in stream.replace("\r\n", "\n").split("\n\n") if block.strip())
    event, _, data = last.partition("\n")
    return json.loads(data.removeprefix("data: ")) if event == "event: done" else None


async def _several_at_once(work: Sequence[Any]) -> None:
    places = asyncio.Semaphore(_AT_ONCE)

    async def place(each: Any) -> None:
        async with places:
            await each

    await asyncio.gather(*map(place, work))


# --- the report ----------------------------------------------------------------------------


def _print(report: Report) -> int:
    asked = sum(report.faults.values())
    served = report.faults.get("served", 0)
    print(f"{asked} requests to Ollama, {asked - served} of them failed: {dict(report.faults)}")
    print(f"answers of the API: {dict(report.statuses)}")
    print(f"worded by: {dict(report.generators)}; {report.warned} answers with a warning")
    print(f"jobs: {dict(report.jobs)}, {report.retried} of them tried more than once")
    complaints = list(report.complaints)
    for complaint in complaints:
        print(f"FAILED: {complaint}")
    if not complaints:
        print("0 lost, 0 different, 0 stuck, 0 answers of status 5xx")
    return int(bool(complaints))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--documents", type=int, default=500)
    parser.add_argument("--questions", type=int, default=500)
    parser.add_argument("--share", type=float, default=0.2, help="of Ollama's answers that fail")
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(asyncio.run(main(parser.parse_args())))
