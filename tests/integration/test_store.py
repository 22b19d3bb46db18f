"""The chunk store on real servers: every PostgreSQL, modest roles, writers in parallel."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool

from pooling import pooler
from ragcore.adapters.postgres.chunks import (
    PostgresChunks,
    copy_chunks,
    delete_document_chunks,
)
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.migrate import migrate, migrations
from ragcore.adapters.postgres.pool import Server, open_pool, require_supported
from ragcore.errors import CollectionMismatch, StoreUnavailable, UnsupportedServer
from ragcore.model import Chunk, EmbeddingSpec, Vectors
from ragcore.steps.filtering import parse

Pool = AsyncConnectionPool[Any]

SPEC = EmbeddingSpec(model="test:eight", dimension=8, max_tokens=100)


def made(count: int, *, of: str, text: str = "zebra crossing {n}") -> list[Chunk]:
    return [
        Chunk(f"{of}-{n}", n, text.format(n=n), text.format(n=n), tokens=3, language="en")
        for n in range(count)
    ]


def vectors(count: int, *, seed: int = 0) -> Vectors:
    found = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    unit: Vectors = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


@asynccontextmanager
async def opened(url: str, *, size: int = 4, **options: Any) -> AsyncIterator[tuple[Pool, Any]]:
    async with open_pool(url, size=size) as pool:
        await PostgresCollections(pool).open("notes", embedding=SPEC, chunker="test")
        yield pool, PostgresChunks(pool, **options)


async def add_document(pool: Pool, document_id: str, metadata: str = "{}") -> int:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "INSERT INTO ragcore.documents (collection, document_id, metadata)"
            " VALUES ('notes', %s, %s) RETURNING document_no",
            (document_id, metadata),
        )
        row = await cursor.fetchone()
        assert row is not None
        return int(row[0])


async def replace(
    connection: AsyncConnection[Any], number: int, chunks: Sequence[Chunk], found: Vectors
) -> None:
    await delete_document_chunks(connection, "notes", [number])
    await copy_chunks(
        connection, "notes", document_no=number, document_id="d", chunks=chunks, vectors=found
    )


async def postings(pool: Pool) -> list[tuple[Any, ...]]:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            'SELECT term, tf, length FROM ragcore."postings_notes" ORDER BY term, tf, length'
        )
        return await cursor.fetchall()


async def counts(pool: Pool) -> tuple[int, int]:
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT coalesce(sum(chunks), 0)::int, coalesce(sum(words), 0)::int"
            " FROM ragcore.chunk_counts WHERE collection = 'notes'"
        )
        row = await cursor.fetchone()
        assert row is not None
        return row[0], row[1]


# --- servers and roles ---------------------------------------------------------------------


def as_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:secret@{parts.hostname}:{parts.port}"))


def prepare_modest_role(url: str, *, schema: str) -> str:
    """Make a role without rights beyond its database, as Supabase gives out; return its URL."""
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(url, autocommit=True) as connection:
        if schema != "public":
            connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"CREATE EXTENSION vector SCHEMA {schema}")
        role = f"modest_{name}"
        connection.execute(f"DROP ROLE IF EXISTS {role}")
        connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
        connection.execute(f'GRANT CREATE ON DATABASE "{name}" TO {role}')
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        return as_role(url, role)


@pytest.mark.parametrize("schema", ["public", "extensions", "Odd name"])
async def test_everything_works_for_a_modest_role(any_postgres: str, schema: str) -> None:
    quoted = f'"{schema}"'
    url = prepare_modest_role(any_postgres, schema=quoted if " " in schema else schema)
    await migrate(url)
    await migrate(url)
    for exact_rows in (0, 2000):
        async with opened(url, exact_rows=exact_rows) as (pool, store):
            if not await PostgresChunks(pool).document_chunks("notes", "d"):
                number = await add_document(pool, "d", '{"year": 2024}')
                async with pool.connection() as connection, connection.transaction():
                    await replace(connection, number, made(20, of="d"), vectors(20))
            found = await store.candidates(
                "notes",
                vector=vectors(20)[3],
                text="ZEBRAS 3",
                filters=parse({"year": 2024}),
                vector_limit=5,
            )
            best = min(found.candidates, key=lambda c: c.vector_rank or 99)
            assert best.passage.chunk_id == "d-3"
            assert best.cosine == pytest.approx(1)
            assert best.keyword_rank == 1
            assert best.matched == ("3", "zebra")
    async with open_pool(url, size=1) as pool:
        receipt, _ = await PostgresCollections(pool).delete("notes")
        assert receipt.chunks == 20


async def test_a_missing_extension_that_may_not_be_made_is_explained(
    empty_database_url: str,
) -> None:
    with psycopg.connect(empty_database_url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS bare")
        connection.execute("CREATE ROLE bare LOGIN PASSWORD 'secret'")
    url = as_role(empty_database_url, "bare")
    with pytest.raises(UnsupportedServer, match="CREATE EXTENSION vector"):
        await migrate(url)
    with pytest.raises(UnsupportedServer, match="CREATE EXTENSION vector"):
        async with open_pool(url, size=1):
            pass


@pytest.mark.parametrize(
    ("server", "named"),
    [
        (Server(14, (0, 8, 1), "public"), "PostgreSQL 14"),
        (Server(16, (0, 6, 2), "public"), "pgvector 0.6.2"),
    ],
)
def test_an_old_server_is_refused(server: Server, named: str) -> None:
    with pytest.raises(UnsupportedServer, match=f"{named} is too old"):
        require_supported(server)


async def test_a_server_that_is_away_is_a_passing_failure(database_url: str) -> None:
    url = urlunsplit(urlsplit(database_url)._replace(path="/nobody"))
    with pytest.raises(StoreUnavailable, match="nobody"):
        await migrate(url)


# --- migrations ----------------------------------------------------------------------------


async def test_many_may_migrate_at_once(empty_database_url: str) -> None:
    await asyncio.gather(*(migrate(empty_database_url) for _ in range(4)))
    with psycopg.connect(empty_database_url) as connection:
        applied = connection.execute("SELECT name FROM ragcore.migrations ORDER BY name").fetchall()
    assert [name for (name,) in applied] == [migration.name for migration in migrations()]


async def test_a_database_of_a_newer_release_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO ragcore.migrations VALUES ('9999_later.sql', 'x')")
    with pytest.raises(UnsupportedServer, match=r"9999_later\.sql.*update ragcore"):
        await migrate(database_url)


async def test_an_edited_migration_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE ragcore.migrations SET checksum = 'x' WHERE name ~ '^0001'")
    with pytest.raises(UnsupportedServer, match="0001_catalog"):
        await migrate(database_url)


# --- words follow every write --------------------------------------------------------------


async def test_words_and_counts_follow_every_client(database_url: str) -> None:
    async with opened(database_url) as (pool, store):
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO vecs.notes (id, vec, metadata)"
                """ VALUES ('x', array_fill(1, '{8}')::vector, '{"text": "Zebras run fast"}')"""
            )
        assert await postings(pool) == [("fast", 1, 3), ("run", 1, 3), ("zebras", 1, 3)]
        assert await counts(pool) == (1, 3)
        async with pool.connection() as connection:
            await connection.execute(
                """UPDATE vecs.notes SET metadata = '{"text": "cows run, cows walk"}'"""
            )
        assert await postings(pool) == [("cows", 2, 4), ("run", 1, 4), ("walk", 1, 4)]
        assert await counts(pool) == (1, 4)
        found = await store.candidates("notes", vector=None, text="cows")
        assert [c.passage.chunk_id for c in found.candidates] == ["x"]
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM vecs.notes")
        assert (await postings(pool), await counts(pool)) == ([], (0, 0))
        async with pool.connection() as connection:
            await connection.execute("INSERT INTO vecs.notes VALUES ('y', array_fill(1, '{8}'))")
            await connection.execute("TRUNCATE vecs.notes")
        assert (await postings(pool), await counts(pool)) == ([], (0, 0))


@pytest.mark.parametrize(
    "text",
    ["", "the", "a b", "a b " * 1000, " ".join(f"word{n % 3000}" for n in range(40_000))],
    ids=["empty", "one", "two", "repeated", "long"],
)
async def test_a_chunk_is_as_long_as_its_words_are_many(text: str, any_postgres: str) -> None:
    await migrate(any_postgres)
    async with opened(any_postgres) as (pool, _):
        async with pool.connection() as connection:
            await connection.execute(
                "INSERT INTO vecs.notes (id, vec, metadata) VALUES ('x', %s, %s)",
                (vectors(1)[0], Jsonb({"text": text})),
            )
        found = await postings(pool)
        words = sum(tf for _, tf, _ in found)
        assert {length for _, _, length in found} == ({min(words, 32_767)} if found else set())
        assert await counts(pool) == (1, words)


async def test_counts_stay_true_when_they_are_folded(database_url: str) -> None:
    async with opened(database_url) as (pool, _):
        number = await add_document(pool, "d")
        for turn in range(150):
            async with pool.connection() as connection, connection.transaction():
                await replace(connection, number, made(1 + turn % 3, of="d"), vectors(1 + turn % 3))
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT count(*) FROM ragcore.chunk_counts")
            assert (await cursor.fetchone() or [0])[0] < 210
        assert await counts(pool) == (3, 9)
        assert len(await postings(pool)) == 9


async def test_a_stranger_s_table_is_left_alone(database_url: str) -> None:
    async with open_pool(database_url, size=1) as pool:
        async with pool.connection() as connection:
            await connection.execute("CREATE TABLE vecs.notes (id text)")
        with pytest.raises(CollectionMismatch, match="did not make"):
            await PostgresCollections(pool).open("notes", embedding=SPEC, chunker="test")
        async with pool.connection() as connection:
            await connection.execute("SELECT id FROM vecs.notes")


async def test_copying_vectors_of_another_dimension_is_refused(database_url: str) -> None:
    async with opened(database_url) as (pool, _):
        number = await add_document(pool, "d")
        with pytest.raises(CollectionMismatch, match="4 dimensions"):
            async with pool.connection() as connection, connection.transaction():
                await replace(connection, number, made(1, of="d"), vectors(1)[:, :4])


# --- several at once -----------------------------------------------------------------------


async def test_writers_of_the_same_words_do_not_wait_for_one_another(database_url: str) -> None:
    """One writer holds its transaction open, words and all; another goes through meanwhile."""
    async with opened(database_url) as (pool, store):
        first, second = await add_document(pool, "a"), await add_document(pool, "b")
        async with pool.connection() as holder, holder.transaction():
            await replace(holder, first, made(50, of="a"), vectors(50))
            async with pool.connection() as other, other.transaction():
                await other.execute("SET LOCAL lock_timeout = '1ms'")
                await replace(other, second, made(50, of="b"), vectors(50, seed=1))
                await replace(other, second, made(40, of="b"), vectors(40, seed=1))
        found = await store.candidates("notes", vector=None, text="zebra", keyword_limit=100)
        assert len(found.candidates) == found.terms[0].documents == 90
        assert await counts(pool) == (90, 270)


async def test_writers_of_the_same_words_never_deadlock(database_url: str) -> None:
    async with opened(database_url, size=6) as (pool, _):
        numbers = [await add_document(pool, f"d{n}") for n in range(5)]

        async def write(index: int) -> None:
            for turn in range(8):
                words = ["zebra", "cow", "fox", "hen"]
                text = " ".join(words[(turn + index) % 4 :] + words[: (turn + index) % 4]) + " {n}"
                async with pool.connection() as connection, connection.transaction():
                    chunks = made(20, of=f"d{index}", text=text)
                    await replace(connection, numbers[index], chunks, vectors(20, seed=turn))

        await asyncio.gather(*(write(index) for index in range(5)))
        assert await counts(pool) == (100, 500)
        assert len(await postings(pool)) == 500


async def test_a_reader_sees_the_old_chunks_or_the_new_ones(database_url: str) -> None:
    async with opened(database_url) as (pool, store):
        number = await add_document(pool, "d", '{"year": 1}')
        old, new = made(10, of="d", text="old zebra {n}"), made(10, of="d", text="new zebra {n}")
        seen: set[tuple[str, ...]] = set()
        done = asyncio.Event()

        async def poll() -> None:
            while not done.is_set():
                for filters in (None, parse({"year": 1})):
                    found = await store.candidates(
                        "notes", vector=vectors(1)[0], text="zebra", filters=filters
                    )
                    by_word = [c for c in found.candidates if c.keyword_rank is not None]
                    by_vector = [c for c in found.candidates if c.vector_rank is not None]
                    assert (len(by_word), len(by_vector)) == (10, 10)
                    seen.add(tuple({c.passage.text.split()[0] for c in found.candidates}))

        async def write() -> None:
            for turn in range(30):
                async with pool.connection() as connection, connection.transaction():
                    await replace(connection, number, new if turn % 2 else old, vectors(10))
                    await asyncio.sleep(0.002)
            done.set()

        async with pool.connection() as connection, connection.transaction():
            await replace(connection, number, old, vectors(10))
        await asyncio.gather(write(), poll(), poll())
        assert seen == {("old",), ("new",)}


# --- never too little ----------------------------------------------------------------------


@pytest.mark.parametrize("exact_rows", [0, 2000])
async def test_ten_reingests_without_vacuum_lose_nothing(
    database_url: str, exact_rows: int
) -> None:
    async with opened(database_url, exact_rows=exact_rows) as (pool, store):
        async with pool.connection() as connection:
            await connection.execute("ALTER TABLE vecs.notes SET (autovacuum_enabled = false)")
        number = await add_document(pool, "d")
        for turn in range(11):
            async with pool.connection() as connection, connection.transaction():
                await replace(connection, number, made(300, of="d"), vectors(300, seed=turn))
        for seed in range(5):
            found = await store.candidates(
                "notes", vector=vectors(1, seed=99 + seed)[0], text="zebra"
            )
            assert sum(c.vector_rank is not None for c in found.candidates) == 50
            assert sum(c.keyword_rank is not None for c in found.candidates) == 50
            assert found.shortfall == 0


async def test_a_broad_filter_walks_the_index_and_loses_nothing(database_url: str) -> None:
    async with opened(database_url, exact_rows=10) as (pool, store):
        for index in range(20):
            number = await add_document(pool, f"d{index}", f'{{"half": {index % 2}}}')
            async with pool.connection() as connection, connection.transaction():
                await replace(connection, number, made(20, of=f"d{index}"), vectors(20, seed=index))
        every = np.concatenate([vectors(20, seed=index) for index in range(1, 20, 2)])
        question = vectors(1, seed=7)[0]
        found = await store.candidates(
            "notes", vector=question, text="zebra", filters=parse({"half": 1}), vector_limit=30
        )
        assert not found.exact
        ranked = sorted(
            (c for c in found.candidates if c.vector_rank is not None),
            key=lambda c: c.vector_rank or 0,
        )
        assert len(ranked) == 30
        assert all(c.passage.metadata["half"] == 1 for c in found.candidates)
        assert [c.cosine for c in ranked] == pytest.approx(
            sorted(every @ question, reverse=True)[:30], abs=1e-5
        )


async def test_frequent_words_that_are_only_looked_up_change_no_score(database_url: str) -> None:
    """`zebra` (100 chunks) proposes; `crossing` (300) is looked up for what it proposes."""
    async with opened(database_url, postings=1) as (pool, bounded):
        number = await add_document(pool, "d")
        chunks = [
            *made(200, of="b", text="a crossing of roads {n}"),
            *made(100, of="a", text="zebra crossing {n} {n}"),
        ]
        async with pool.connection() as connection, connection.transaction():
            await replace(connection, number, chunks, vectors(300))
        wanted = {"vector": None, "text": "zebra crossing", "keyword_limit": 10}
        cut = await bounded.candidates("notes", **wanted)
        full = await PostgresChunks(pool).candidates("notes", **wanted)
        assert cut == full
        assert len(cut.candidates) == 10
        assert all(set(c.matched) == {"zebra", "cross"} for c in cut.candidates)


async def test_settings_of_a_search_do_not_outlive_it(database_url: str) -> None:
    """Behind a pooler the next transaction may be somebody else's."""
    async with pooler(database_url) as url, opened(url, size=1) as (pool, store):
        await store.candidates("notes", vector=vectors(1)[0], text="zebra")
        async with pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT current_setting('jit'), current_setting('search_path'),"
                " current_setting('hnsw.iterative_scan'), current_setting('hnsw.ef_search')"
            )
            assert await cursor.fetchone() == ("on", '"$user", public', "off", "40")


async def test_a_wider_view_does_not_outlive_its_search(database_url: str) -> None:
    async with opened(database_url, size=1) as (pool, store):
        await store.candidates("notes", vector=vectors(1)[0], text=None, vector_limit=200)
        async with pool.connection() as connection:
            cursor = await connection.execute("SELECT current_setting('hnsw.ef_search')")
            assert await cursor.fetchone() == ("64",)
