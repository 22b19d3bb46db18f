"""Hybrid search over 100,000 chunks of real sentences, beside LlamaIndex's own PGVectorStore.

NPL's 11,429 abstracts stand among chunks put together anew from sentences of NPL and of XQuAD
(English), about 150 words each; vectors are synthetic. Two things are measured in one run:

* what it costs in quality to read only the rarest words' lists (nDCG@10 of the keyword leg on NPL,
  against the same leg reading everything), for several limits;
* the time of hybrid search for five-word questions, against `PGVectorStore(hybrid_search=True)`
  over the same texts and vectors in the same database.

    python benchmarks/hybrid_100k.py [--database-url URL] [--chunks 100000]
"""

import argparse
import asyncio
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from psycopg import AsyncConnection

import corpus
from loading import database, fill, held
from ragcore.adapters.postgres.chunks import PostgresChunks
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import Pool, describe_server, open_pool
from ragcore.adapters.postgres.search import Search
from ragcore.model import EmbeddingSpec

SPEC = EmbeddingSpec(model="synthetic", dimension=corpus.DIMENSION, max_tokens=512)
PEER = "bench_peer"
TOP_K = 10
LIMITS = (2**31 - 1, 1_000, 5_000, 20_000, 30_000)


async def main() -> None:
    arguments = _arguments()
    name = f"bench-hybrid-{arguments.chunks}"
    async with database(arguments.database_url) as url, open_pool(url, size=4) as pool:
        await provide(pool, name, arguments.chunks)
        await _report_quality(pool, name)
        if not arguments.quality_only:
            await provide_peer(pool, name)
            await _report_times(url, pool, name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url", help="an existing database; default: a server of its own")
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--quality-only", action="store_true")
    return parser.parse_args()


async def provide(
    pool: Pool, name: str, count: int, *, spec: EmbeddingSpec = SPEC, chunker: str = "none"
) -> None:
    """Fill the collection, unless a run before has done so."""
    collections = PostgresCollections(pool)
    await collections.open(name, embedding=spec, chunker=chunker)
    async with pool.connection() as connection:
        if await held(connection, name) == count:
            return
    await collections.delete(name)  # a run before was interrupted
    await collections.open(name, embedding=spec, chunker=chunker)
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        abstracts = [corpus.one(f"npl-{n}", t) for n, t in corpus.npl_documents().items()]
        english = [s for s in corpus.sentences() if not corpus.is_russian(s)]
        chunks = [*abstracts, *corpus.chunks(count - len(abstracts), english, seed=1)]
        vectors = corpus.unit_vectors(count, seed=2)
        await fill(connection, name, chunks[:count], vectors, chunks_per_document=10)


# --- quality -------------------------------------------------------------------------------


async def _report_quality(pool: Pool, name: str) -> None:
    questions, relevant = _npl()
    print(f"keyword leg on NPL, {len(questions)} questions, among {name}")
    full: dict[str, set[str]] = {}
    for limit in LIMITS:
        found, shared, times = [], [], []
        for number, text in questions.items():
            ranked, milliseconds = await _by_words(pool, name, text, limit)
            found.append(_ndcg(ranked, relevant[number]))
            times.append(milliseconds)
            best = full.setdefault(number, set(ranked[:TOP_K]))
            shared.append(len(best & set(ranked[:TOP_K])) / len(best))
        label = "all" if limit == LIMITS[0] else str(limit)
        print(
            f"  postings read ≤ {label:>6}: nDCG@10 {statistics.mean(found):.4f},"
            f" of the full ten {statistics.mean(shared):.3f},"
            f" p50 {statistics.median(times):.1f} ms",
            flush=True,
        )


async def _by_words(pool: Pool, name: str, text: str, limit: int) -> tuple[Sequence[str], float]:
    search = Search(
        collection=name,
        vector=None,
        text=text,
        filters=None,
        vector_limit=0,
        keyword_limit=50,
        exact_rows=2000,
        postings=limit,
    )
    started = time.perf_counter()
    async with pool.connection() as connection:
        rows = await _run(connection, search)
    milliseconds = (time.perf_counter() - started) * 1000
    ranked = sorted(search.candidates(rows).candidates, key=lambda c: c.keyword_rank or 0)
    return [c.passage.chunk_id.removeprefix("npl-") for c in ranked], milliseconds


async def _run(connection: AsyncConnection[Any], search: Search) -> list[Mapping[str, Any]]:
    from ragcore.adapters.postgres.chunks import rows_of

    async with connection.transaction():
        return list(await rows_of(search, connection, await describe_server(connection)))


def _npl() -> tuple[Mapping[str, str], Mapping[str, set[str]]]:
    folder = corpus.SHARED / "npl"
    lines = (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines()
    questions = {str(row["id"]): row["text"] for row in map(json.loads, lines)}
    relevant: dict[str, set[str]] = defaultdict(set)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines():
        question, document, _ = line.split("\t")
        relevant[question].add(document)
    return questions, relevant


def _ndcg(ranked: Sequence[str], relevant: set[str]) -> float:
    gains = [1 / math.log2(place + 2) for place in range(TOP_K)]
    best = sum(gains[: len(relevant)])
    return sum(g for g, id_ in zip(gains, ranked, strict=False) if id_ in relevant) / best


# --- time ----------------------------------------------------------------------------------


async def provide_peer(pool: Pool, name: str) -> None:
    """Copy the collection into the table that PGVectorStore makes, with the indexes it makes."""
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        cursor = await connection.execute("SELECT to_regclass(%s)", (f"public.data_{PEER}",))
        if (await cursor.fetchone() or [None])[0] is not None:
            return
        for statement in (
            "SET maintenance_work_mem = '512MB'",
            f"CREATE TABLE public.data_{PEER} (id bigserial PRIMARY KEY, text varchar NOT NULL,"
            " metadata_ json, node_id varchar, embedding vector(384), text_search_tsv tsvector"
            " GENERATED ALWAYS AS (to_tsvector('english', text)) STORED)",
            f"INSERT INTO public.data_{PEER} (text, metadata_, node_id, embedding)"
            """ SELECT metadata ->> 'text', '{"year": 2024}', id, vec"""
            f' FROM vecs."{name}"',
            f"CREATE INDEX {PEER}_idx ON public.data_{PEER} USING gin (text_search_tsv)",
            f"CREATE INDEX {PEER}_idx_1 ON public.data_{PEER} ((metadata_ ->> 'ref_doc_id'))",
            f"CREATE INDEX data_{PEER}_embedding_idx ON public.data_{PEER}"
            " USING hnsw (embedding vector_cosine_ops) WITH (m = 16, ef_construction = 64)",
            f"VACUUM ANALYZE public.data_{PEER}",
        ):
            await connection.execute(statement.encode())


async def _report_times(url: str, pool: Pool, name: str) -> None:
    english = [s for s in corpus.sentences() if not corpus.is_russian(s)]
    texts = corpus.questions(60, english, words=5, seed=3)
    vectors = corpus.unit_vectors(60, seed=4)
    store = PostgresChunks(pool)

    async def ours(index: int) -> int:
        found = await store.candidates(
            name,
            vector=vectors[index],
            text=texts[index],
            vector_limit=TOP_K,
            keyword_limit=TOP_K,
        )
        return len(found.candidates)

    async def ours_at_fifty(index: int) -> int:
        found = await store.candidates(name, vector=vectors[index], text=texts[index])
        return len(found.candidates)

    peer = _peer(url, vectors, texts)
    measured: dict[str, list[float]] = defaultdict(list)
    for index in range(-5, len(texts)):  # in turns, so that other load hits all alike
        for label, call in (
            ("ragcore, 10 of each leg", ours),
            ("ragcore, 50 of each leg", ours_at_fifty),
            ("PGVectorStore hybrid, 10 of each leg", peer),
        ):
            milliseconds = await _timed(call, index % len(texts))
            if index >= 0:
                measured[label].append(milliseconds)
    print("hybrid search, five-word questions, one client")
    for label, times in measured.items():
        quantiles = statistics.quantiles(times, n=20)
        print(f"  {label}: p50 {statistics.median(times):.1f} ms, p95 {quantiles[-1]:.1f} ms")
    medians = [statistics.median(times) for times in measured.values()]
    print(f"  ratio of p50 to PGVectorStore's: {medians[0] / medians[2]:.3f}")
    print(f"  … with 50 of each leg: {medians[1] / medians[2]:.3f}")


async def _timed(call: Callable[[int], Awaitable[int]], index: int) -> float:
    started = time.perf_counter()
    assert await call(index) >= TOP_K
    return (time.perf_counter() - started) * 1000


def peer_store(url: str) -> Any:
    """Open LlamaIndex's PGVectorStore over the peer's table."""
    from llama_index.vector_stores.postgres import PGVectorStore

    parts = urlsplit(url)
    return PGVectorStore.from_params(
        host=parts.hostname,
        port=str(parts.port),
        database=parts.path.removeprefix("/"),
        user=parts.username,
        password=parts.password or "",
        table_name=PEER,
        embed_dim=corpus.DIMENSION,
        hybrid_search=True,
        text_search_config="english",
        perform_setup=False,
        hnsw_kwargs={"hnsw_m": 16, "hnsw_ef_construction": 64, "hnsw_ef_search": 40},
    )


def _peer(url: str, vectors: Any, texts: Sequence[str]) -> Callable[[int], Awaitable[int]]:
    from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode

    store = peer_store(url)

    async def call(index: int) -> int:
        result = await store.aquery(
            VectorStoreQuery(
                query_embedding=vectors[index].tolist(),
                query_str=texts[index],
                similarity_top_k=TOP_K,
                sparse_top_k=TOP_K,
                mode=VectorStoreQueryMode.HYBRID,
            )
        )
        return len(result.nodes or [])

    return call


if __name__ == "__main__":
    asyncio.run(main())
