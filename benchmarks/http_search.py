"""Searching over HTTP: what the service adds, and what it does beside plain apps on stock stores.

100,000 chunks of real English sentences with synthetic vectors; one API process with keys, rate
limits and metrics on; clients, server and PostgreSQL share the machine. Measured in one run:

* one client, questions new to the service, against the bare model and the bare SQL;
* eight clients, questions embedded before, against a FastAPI app over the stock
  SupabaseVectorStore (vector) and over the stock PGVectorStore (hybrid), block by block in turns;
* the slowest hundredth of searches while a worker ingests, against the same without.

    python benchmarks/http_search.py [--database-url URL] [--chunks 100000] [--seconds 6]
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from pydantic import SecretStr

import corpus
from hybrid_100k import provide, provide_peer
from load import Connection, Load, post_for
from loading import database
from ragcore import Rag
from ragcore.adapters.postgres.chunks import rows_of
from ragcore.adapters.postgres.pool import describe_server
from ragcore.adapters.postgres.search import Search
from ragcore.embedded import embedded_servers
from ragcore.embedded.machine import free_port
from ragcore.settings import Settings
from services import KEY, Server, api_of, environment_of, process, wait_for

TOP_K = 10


async def main() -> None:
    arguments = _arguments()
    name = f"bench-http-{arguments.chunks}"
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
        Path(directory).chmod(0o711)
        data_dir = Path(directory) / "data"
        async with (
            database(arguments.database_url) as url,
            embedded_servers(data_dir, postgres=False) as servers,
        ):
            settings = Settings(database_url=SecretStr(url), data_dir=data_dir)
            asked = await _prepare(settings, name, arguments.chunks)
            vectors = Path(directory) / "vectors.npz"
            np.savez(vectors, questions=list(asked), vectors=np.array(list(asked.values())))
            environment = environment_of(url, servers.redis_url, data_dir)
            with api_of(environment) as api:
                await _report_overhead(settings, name, api, arguments.questions)
                await _report_rates(url, name, api, list(asked), vectors, arguments.seconds)
                await _report_under_load(environment, name, api, list(asked), arguments.seconds)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", help="an existing database; default: a server of its own")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=6.0)
    return parser.parse_args()


async def _prepare(settings: Settings, name: str, chunks: int) -> dict[str, np.ndarray]:
    """Fill the collection and the peer's table; return questions with their vectors."""
    async with Rag.open(settings) as rag:
        runtime = rag.runtime
        await provide(
            runtime.pool, name, chunks, spec=runtime.embedder.spec, chunker=runtime.chunker
        )
        await provide_peer(runtime.pool, name)
        english = [s for s in corpus.sentences() if not corpus.is_russian(s)]
        texts = corpus.questions(200, english, words=5, seed=8)
        return {text: await runtime.model.embed_query(text) for text in texts}


# --- one client ----------------------------------------------------------------------------


async def _report_overhead(settings: Settings, name: str, api: Server, count: int) -> None:
    english = [s for s in corpus.sentences() if not corpus.is_russian(s)]
    texts = corpus.questions(2 * count, english, words=5, seed=9)  # each new to either side
    whole: list[float] = []
    bare: list[float] = []
    async with (
        Rag.open(settings) as rag,
        rag.runtime.pool.connection() as connection,
    ):
        server = await describe_server(connection)

        async def run_bare(text: str) -> None:
            search = Search(
                collection=name,
                vector=await rag.runtime.model.embed_query(text),
                text=text,
                filters=None,
                vector_limit=settings.search.candidates,
                keyword_limit=settings.search.candidates,
                exact_rows=settings.search.exact_rows,
                postings=30_000,  # as PostgresChunks has it
            )
            await rows_of(search, connection, server)

        await run_bare("warm")
        over_http = await Connection.open(api.port, key=KEY)
        await over_http.post("/search", _body(name, "warm"))
        for one, other in zip(texts[::2], texts[1::2], strict=True):
            whole.append(await _timed(over_http.post("/search", _body(name, one))))
            bare.append(await _timed(run_bare(other)))
        over_http.close()
    ratio = statistics.median(whole) / statistics.median(bare)
    print(
        "one client, new questions, hybrid:"
        f" over HTTP p50 {1000 * statistics.median(whole):.1f} ms,"
        f" bare model + SQL {1000 * statistics.median(bare):.1f} ms, ratio {ratio:.2f}",
        flush=True,
    )


def _body(name: str, text: str) -> bytes:
    return json.dumps({"question": text, "collection": name, "top_k": TOP_K}).encode()


async def _timed(work: Any) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


# --- eight clients -------------------------------------------------------------------------


async def _report_rates(
    url: str, name: str, api: Server, texts: Sequence[str], vectors: Path, seconds: float
) -> None:
    for mode, kind in (("vector", "supabase"), ("hybrid", "pgvector")):
        bodies = _bodies(texts, name, mode)
        with _peer(kind, url, name, vectors) as peer:
            seen: dict[str, list[Load]] = defaultdict(list)
            for turn in range(4):  # in turns, so that other load hits both; the first warms up
                for label, server in (("ragcore", api), (kind, peer)):
                    load = await post_for(
                        server.port,
                        "/search",
                        bodies,
                        clients=8,
                        seconds=seconds,
                        pid=server.pid,
                        key=KEY,
                    )
                    if turn:
                        seen[label].append(load)
        print(f"eight clients, questions embedded before, {mode}")
        for label, loads in seen.items():
            print(
                f"  {label:9} {statistics.mean(x.rate for x in loads):7.1f} searches/s,"
                f" p50 {statistics.median(x.p50 for x in loads):6.1f} ms,"
                f" app {statistics.mean(x.processor_ms for x in loads):.2f} ms of processor each"
            )
        ratios = [a.rate / b.rate for a, b in zip(seen["ragcore"], seen[kind], strict=True)]
        print(
            f"  ratio of rates {statistics.mean(ratios):.2f} (least of a block {min(ratios):.2f})",
            flush=True,
        )


def _bodies(texts: Sequence[str], name: str, mode: str) -> list[dict[str, Any]]:
    return [{"question": text, "collection": name, "top_k": TOP_K, "mode": mode} for text in texts]


# --- while documents come in ---------------------------------------------------------------


async def _report_under_load(
    environment: dict[str, str], name: str, api: Server, texts: Sequence[str], seconds: float
) -> None:
    bodies = _bodies(texts, name, "hybrid")

    async def load() -> Load:
        return await post_for(
            api.port, "/search", bodies, clients=2, seconds=4 * seconds, pid=api.pid, key=KEY
        )

    await load()
    quiet = await load()
    async with _ingesting(environment, api):
        busy = await load()
    print(
        f"two clients, hybrid: p99 {quiet.quantile(0.99):.1f} ms alone,"
        f" {busy.quantile(0.99):.1f} ms while a worker ingests,"
        f" ratio {busy.quantile(0.99) / quiet.quantile(0.99):.2f}"
        f" (p50 {quiet.p50:.1f} and {busy.p50:.1f} ms)",
        flush=True,
    )


@contextmanager
def _peer(kind: str, url: str, name: str, vectors: Path) -> Iterator[Server]:
    port = free_port(None)
    script = Path(__file__).with_name("http_peers.py")
    command = [sys.executable, str(script), kind, url, name, str(port), str(vectors)]
    with process(command, dict(os.environ)) as pid:
        wait_for(port, "/openapi.json")
        yield Server(port, pid)


@asynccontextmanager
async def _ingesting(environment: dict[str, str], api: Server) -> AsyncIterator[None]:
    """Keep a worker busy with texts that nobody has embedded before."""
    sentences = corpus.sentences()
    texts = [chunk.text for chunk in corpus.chunks(2000, sentences, seed=os.getpid())]
    with process([sys.executable, "-m", "ragcore_worker"], environment):
        for start in range(0, 600, 20):
            body = "\n\n".join(texts[start * 3 : start * 3 + 60])
            await asyncio.to_thread(_post_text, api, f"load-{start}", body)
        await asyncio.sleep(5)  # the worker has opened everything and is at work
        yield


def _post_text(api: Server, document_id: str, text: str) -> None:
    body = {"text": text, "document_id": document_id, "collection": "bench-load"}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = Request(f"http://127.0.0.1:{api.port}/ingest", json.dumps(body).encode(), headers)
    with urlopen(request) as answer:  # noqa: S310
        assert answer.status == 202


if __name__ == "__main__":
    asyncio.run(main())
