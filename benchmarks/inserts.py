"""Inserting chunks with all their indexes, against two kinds of bare COPY BINARY.

Three tables grow block by block, in turns: a collection through `copy_chunks` (which reads the
words and keeps the counts as it goes); one by bare COPY of the same rows and of their ready-made
postings, with the triggers off, so that nobody has to read the words; and a table as full-text
search is usually set up, COPY of text, vector and metadata into HNSW and GIN indexes, the last over
a generated tsvector column.

The ready-made postings come chunk by chunk, as a client would make them; with --in-order, in order
of words, as the trigger writes them.

    python benchmarks/inserts.py [--database-url URL] [--blocks 40] [--in-order]
"""

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from psycopg.types.json import Jsonb

import corpus
from costs import Cost, now
from loading import database
from ragcore.adapters.postgres.chunks import copy_chunks
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.layout import stored_metadata
from ragcore.adapters.postgres.pool import Connection, Pool, open_pool
from ragcore.errors import CollectionNotFound
from ragcore.model import Chunk, EmbeddingSpec, Vectors
from ragcore.steps.languages import text_search_config

SPEC = EmbeddingSpec(model="synthetic", dimension=corpus.DIMENSION, max_tokens=512)
OURS, BARE = "bench-inserts-ours", "bench-inserts-bare"
BLOCK = 50
POSTINGS = ("int8", "int2", "int2", "text")
ROWS = ("text", "vector", "jsonb", "int8", "int8", "text", "int4", "int4", "text", "text", "bool")
USUAL = f"""
DROP TABLE IF EXISTS bench_usual;
CREATE TABLE bench_usual (
    id text PRIMARY KEY, vec vector({corpus.DIMENSION}) NOT NULL, metadata jsonb, body text,
    config text, words tsvector GENERATED ALWAYS AS (
        CASE config WHEN 'russian' THEN to_tsvector('russian', body)
                    ELSE to_tsvector('english', body) END) STORED
);
CREATE INDEX ON bench_usual USING hnsw (vec vector_cosine_ops) WITH (m = 16, ef_construction = 64);
CREATE INDEX ON bench_usual USING gin (metadata jsonb_path_ops);
CREATE INDEX ON bench_usual USING gin (words);
"""


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", help="an existing database; default: a server of its own")
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--in-order", action="store_true", help="ready-made words sorted as well")
    arguments = parser.parse_args()
    async with database(arguments.database_url) as url, open_pool(url, size=2) as pool:
        await _make_anew(pool)
        texts = list(corpus.chunks(BLOCK * arguments.blocks, corpus.sentences(), seed=5))
        vectors = corpus.unit_vectors(len(texts), seed=6)
        ours, bare, usual = Cost(), Cost(), Cost()
        async with pool.connection() as connection:
            for start in range(0, len(texts), BLOCK):
                block = slice(start, start + BLOCK)
                number = start // BLOCK + 1
                ours += await _insert(connection, number, texts[block], vectors[block])
                written = await _written(connection, number, in_order=arguments.in_order)
                bare += await _copy(connection, number, texts[block], vectors[block], *written)
                usual += await _copy_usual(connection, texts[block], vectors[block])
        for name in (OURS, BARE):
            await PostgresCollections(pool).delete(name)
    print(f"{len(texts)} chunks of {corpus.DIMENSION} dimensions and about 150 words")
    for label, cost in (("ragcore", ours), ("words ready-made", bare), ("tsvector, GIN", usual)):
        print(
            f"  {label}: {len(texts) / cost.wall:.0f} chunks/s,"
            f" {1000 * cost.processor / len(texts):.2f} ms of processor a chunk"
        )
    for label, cost in (("words ready-made", bare), ("tsvector, GIN", usual)):
        print(
            f"  of {label}: ratio by the clock {cost.wall / ours.wall:.3f},"
            f" by processor time of client and server {cost.processor / ours.processor:.3f}"
        )


async def _make_anew(pool: Pool) -> None:
    collections = PostgresCollections(pool)
    for name in (OURS, BARE):
        with suppress(CollectionNotFound):
            await collections.delete(name)
        await collections.open(name, embedding=SPEC, chunker="none")
    async with pool.connection() as connection:
        await connection.execute(f'ALTER TABLE vecs."{BARE}" DISABLE TRIGGER USER')
        await connection.execute(USUAL)


async def _insert(
    connection: Connection, number: int, chunks: Sequence[Chunk], vectors: Vectors
) -> Cost:
    before = now(connection)
    async with connection.transaction():
        await copy_chunks(
            connection,
            OURS,
            document_no=number,
            document_id=f"document-{number}",
            chunks=chunks,
            vectors=vectors,
        )
    return now(connection) - before


async def _copy(
    connection: Connection,
    number: int,
    chunks: Sequence[Chunk],
    vectors: Vectors,
    postings: Sequence[tuple[Any, ...]],
    numbers: Mapping[str, int],
) -> Cost:
    before = now(connection)
    async with connection.transaction(), connection.cursor() as cursor:
        async with cursor.copy(
            f'COPY vecs."{BARE}" (id, vec, metadata, chunk_no, document_no, document_id, ordinal,'
            " tokens, language, config, own_metadata) FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.set_types(ROWS)
            for chunk, vector in zip(chunks, vectors, strict=True):
                await copy.write_row(
                    (
                        chunk.chunk_id,
                        vector,
                        Jsonb(stored_metadata(chunk, f"document-{number}")),
                        numbers[chunk.chunk_id],
                        number,
                        f"document-{number}",
                        chunk.ordinal,
                        chunk.tokens,
                        chunk.language,
                        "simple",
                        False,
                    )
                )
        async with cursor.copy(
            f'COPY ragcore."postings_{BARE}" (chunk_no, tf, length, term)'
            " FROM STDIN (FORMAT BINARY)"
        ) as copy:
            copy.set_types(POSTINGS)
            for posting in postings:
                await copy.write_row(posting)
    return now(connection) - before


async def _copy_usual(connection: Connection, chunks: Sequence[Chunk], vectors: Vectors) -> Cost:
    before = now(connection)
    async with (
        connection.transaction(),
        connection.cursor() as cursor,
        cursor.copy(
            "COPY bench_usual (id, vec, metadata, body, config) FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(("text", "vector", "jsonb", "text", "text"))
        for chunk, vector in zip(chunks, vectors, strict=True):
            config = text_search_config(chunk.language)
            metadata = Jsonb({"document": chunk.chunk_id})
            await copy.write_row((chunk.chunk_id, vector, metadata, chunk.text, config))
    return now(connection) - before


async def _written(
    connection: Connection, number: int, *, in_order: bool
) -> tuple[Sequence[tuple[Any, ...]], dict[str, int]]:
    """Return the postings that our own insert made for a document, and its chunks' numbers."""
    order = "p.term, p.chunk_no" if in_order else "p.chunk_no, p.term"
    cursor = await connection.execute(
        f'SELECT p.* FROM ragcore."postings_{OURS}" p JOIN vecs."{OURS}" t USING (chunk_no)'
        f" WHERE t.document_no = %s ORDER BY {order}",
        (number,),
    )
    postings = await cursor.fetchall()
    cursor = await connection.execute(
        f'SELECT id, chunk_no FROM vecs."{OURS}" WHERE document_no = %s', (number,)
    )
    return postings, dict(await cursor.fetchall())


if __name__ == "__main__":
    asyncio.run(main())
