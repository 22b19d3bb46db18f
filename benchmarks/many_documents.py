"""Ten thousand small documents in one collection: does the last thousand cost what the first did?

Submits, works, lists, finds unchanged, updates and deletes in this process over a real PostgreSQL.
The converter and the embedding model are synthetic, so that what is measured is the catalogue, the
chunk tables and the blob store. Of the first and of the last thousand: seconds by the clock, and
processor time of PostgreSQL and this process together, which other load leaves alone.

    python benchmarks/many_documents.py [--database-url URL] [--documents 10000] [--block 1000]
"""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from costs import Cost, now
from loading import database
from ragcore.adapters.blobs.folder import FolderBlobs
from ragcore.adapters.postgres.catalog import PostgresCatalog
from ragcore.adapters.postgres.collections import PostgresCollections
from ragcore.adapters.postgres.pool import Connection, open_pool
from ragcore.flows.embedding import Embedding
from ragcore.flows.forget import Forget
from ragcore.flows.ingest import Ingest
from ragcore.flows.submit import Submit, Upload
from ragcore.flows.work import Work
from ragcore.model import Condition
from ragcore.testing.memory.converter import MemoryConverter
from ragcore.testing.memory.embedder import MemoryEmbedder

COLLECTION = "bench-many"
PAGE = 50


async def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--database-url", help="an existing database; default: a server of its own")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--block", type=int, default=1000, help="so many are measured together")
    arguments = parser.parse_args()
    blocks = max(arguments.documents // arguments.block, 2)
    async with database(arguments.database_url) as url, open_pool(url, size=1) as pool:
        with tempfile.TemporaryDirectory(prefix="ragcore-bench-") as directory:
            embedder = MemoryEmbedder(dimension=64)
            collections = PostgresCollections(pool)
            await collections.open(COLLECTION, embedding=embedder.spec, chunker="words")
            many = Many.of(
                PostgresCatalog(pool), collections, embedder, Path(directory), arguments.block
            )
            async with pool.connection() as connection:
                pass  # the only one there is: its server process does all the work
            try:
                await measure(many, connection, blocks)
            finally:
                await many.forget.collection(COLLECTION)


@dataclass
class Many:
    """The flows under measurement."""

    catalog: PostgresCatalog
    submit: Submit
    work: Work
    forget: Forget
    block: int
    """Documents in one."""
    last_job: UUID | None = None
    """Down to which the jobs were listed."""

    @classmethod
    def of(
        cls,
        catalog: PostgresCatalog,
        collections: PostgresCollections,
        embedder: MemoryEmbedder,
        directory: Path,
        block: int,
    ) -> "Many":
        blobs = FolderBlobs(directory / "blobs")
        ingest = Ingest(
            catalog=catalog,
            collections=collections,
            blobs=blobs,
            converter=MemoryConverter(),
            embedding=Embedding(embedder),
            directory=directory,
            fingerprint="bench",
            chunker="words",
            max_tokens=embedder.spec.max_tokens,
            tokenizer="bytes",
        )
        return cls(
            catalog,
            Submit(catalog, blobs, None, fingerprint="bench", max_bytes=2**20),
            Work(catalog, ingest, owner="bench"),
            Forget(catalog, collections, blobs),
            block,
        )

    async def ingest(self, block: int, *, edition: int) -> None:
        for number in range(block * self.block, (block + 1) * self.block):
            upload = Upload(
                COLLECTION, document_id=f"document-{number:06}", metadata={"block": block}
            )
            await self.submit.stream(text_of(number, edition), upload)
        while await self.work.next() is not None:
            pass

    async def list(self, block: int) -> None:
        """Read a thousand documents and a thousand jobs, page by page."""
        after: str | None = f"document-{block * self.block - 1:06}" if block else None
        for _ in range(self.block // PAGE):
            page = await self.catalog.documents(COLLECTION, limit=PAGE, after=after)
            after = page[-1].document_id
        for _ in range(self.block // PAGE):
            jobs = await self.catalog.jobs(
                collections={COLLECTION}, limit=PAGE, after=self.last_job
            )
            self.last_job = jobs[-1].job_id

    async def delete(self, block: int) -> None:
        receipt = await self.forget.matching(COLLECTION, Condition("block", "eq", block))
        assert len(receipt.document_ids) == self.block, receipt


async def text_of(number: int, edition: int) -> AsyncIterator[bytes]:
    words = (f"word{(number * 31 + place * 17) % 5000}" for place in range(60))
    yield f"Document {number}, edition {edition}. {' '.join(words)}".encode()


async def measure(many: Many, connection: Connection, blocks: int) -> None:
    steps: list[tuple[str, Callable[[int], Awaitable[None]]]] = [
        ("ingest", lambda block: many.ingest(block, edition=1)),
        ("list", many.list),
        ("unchanged", lambda block: many.ingest(block, edition=1)),
        ("update", lambda block: many.ingest(block, edition=2)),
        ("delete", many.delete),
        ("ingest again", lambda block: many.ingest(block, edition=3)),
    ]
    print(f"{blocks} times {many.block} documents: wall s (cpu s)")
    for name, step in steps:
        costs: list[Cost] = []
        for block in range(blocks):
            before = now(connection)
            await step(block)
            costs.append(now(connection) - before)
        first, last = costs[0], costs[-1]
        print(
            f"{name:12}  first {told(first)}  last {told(last)}"
            f"  last/first {last.wall / first.wall:.2f} ({last.processor / first.processor:.2f})",
            flush=True,
        )


def told(cost: Cost) -> str:
    return f"{cost.wall:6.2f} ({cost.processor:.2f})"


if __name__ == "__main__":
    asyncio.run(main())
