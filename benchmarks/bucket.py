"""How fast a bucket is compared with what is stored, and that nothing is done twice.

python benchmarks/bucket.py [--objects 10000] [--many 100000]

A real S3 server (SeaweedFS) with so many small objects, which are entered as stored without being
converted: an unchanged bucket is compared, objects read being counted; a tenth of it changes and is
ingested, with the listing killed and taken over again and again. The peak of memory is taken of a
process of its own that compares a made-up listing of as many objects, and of ten times as many.
Embeddings are made up.
"""

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import psycopg
from psycopg.types.json import Jsonb

from buckets import Bucket, running_s3_server
from ragcore import Rag
from ragcore.errors import LeaseLost
from ragcore.flows.sync import bucket_order
from ragcore.model import BucketObject
from ragcore.ports import Submission
from ragcore.settings import Settings
from ragcore.steps.identity import id_from_uri
from ragcore.testing.memory.embedder import MemoryEmbedder

_KILLS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.memory_of:
        asyncio.run(compare_made_up(chosen.memory_of))
        return
    with (
        tempfile.TemporaryDirectory(prefix="ragcore-bench-") as place,
        running_s3_server(Path(place)) as server,
    ):
        bucket = server.make_bucket()
        fill(bucket, range(chosen.objects), "first")
        asyncio.run(measure(bucket, server.settings(bucket.name), chosen.objects))
    few, many = (memory_of(count) for count in (chosen.objects, chosen.many))
    print(f"peak memory, {chosen.objects} objects: {few} MB; {chosen.many}: {many} MB")
    print(f"ratio {many / few:.2f}")


def fill(bucket: Bucket, numbers: Sequence[int], word: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: bucket.put(f"{n // 100:04}/{n:06}.txt", f"{word} {n}"), numbers))


class Counted:
    """Buckets that count what is read of them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.read = 0

    def open(self, bucket: str, key: str) -> Any:
        self.read += 1
        return self._inner.open(bucket, key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@asynccontextmanager
async def opened(server: dict[str, Any]) -> AsyncIterator[Rag]:
    with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as place:
        Path(place).chmod(0o711)
        settings = Settings(
            data_dir=Path(place, "data"),
            buckets={"servers": {"bench": server}},  # type: ignore[arg-type]
        )
        async with Rag.open(settings, embedding=MemoryEmbedder()) as rag:
            yield rag


async def measure(bucket: Bucket, server: dict[str, Any], objects: int) -> None:
    async with opened(server) as rag:
        runtime = rag.runtime
        counted = Counted(runtime.buckets)
        sync = replace(runtime.sync, buckets=counted)
        fetch = replace(runtime.work.ingest.fetch_object, buckets=counted)  # type: ignore[type-var]
        ingest = replace(runtime.work.ingest, fetch_object=fetch)
        rag._runtime = replace(runtime, sync=sync, work=replace(runtime.work, ingest=ingest))

        listed = [each async for page in counted.list(bucket.name, "") for each in page]
        await know(rag, listed)
        started = time.perf_counter()
        again = await rag.sync(bucket.uri())
        seconds = time.perf_counter() - started
        print(
            f"unchanged: {dict(again.counts)}: {objects / seconds:.0f} objects/s, "
            f"{counted.read} read"
        )

        changed = range(0, objects, 10)
        fill(bucket, changed, "second version of")
        counted.read = 0
        job = await sync.start(
            bucket_order(bucket.uri(), collection=rag.collection), submitted_by="bench"
        )
        kills = await kill_midway(rag, job.job_id)
        ended = await rag._finish_bucket(job, None)
        print(f"a tenth changed, {kills} kills: {dict(ended.counts)}, {counted.read} read")
        assert ended.counts["updated"] == len(changed) == counted.read
        last = await rag.sync(bucket.uri())
        assert last.counts["unchanged"] == objects
        print("afterwards: as many documents as objects, all unchanged")


async def kill_midway(rag: Rag, job_id: Any) -> int:
    """Let the listing begin and lose it after some of its jobs, several times."""
    runtime, kills = rag.runtime, 0
    for round_ in range(1, _KILLS + 1):
        dying = _DyingSources(runtime.sources, after=round_)
        sync = replace(runtime.sync, sources=dying)  # type: ignore[arg-type]
        await sync.next(job_id=job_id)
        async with await psycopg.AsyncConnection.connect(
            runtime.database_url, autocommit=True
        ) as connection:
            await connection.execute(
                "UPDATE ragcore.jobs SET lease_until = now() - interval '1 s'"
                " WHERE job_id = %s AND lease_until IS NOT NULL",
                [job_id],
            )
        await runtime.catalog.release_expired(pause=timedelta())
        kills += dying.died
    return kills


class _DyingSources:
    """Sources whose user is as good as dead after so many batches: it hears nothing more."""

    def __init__(self, inner: Any, *, after: int) -> None:
        self._inner = inner
        self._left = after
        self.died = False

    async def take(self, submissions: Sequence[Submission], *, lease: Any = None) -> Any:
        if submissions and self._left == 0:
            self.died = True
            raise LeaseLost("killed")
        self._left -= bool(submissions)
        return await self._inner.take(submissions, lease=lease)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


# --- memory --------------------------------------------------------------------------------


def memory_of(objects: int) -> int:
    """Return the peak of memory, in MB, of a process that compares so many objects."""
    command = [sys.executable, __file__, "--memory-of", str(objects)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def made_up(bucket: str, numbers: Sequence[int]) -> list[BucketObject]:
    return [BucketObject(bucket, f"{n:08}.txt", 1, f"{n:032x}", 1) for n in numbers]


class _MadeUp:
    """A bucket of so many objects that exist in no server."""

    def __init__(self, objects: int) -> None:
        self._objects = objects

    def require(self, bucket: str, *, collection: str) -> None: ...

    async def list(self, bucket: str, prefix: str) -> AsyncIterator[list[BucketObject]]:
        for first in range(0, self._objects, 1000):
            yield made_up(bucket, range(first, min(first + 1000, self._objects)))


async def compare_made_up(objects: int) -> None:
    """Know half of the objects, in place, and compare all of them without ingesting any."""
    async with opened({"url": "http://127.0.0.1:9", "buckets": ["made-up"]}) as rag:
        for first in range(0, objects, 10_000):
            await know(rag, made_up("made-up", range(first, min(first + 10_000, objects), 2)))
        sync = replace(rag.runtime.sync, buckets=_MadeUp(objects))  # type: ignore[arg-type]
        order = bucket_order("s3://made-up", collection=rag.collection, dry_run=True)
        job = await sync.start(order, submitted_by="bench")
        ended = await sync.next(job_id=job.job_id)
        assert ended is not None
        assert ended.counts["unchanged"] == ended.counts["new"] == objects // 2, ended
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


async def know(rag: Rag, objects: Sequence[BucketObject]) -> None:
    """Enter objects as if they had been ingested."""
    rows = [{"id": id_from_uri(each.uri), "source": asdict(each)} for each in objects]
    async with await psycopg.AsyncConnection.connect(
        rag.runtime.database_url, autocommit=True
    ) as connection:
        await connection.execute(_KNOW, {"rows": Jsonb(rows), "collection": rag.collection})


_KNOW = """
WITH objects AS MATERIALIZED (
    SELECT id, source, gen_random_uuid() AS version_id
    FROM jsonb_to_recordset(%(rows)s) AS rows (id text, source jsonb)
), documents AS (
    INSERT INTO ragcore.documents (collection, document_id, last_sequence, version_id)
    SELECT %(collection)s, id, 1, version_id FROM objects
    RETURNING document_no, document_id
), versions AS (
    INSERT INTO ragcore.versions (version_id, document_no, sequence, state, sha256, size_bytes,
                                  fingerprint, source)
    SELECT o.version_id, d.document_no, 1, 'current', 'x', 1, 'x', o.source
    FROM documents d JOIN objects o ON o.id = d.document_id
)
INSERT INTO ragcore.sources (document_no, collection, bucket, key)
SELECT d.document_no, %(collection)s, o.source ->> 'bucket', o.source ->> 'key'
FROM documents d JOIN objects o ON o.id = d.document_id
"""


if __name__ == "__main__":
    main()
