"""What a search costs over embedding its question and running its one statement.

    python benchmarks/search_overhead.py [--chunks 10000] [--questions 200] [--mixed]

`rag.search` and the bare pair (the model, then the same SQL over one plain connection, rows fetched
and thrown away) take turns, question by question, each question new to both. The collection is of
real sentences with synthetic vectors; with `--mixed` half of it is Russian, and each search looks
for hidden languages by a second vector search, which the bare pair has no answer to.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from itertools import islice

from pydantic import SecretStr

import corpus
from loading import database, fill
from ragcore import Rag
from ragcore.adapters.postgres.chunks import rows_of
from ragcore.adapters.postgres.pool import describe_server
from ragcore.adapters.postgres.search import Search
from ragcore.runtime import Runtime
from ragcore.settings import Settings
from rendering import articles


async def main(chunk_count: int, question_count: int, *, mixed: bool) -> None:
    questions = [q.text for a in articles("en") for q in a.questions][: 2 * question_count]
    async with (
        database(None) as url,
        Rag.open(Settings(database_url=SecretStr(url)), collection="overhead") as rag,
    ):
        await _fill(rag.runtime, chunk_count, mixed=mixed)
        whole: list[float] = []
        bare: list[float] = []
        async with rag.runtime.pool.connection() as connection:
            server = await describe_server(connection)

            async def run_bare(question: str) -> None:
                vector = await rag.runtime.model.embed_query(question)
                search = Search(
                    collection="overhead",
                    vector=vector,
                    text=question,
                    filters=None,
                    vector_limit=rag.runtime.settings.search.candidates,
                    keyword_limit=rag.runtime.settings.search.candidates,
                    exact_rows=rag.runtime.settings.search.exact_rows,
                    postings=30_000,  # as PostgresChunks has it
                )
                await rows_of(search, connection, server)

            for one, other in zip(questions[::2], questions[1::2], strict=False):
                whole.append(await _timed(rag.search, one))
                bare.append(await _timed(run_bare, other))
    for name, times in (("rag.search", whole), ("model + SQL", bare)):
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(f"{name:12} p50 {p50 * 1000:6.1f} ms   p95 {p95 * 1000:6.1f} ms")
    print(f"ratio of the medians {statistics.median(whole) / statistics.median(bare):.2f}")


async def _fill(runtime: Runtime, count: int, *, mixed: bool) -> None:
    both = corpus.chunks(3 * count, corpus.sentences(), seed=1)
    texts = list(islice((c for c in both if mixed or c.language == "en"), count))
    vectors = corpus.unit_vectors(count, seed=2)
    async with runtime.pool.connection() as connection:
        await connection.set_autocommit(True)
        await fill(connection, "overhead", texts, vectors, chunks_per_document=10)
        await connection.set_autocommit(False)


async def _timed(call: Callable[[str], Awaitable[object]], question: str) -> float:
    started = time.perf_counter()
    await call(question)
    return time.perf_counter() - started


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--mixed", action="store_true", help="Russian and English chunks")
    given = parser.parse_args()
    asyncio.run(main(given.chunks, given.questions, mixed=given.mixed))
