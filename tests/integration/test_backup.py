"""Everything in one file, and back into an empty place that answers the same."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from typer.testing import CliRunner

from conftest import TestServer, server_directory
from ragcore import Rag
from ragcore.adapters.blobs.folder import FolderBlobs
from ragcore.adapters.postgres.dump import PostgresDump
from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.errors import BlobsUnavailable, Conflict, InvalidInput
from ragcore.flows.backup import BackUp, Manifest, Restore
from ragcore.flows.submit import Upload, version_prefix
from ragcore.settings import Settings
from ragcore.testing.memory.embedder import MemoryEmbedder

FERRY = "The ferry Aurora leaves Norvik at 07:40 on weekdays.\n\nA bicycle costs 4 crowns."
PAROM = "Паром «Аврора» отправляется из Норвика в 07:40 по будням.\n\nПровоз велосипеда — 4 кроны."
QUESTIONS = ("When does the ferry Aurora leave?", "Сколько стоит провоз велосипеда?")


@dataclass(frozen=True)
class Place:
    """A database and a data directory."""

    database_url: str
    data_dir: Path

    @property
    def settings(self) -> Settings:
        return Settings(database_url=self.database_url, data_dir=self.data_dir)

    @property
    def blobs(self) -> FolderBlobs:
        return FolderBlobs(self.data_dir / "blobs")

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Rag]:
        async with Rag.open(self.settings, embedding=MemoryEmbedder()) as rag:
            yield rag

    async def backed_up(self, path: Path) -> Manifest:
        return await BackUp(PostgresDump(self.database_url), self.blobs, "test")(path)

    async def restored(self, path: Path) -> Manifest:
        return await Restore(PostgresDump(self.database_url), self.blobs)(path)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            return connection.execute(query).fetchall()  # type: ignore[arg-type]

    @property
    def is_empty(self) -> bool:
        tables = ("documents", "versions", "jobs", "api_keys", "audit")
        return not any(self.rows(f"SELECT 1 FROM ragcore.{table} LIMIT 1") for table in tables)


@pytest.fixture
def directory() -> Iterator[Path]:
    with server_directory() as directory:
        yield directory


@pytest.fixture
def elsewhere(database_url: str, directory: Path) -> Place:
    """An empty place."""
    return Place(database_url, directory / "elsewhere")


@dataclass(frozen=True)
class Source:
    """A place with documents in two languages and a job that waits, and its backup."""

    place: Place
    archive: Path
    manifest: Manifest
    answers: list[Any]
    waiting: UUID


@pytest.fixture(scope="module")
def source(postgres_server: TestServer, migrated_template: str) -> Iterator[Source]:
    with (
        server_directory() as directory,
        postgres_server.database(template=migrated_template) as database_url,
    ):
        yield asyncio.run(_made(Place(database_url, directory / "data"), directory))


async def _made(place: Place, directory: Path) -> Source:
    async with place.opened() as rag:
        await rag.ingest(b"An older text.", document_id="ferry")
        odd = {"line": "\\.\n\t"}
        await rag.ingest(FERRY.encode(), document_id="ferry", title="Ferry", metadata=odd)
        await rag.ingest(PAROM.encode(), document_id="parom", title="Паром")
        await rag.runtime.open_collection("empty")
        await rag.runtime.keys.create("anna", scopes={"query"}, actor="test")
        job = await rag.runtime.submit.stream(
            _one(b"A text that waits."), Upload("default", document_id="waits")
        )
        answers = [await rag.ask(question) for question in QUESTIONS]
    archive = directory / "backup.tar"
    return Source(place, archive, await place.backed_up(archive), answers, job.job_id)


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_a_restored_place_answers_the_same_and_goes_on(
    source: Source, elsewhere: Place
) -> None:
    await elsewhere.restored(source.archive)
    async with elsewhere.opened() as rag:
        for question, before in zip(QUESTIONS, source.answers, strict=True):
            answer = await rag.ask(question)
            assert answer.text == before.text
            assert answer.citations == before.citations
            assert answer.passages == before.passages
        job = await rag.runtime.work.next(job_id=source.waiting)
        assert job is not None
        assert (job.status, job.attempts) == ("succeeded", 1)
        (again,) = await rag.ingest(FERRY.encode(), document_id="ferry")
        (new,) = await rag.ingest(b"New.", document_id="new")
        assert (again.outcome, new.outcome) == ("unchanged", "created")
        assert [c.name for c, *_ in await rag.runtime.collections.list()] == ["default", "empty"]
    for table in ("api_keys", "audit"):
        query = f"SELECT t::text FROM ragcore.{table} t ORDER BY 1"
        assert set(source.place.rows(query)) <= set(elsewhere.rows(query))
    indexes = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'vecs' ORDER BY 1"
    assert elsewhere.rows(indexes) == source.place.rows(indexes)


async def test_a_backup_says_what_is_in_it(source: Source) -> None:
    manifest = source.manifest
    assert manifest.tables["ragcore.documents"].count == 3
    assert manifest.tables["ragcore.collections"].count == 2
    assert manifest.missing == ()
    assert source.archive.stat().st_mode & 0o077 == 0
    assert not source.archive.with_name("backup.tar.partial").exists()


async def test_a_place_in_use_is_left_alone(source: Source, tmp_path: Path) -> None:
    before = source.place.rows("SELECT t::text FROM ragcore.jobs t ORDER BY 1")
    with pytest.raises(Conflict, match="in use"):
        await source.place.restored(source.archive)
    assert source.place.rows("SELECT t::text FROM ragcore.jobs t ORDER BY 1") == before


@pytest.mark.parametrize("part", [0.0, 0.2, 0.6, 0.999])
async def test_a_damaged_archive_is_refused_before_anything_is_changed(
    source: Source, elsewhere: Place, tmp_path: Path, part: float
) -> None:
    data = bytearray(source.archive.read_bytes())
    # Not in the zeros that fill up a block: they are no content, and nobody reads them.
    length = len(data.rstrip(b"\0"))
    place = next(n for n in range(int(part * length), length) if data[n])
    data[place] ^= 0xFF
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(data)
    with pytest.raises(InvalidInput, match=r"damaged|can't be read"):
        await elsewhere.restored(damaged)
    assert elsewhere.is_empty
    assert not (elsewhere.data_dir / "blobs").exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
async def test_an_archive_that_was_cut_short_is_refused(
    source: Source, elsewhere: Place, tmp_path: Path, part: float
) -> None:
    data = source.archive.read_bytes().rstrip(b"\0")
    short = tmp_path / "short.tar"
    short.write_bytes(data[: int(part * len(data))])
    with pytest.raises(InvalidInput):
        await elsewhere.restored(short)
    assert elsewhere.is_empty


async def test_a_restore_that_is_killed_leaves_an_empty_place_and_can_be_repeated(
    source: Source, elsewhere: Place
) -> None:
    class FailingBlobs(FolderBlobs):
        left = 3

        async def put(self, key: str, chunks: AsyncIterator[bytes]) -> int:
            self.left -= 1
            if not self.left:
                raise BlobsUnavailable("the disk went away")
            return await super().put(key, chunks)

    restore = Restore(PostgresDump(elsewhere.database_url), FailingBlobs(elsewhere.data_dir))
    with pytest.raises(BlobsUnavailable):
        await restore(source.archive)
    assert elsewhere.is_empty
    await elsewhere.restored(source.archive)
    assert not elsewhere.is_empty


async def test_documents_without_their_files_are_named(
    source: Source, elsewhere: Place, tmp_path: Path
) -> None:
    await elsewhere.restored(source.archive)
    ((version_id,),) = elsewhere.rows(
        "SELECT version_id FROM ragcore.documents WHERE document_id = 'ferry'"
    )
    await elsewhere.blobs.delete_prefix(version_prefix(version_id))
    manifest = await elsewhere.backed_up(tmp_path / "again.tar")
    assert manifest.missing == ("default/ferry",)


async def test_a_backup_overwrites_nothing_and_clears_away_a_killed_one(
    source: Source, tmp_path: Path
) -> None:
    path = tmp_path / "mine.tar"
    path.write_text("precious")
    with pytest.raises(InvalidInput, match="exists"):
        await source.place.backed_up(path)
    assert path.read_text() == "precious"
    path.unlink()
    path.with_name("mine.tar.partial").write_text("half")
    await source.place.backed_up(path)
    assert list(tmp_path.iterdir()) == [path]


async def test_an_archive_of_other_tables_is_refused(
    source: Source, elsewhere: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(elsewhere.database_url) as connection:
        connection.execute("DELETE FROM ragcore.migrations WHERE name LIKE '0004%'")
        connection.execute("INSERT INTO ragcore.migrations VALUES ('0004_other.sql', 'x')")
    dump = PostgresDump(elsewhere.database_url)
    monkeypatch.setattr("ragcore.adapters.postgres.dump.migrate", _nothing)
    with pytest.raises(InvalidInput, match="another release"):
        await Restore(dump, elsewhere.blobs)(source.archive)


async def _nothing(_: str) -> None: ...


def test_the_command_line_backs_up_into_a_folder_and_restores(
    source: Source, elsewhere: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ragcore(place: Place, *arguments: str, code: ExitCode = ExitCode.OK) -> Any:
        monkeypatch.setenv("RAGCORE_DATABASE_URL", place.database_url)
        monkeypatch.setenv("RAGCORE_DATA_DIR", str(place.data_dir))
        run = CliRunner().invoke(app, [*arguments, "--json"])
        assert run.exit_code == code, run.output
        return json.loads(run.stdout)

    made = ragcore(source.place, "backup", str(tmp_path))
    assert (made["documents"], made["jobs"], made["missing"]) == (3, 4, [])
    assert ragcore(elsewhere, "restore", made["file"])["chunks"] == made["chunks"]
    again = ragcore(elsewhere, "restore", made["file"], code=ExitCode.FAILED)
    assert again["error"]["code"] == "conflict"
    shutil.copy(made["file"], tmp_path / "cut.tar")
    with (tmp_path / "cut.tar").open("r+b") as file:
        file.truncate(2000)
    ragcore(elsewhere, "restore", str(tmp_path / "cut.tar"), code=ExitCode.USAGE)
