"""Both clients against a running API and a worker, and through what networks do."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import isasyncgen, isgenerator
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from typer.testing import CliRunner

from conftest import REPOSITORY, TestServer, server_directory
from ragcore.cli.app import app
from ragcore.cli.output import ExitCode
from ragcore.client import AnswerCitations, AsyncClient, Client, Retries
from ragcore.embedded import EmbeddedServers
from ragcore.errors import (
    CollectionNotFound,
    DocumentNotFound,
    DocumentTooLarge,
    Forbidden,
    InvalidInput,
    JobNotFound,
    NotConfigured,
    NotRetryable,
    Unauthenticated,
    Unavailable,
    UnsupportedFormat,
)
from ragcore.model import Answer, AnswerPassages, AnswerText
from ragcore.settings import Settings
from serving import serving
from working import HeldConversions, working

ADMIN = "the-first-key-of-a-new-stack"
TIMETABLE = REPOSITORY / "samples" / "documents" / "timetable-and-fares-2026.pdf"
QUESTION = "How long does the crossing take aboard Kittiwake?"
QUICK = Retries(first_seconds=0.01, most_seconds=0.05)


@pytest.fixture(scope="module")
def settings(
    embedded: EmbeddedServers, postgres_server: TestServer, migrated_template: str
) -> Iterator[Settings]:
    with server_directory() as root, postgres_server.database(template=migrated_template) as url:
        yield Settings(
            database_url=url,
            redis_url=embedded.redis_url,
            data_dir=root / "data",
            access={"admin_key": ADMIN, "requests_per_minute": 0},
            conversion={"processes": 1, "max_file_mb": 1},
            fetch={"allowed_hosts": ["127.0.0.1"]},
        )


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with serving(settings) as address:
        yield address


@pytest.fixture(scope="module")
def conversions(settings: Settings) -> Iterator[HeldConversions]:
    with working(settings) as conversions:
        yield conversions


class Both:
    """Either client, called in the same way: coroutines are run, iterators are lists."""

    def __init__(self, client: Client | AsyncClient, runner: asyncio.Runner) -> None:
        self.client = client
        self._runner = runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def method(*args: Any, **kwargs: Any) -> Any:
            made = getattr(self.client, name)(*args, **kwargs)
            if isinstance(made, Coroutine):
                return self._runner.run(made)
            if isasyncgen(made):
                return self._runner.run(_listed(made))
            return list(made) if isgenerator(made) else made

        return method


async def _listed(made: AsyncIterator[Any]) -> list[Any]:
    return [each async for each in made]


@contextmanager
def opened(kind: str, url: str, **options: Any) -> Iterator[Both]:
    with asyncio.Runner() as runner:
        options = {"api_key": ADMIN, "retries": QUICK, **options}
        both = Both((AsyncClient if kind == "async" else Client)(url, **options), runner)
        try:
            yield both
        finally:
            both.close()


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rag(url: str, kind: str) -> Iterator[Both]:
    with opened(kind, url) as both:
        yield both


# --- a document's way --------------------------------------------------------------------------


def test_a_file_is_sent_followed_asked_about_and_deleted(
    rag: Both, conversions: HeldConversions, kind: str
) -> None:
    name = f"way-{kind}"
    seen = rag.follow(rag.ingest(TIMETABLE, collection=name, metadata={"year": 2026}))
    assert (seen[-1].status, seen[-1].outcome) == ("succeeded", "created")
    document_id = seen[-1].document_id

    answer = rag.ask(
        "How long does the crossing take aboard Kittiwake?", collection=name, filters={"year": 2026}
    )
    assert answer.citations[0].document_id == document_id
    assert answer.citations[0].page >= 1
    (first, *_) = rag.search("ferry", collection=name, top_k=1, explain=True).passages
    assert first.explanation is not None
    assert first.page is not None

    events = rag.ask_stream(QUESTION, collection=name)
    kinds = [type(event) for event in events]
    assert kinds[0] is AnswerPassages
    assert kinds[-2:] == [AnswerCitations, Answer]
    text = "".join(event.text for event in events if isinstance(event, AnswerText))
    assert text == events[-1].text == answer.text

    detail = rag.document(document_id, collection=name)
    assert detail.document.version_id == detail.versions[0].version_id
    assert detail.reading_report.mime_type == "application/pdf"
    chunks = rag.chunks(document_id, collection=name)
    assert [chunk.ordinal for chunk in chunks] == list(range(detail.document.chunks))
    assert rag.chunks(document_id, collection=name, first=2)[0] == chunks[2]
    assert b"".join(rag.original(document_id, collection=name)) == TIMETABLE.read_bytes()
    assert "ferry" in rag.markdown(document_id, collection=name)
    assert rag.docling(document_id, collection=name)["schema_name"] == "DoclingDocument"
    page = rag.page_image(document_id, 1, collection=name, dots_per_inch=40)
    assert page.png.startswith(b"\x89PNG")
    assert page.width > 100

    assert rag.update(document_id, collection=name, title="Winter").title == "Winter"
    would = rag.delete_matching({"year": 2026}, collection=name, dry_run=True)
    assert would.document_ids == (document_id,)
    assert rag.delete(document_id, collection=name).chunks == len(chunks)
    with pytest.raises(DocumentNotFound) as raised:
        rag.document(document_id, collection=name)
    assert raised.value.request_id


def test_a_file_is_converted_without_being_stored(rag: Both, tmp_path: Path) -> None:
    (path := tmp_path / "договор.md").write_text("# Договор\n\nПаром уходит в полдень.\n")
    assert rag.convert(path).content.startswith("# Договор")
    (chunk,) = rag.convert(path, to="chunks").content
    assert chunk.language == "ru"


def test_several_files_are_sent_at_once_and_lists_are_read_page_by_page(
    rag: Both,
    conversions: HeldConversions,
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ragcore.client.caller._PAGE", 2)
    name = f"pages-{kind}"
    paths = [tmp_path / f"{number}.txt" for number in range(5)]
    for path in paths:
        path.write_text(f"Note {path.name} of {kind} about the ferry.")
    jobs = rag.wait_all(rag.ingest_files(paths, collection=name))
    assert {job.status for job in jobs} == {"succeeded"}
    ids = [document.document_id for document in rag.documents(collection=name)]
    assert ids == sorted(job.document_id for job in jobs)
    assert [each.document_id for each in rag.documents(collection=name, limit=3)] == ids[:3]
    assert [each.document_id for each in rag.documents(collection=name, after=ids[2])] == ids[3:]
    assert {job.job_id for job in rag.jobs(collection=name)} == {job.job_id for job in jobs}
    assert len(rag.audit(collection=name, action="document.ingest")) == 5


def test_collections_and_keys(rag: Both, kind: str, url: str) -> None:
    name = f"keys-{kind}"
    made = rag.create_collection(name, language="ru")
    assert rag.collection(name) == made
    assert made in rag.collections()
    key = rag.create_key("reader", scopes=["query"], collections=[name])
    with opened(kind, url, api_key=key.secret) as reader:
        assert [each.name for each in reader.collections()] == [name]
        with pytest.raises(Forbidden):
            reader.ingest_text("x", collection=name)
    found = rag.keys()
    assert key.key.key_id in [each.key_id for each in found]
    assert rag.revoke_key(key.key.key_id).revoked_at is not None
    assert rag.delete_collection(name).document_ids == ()
    with pytest.raises(CollectionNotFound):
        rag.collection(name)


def test_the_service_tells_of_itself(rag: Both) -> None:
    rag.live()
    assert rag.ready().status in ("ok", "degraded")
    assert rag.version().embedding_model.startswith("bundled:")


# --- jobs --------------------------------------------------------------------------------------


def test_a_job_that_is_held_is_cancelled_and_run_again(
    rag: Both, conversions: HeldConversions
) -> None:
    conversions.hold()
    job = rag.ingest(held(), filename="held.txt")
    conversions.began.wait()
    with pytest.raises(TimeoutError):
        rag.wait(job, timeout_seconds=0.1)
    assert rag.cancel(job).status == "cancelled"
    assert rag.wait(job).status == "cancelled"
    assert rag.retry(job).status == "queued"
    conversions.let_go()
    done = rag.wait(job)
    assert done.status == "succeeded"
    with pytest.raises(NotRetryable):
        rag.retry(job)
    assert rag.retry_failed(code="no_text_found", collection="nowhere") == []


def test_a_failed_job_is_returned_and_not_raised(rag: Both, conversions: HeldConversions) -> None:
    job = rag.wait(rag.ingest(b"%PDF-1.7 and nothing else", filename="broken.pdf"))
    assert job.status == "failed"
    assert job.error.code == "conversion_failed"


def held() -> bytes:
    """A text that no other is like, for a job of its own."""
    return f"The text {uuid4()} is held.".encode()


# --- errors ------------------------------------------------------------------------------------


def test_errors_are_the_librarys_own(rag: Both, url: str, kind: str) -> None:
    with pytest.raises(JobNotFound):
        rag.job(uuid4())
    with pytest.raises(InvalidInput, match="top_k"):
        rag.search("x", top_k=0)
    with pytest.raises(UnsupportedFormat):
        rag.ingest(b"\x7fELF" + bytes(100), filename="program")
    with opened(kind, url, api_key="wrong") as stranger, pytest.raises(Unauthenticated):
        stranger.jobs()


def test_a_file_that_is_refused_before_it_is_sent_whole(url: str, tmp_path: Path) -> None:
    """By the client that blocks: asyncio may lose an answer that comes while it still sends."""
    (large := tmp_path / "large.txt").write_bytes(b"x" * (3 * 2**20))
    with opened("sync", url) as rag, pytest.raises(DocumentTooLarge):
        rag.ingest(large)


def test_a_service_that_is_not_there(kind: str) -> None:
    with opened(kind, "http://127.0.0.1:9") as nowhere:
        with pytest.raises(Unavailable, match=r"http://127\.0\.0\.1:9 can't be reached"):
            nowhere.version()
        with pytest.raises(Unavailable):
            nowhere.jobs()


@pytest.mark.parametrize(
    "address", ["ftp://a", "a.example.org", "http://", "http://a/?b", "http://me:secret@a"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Client(address)
    assert "secret" not in str(raised.value)


def test_address_and_key_come_from_the_environment_and_the_key_is_not_shown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAGCORE_URL", raising=False)
    with pytest.raises(NotConfigured, match="RAGCORE_URL"):
        Client()
    monkeypatch.setenv("RAGCORE_URL", url + "/")
    monkeypatch.setenv("RAGCORE_API_KEY", ADMIN)
    with Client() as rag:
        assert isinstance(rag.keys(), list)
        assert ADMIN not in repr(rag) + repr(rag._http.headers)
    for bad in ("two words", "line\nbreak", "ключ"):
        with pytest.raises(InvalidInput) as raised:
            Client(url, api_key=bad)
        assert bad not in str(raised.value)


# --- what networks do --------------------------------------------------------------------------


class Trouble(httpx.HTTPTransport):
    """The network, with one mishap."""

    def __init__(self, mishap: Callable[[], httpx.Response | None]) -> None:
        super().__init__()
        self._mishap = mishap
        self.sent = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        if self.sent > 1:
            return super().handle_request(request)
        return self._mishap() or _lost(super().handle_request(request))


class AsyncTrouble(httpx.AsyncHTTPTransport):
    """The same for the event loop."""

    def __init__(self, mishap: Callable[[], httpx.Response | None]) -> None:
        super().__init__()
        self._mishap = mishap
        self.sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent += 1
        if self.sent > 1:
            return await super().handle_async_request(request)
        if answer := self._mishap():
            return answer
        lost = await super().handle_async_request(request)
        await lost.aread()
        raise httpx.ReadError("the answer is lost")


def _lost(answer: httpx.Response) -> httpx.Response:
    answer.read()
    raise httpx.ReadError("the answer is lost")


@contextmanager
def troubled(
    kind: str, url: str, mishap: Callable[[], httpx.Response | None] = lambda: None
) -> Iterator[tuple[Both, Trouble | AsyncTrouble]]:
    """A client whose first answer is `mishap`'s, or is lost after the service gave it."""
    transport = AsyncTrouble(mishap) if kind == "async" else Trouble(mishap)
    with opened(kind, url, transport=transport) as both:
        yield both, transport


def test_an_upload_whose_answer_is_lost_is_one_document(
    url: str, kind: str, tmp_path: Path, conversions: HeldConversions
) -> None:
    name = f"lost-{kind}"
    (path := tmp_path / "large.txt").write_text(f"The ferry leaves at noon. {kind} " * 20_000)
    with troubled(kind, url) as (rag, transport):
        job = rag.wait(rag.ingest(path, collection=name))
        assert transport.sent > 1
        assert job.outcome == "created"
        assert [each.job_id for each in rag.jobs(collection=name)] == [job.job_id]
        (document,) = rag.documents(collection=name)
        assert b"".join(rag.original(document.document_id, collection=name)) == path.read_bytes()


def test_a_key_whose_answer_is_lost_is_not_made_twice(url: str, kind: str) -> None:
    name = f"once-{kind}"
    with troubled(kind, url) as (rag, _):
        with pytest.raises(Unavailable, match="broke"):
            rag.create_key(name, scopes=["query"])
        found = rag.keys()
        assert [key.name for key in found].count(name) == 1


def test_a_service_that_asks_to_wait_is_asked_again(url: str, kind: str) -> None:
    def busy() -> httpx.Response:
        return httpx.Response(503, headers={"Retry-After": "0"}, json={"code": "store_unavailable"})

    with troubled(kind, url, busy) as (rag, transport):
        assert rag.version().version
        assert transport.sent == 2


class Gate:
    """Stands before the service, and breaks connections off in the middle of what is sent."""

    def __init__(self, url: str, *, after_bytes: int) -> None:
        self._port = httpx.URL(url).port
        self._after_bytes = after_bytes
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.broken = 0

    @contextmanager
    def open(self) -> Iterator["Gate"]:
        thread = threading.Thread(target=self._break_one_then_connect)
        thread.start()
        try:
            yield self
        finally:
            self._server.close()
            thread.join()

    def _break_one_then_connect(self) -> None:
        first, _ = self._server.accept()
        with first:
            received = 0
            while received < self._after_bytes:
                received += len(first.recv(65536))
            self.broken += 1
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00" + bytes(4))
        caller, _ = self._server.accept()
        with caller, socket.create_connection(("127.0.0.1", self._port)) as service:
            back = threading.Thread(target=_passed_on, args=(service, caller))
            back.start()
            _passed_on(caller, service)
            back.join()


def _passed_on(source: socket.socket, target: socket.socket) -> None:
    with closing(source.makefile("rb", buffering=0)) as stream:
        while piece := stream.read(65536):
            target.sendall(piece)
    target.shutdown(socket.SHUT_WR)


def test_an_upload_that_breaks_off_is_sent_again_from_its_beginning(
    url: str, kind: str, tmp_path: Path
) -> None:
    name = f"broken-{kind}"
    content = os.urandom(300_000).hex().encode()
    (path := tmp_path / "large.txt").write_bytes(content)
    with Gate(url, after_bytes=100_000).open() as gate:
        with opened(kind, gate.url) as rag:
            job = rag.ingest(path, collection=name)
        assert gate.broken == 1
    with opened(kind, url) as rag:
        assert [each.job_id for each in rag.jobs(collection=name)] == [job.job_id]
        rag.cancel(job)


# --- a service that is killed ------------------------------------------------------------------


@contextmanager
def api_process(settings: Settings, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """The API as a process of its own, so that it can be killed."""
    environment = {
        **os.environ,
        "RAGCORE_DATABASE_URL": settings.database_url.get_secret_value(),
        "RAGCORE_REDIS_URL": settings.redis_url.get_secret_value(),
        "RAGCORE_DATA_DIR": str(settings.data_dir),
        "RAGCORE_ACCESS__ADMIN_KEY": ADMIN,
        "RAGCORE_PORT": str(port),
        "RAGCORE_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([sys.executable, "-m", "ragcore_api"], env=environment)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_who_waits_and_who_follows_outlast_a_service_that_is_killed_and_started_again(
    settings: Settings, conversions: HeldConversions
) -> None:
    conversions.hold()
    port = free_port()
    ended: dict[str, Any] = {}
    address = f"http://127.0.0.1:{port}"
    patient = Retries(attempts=200, first_seconds=0.1, most_seconds=0.5)

    def wait() -> None:
        with Client(address, api_key=ADMIN) as rag:
            ended["wait"] = rag.wait(job)

    def follow() -> None:
        async def followed() -> None:
            async with AsyncClient(address, api_key=ADMIN) as rag:
                async for seen in rag.follow(job):
                    ended["follow"] = seen
                    is_followed.set()

        asyncio.run(followed())

    is_followed = threading.Event()
    threads = [threading.Thread(target=wait), threading.Thread(target=follow)]
    with Client(address, api_key=ADMIN, retries=patient) as rag:
        with api_process(settings, port):
            job = rag.ingest(held(), filename="held.txt")
            for thread in threads:
                thread.start()
            conversions.began.wait()
            is_followed.wait()
        with serving(settings, port=port):
            conversions.let_go()
            for thread in threads:
                thread.join()
    assert ended["wait"].status == ended["follow"].status == "succeeded"


# --- the command line --------------------------------------------------------------------------


class Cli:
    """Runs commands against the service, or against its database."""

    def __init__(self, url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self._url = url
        monkeypatch.setenv("RAGCORE_URL", "")
        monkeypatch.setenv("RAGCORE_API_KEY", ADMIN)
        monkeypatch.setenv("RAGCORE_DATABASE_URL", settings.database_url.get_secret_value())
        monkeypatch.setenv("RAGCORE_DATA_DIR", str(settings.data_dir))
        self._monkeypatch = monkeypatch

    def __call__(self, *arguments: str, code: ExitCode = ExitCode.OK, stdin: str = "") -> Any:
        """The JSON that a command prints about the service."""
        return self._run("--url", self._url, *arguments, code=code, stdin=stdin)

    def here(self, *arguments: str) -> Any:
        """The JSON that the same command prints about its database."""
        return self._run(*arguments, code=ExitCode.OK)

    def _run(self, *arguments: str, code: ExitCode, stdin: str = "") -> Any:
        ran = CliRunner().invoke(app, [*arguments, "--json"], input=stdin)
        self._monkeypatch.setenv("RAGCORE_URL", "")  # --url has set it for the command's process
        assert ran.exit_code == code, ran.output
        return json.loads(ran.stdout)


@pytest.fixture
def cli(
    url: str, settings: Settings, conversions: HeldConversions, monkeypatch: pytest.MonkeyPatch
) -> Cli:
    return Cli(url, settings, monkeypatch)


def test_commands_do_over_http_what_they_do_here(cli: Cli, tmp_path: Path) -> None:
    (notes := tmp_path / "notes").mkdir()
    (notes / "паром.md").write_text("# Паром\n\nПаром уходит в полдень.\n")
    (notes / "program").write_bytes(b"\x7fELF" + bytes(100))
    taken = cli("ingest", str(notes), "-c", "cli", "-m", "year=2026", code=ExitCode.FAILED)
    assert taken["failed"] == 1
    by_name = {Path(job["source"]).name: job for job in taken["jobs"]}
    assert by_name["program"]["error"]["code"] == "unsupported_format"
    job = by_name["паром.md"]
    assert (job["outcome"], job["language"]) == ("created", "ru")

    again = cli("ingest", str(notes / "паром.md"), "-c", "cli", "-m", "year=2026")
    assert again["jobs"][0]["outcome"] == "unchanged"
    (notes / "паром.md").write_text("# Паром\n\nПаром уходит в час дня.\n")
    changed = cli("ingest", str(notes / "паром.md"), "-c", "cli", "-m", "year=2026")
    assert changed["jobs"][0]["outcome"] == "updated"
    assert changed["jobs"][0]["document_id"] == job["document_id"]
    typed = cli("ingest", "-", "-c", "cli", "--title", "Typed", stdin="The pump was replaced.")
    assert typed["jobs"][0]["outcome"] == "created"

    found = cli("search", "паром", "-c", "cli", "--filter", "year=2026")
    assert "в час дня" in found["passages"][0]["text"]
    assert cli("ask", "Когда уходит паром?", "-c", "cli")["citations"]
    missing = cli("search", "x", "-c", "nowhere", code=ExitCode.NOT_FOUND)
    assert missing["error"]["code"] == "collection_not_found"

    for command in (
        ("docs", "list", "-c", "cli"),
        ("docs", "show", job["document_id"], "-c", "cli", "--chunks"),
        ("collections", "show", "cli"),
        ("jobs", "show", job["job_id"]),
        ("jobs", "list", "-c", "cli", "--limit", "2"),
        ("jobs", "watch", job["job_id"]),
    ):
        there, here = cli(*command), cli.here(*command)
        assert _known(there, here) == there, command

    gone = cli("docs", "delete", job["document_id"], "-c", "cli", "--yes")
    assert gone["document_ids"] == [job["document_id"]]
    assert cli("collections", "delete", "cli", "--yes")["collection"] == "cli"


def _known(there: Any, here: Any) -> Any:
    """What is told here, as far as it is told there: a service keeps some things to itself."""
    if isinstance(there, dict) and isinstance(here, dict):
        return {
            name: _known(told, here[name]) if told not in (None, []) else told
            for name, told in there.items()
        }
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        return [_known(*pair) for pair in zip(there, here, strict=True)]
    return here


def test_keys_and_jobs_are_managed_over_http(cli: Cli, conversions: HeldConversions) -> None:
    made = cli("keys", "create", "over-http", "--scope", "query")
    assert made["secret"].startswith("rk_")
    assert made["key_id"] in [key["key_id"] for key in cli("keys", "list")["keys"]]
    assert cli("keys", "revoke", made["key_id"])["revoked_at"]
    actions = [entry["action"] for entry in cli("audit", "--limit", "2")["entries"]]
    assert actions == ["key.revoke", "key.create"]

    failed = cli("ingest", "-", stdin=" ", code=ExitCode.FAILED)["jobs"][0]
    assert failed["error"]["code"] == "no_text_found"
    again = cli("jobs", "retry", "--failed", "--code", "no_text_found")["jobs"]
    assert failed["job_id"] in [job["job_id"] for job in again]
    ended = cli("jobs", "watch", failed["job_id"], code=ExitCode.FAILED)
    assert ended["status"] == "failed"
    assert cli("jobs", "cancel", failed["job_id"])["jobs"][0]["status"] == "failed"
    cli("jobs", "show", str(uuid4()), code=ExitCode.NOT_FOUND)
    cli("collections", "create", "Über", code=ExitCode.USAGE)


class Page(BaseHTTPRequestHandler):
    """One page, whose text a test may change."""

    text = "The pump was replaced in May."

    def do_GET(self) -> None:  # so it is called
        content = self.text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def page() -> Iterator[str]:
    """The address of a page of the test's own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/pump.txt"
        server.shutdown()
        thread.join()


def test_a_page_is_fetched_by_the_service_and_fetched_again(
    cli: Cli, rag: Both, kind: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"web-{kind}"
    job = rag.wait(rag.ingest(page, collection=name))
    assert job.outcome == "created"
    (document,) = rag.documents(uri=page, collection=name)
    assert (document.document_id, document.version_id is None) == (job.document_id, False)
    assert rag.wait(rag.refresh(job.document_id, collection=name)).outcome == "unchanged"
    monkeypatch.setattr(Page, "text", "The pump was replaced in June.")
    (again,) = cli("refresh", page, "-c", name)["jobs"]
    assert (again["document_id"], again["outcome"]) == (job.document_id, "updated")
    (again,) = cli("refresh", "--all", "-c", name)["jobs"]
    assert again["outcome"] == "unchanged"


def test_an_address_must_be_one_and_some_commands_take_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAGCORE_URL", "")
    ran = CliRunner().invoke(app, ["--url", "ftp://x", "jobs", "list"])
    assert ran.exit_code == ExitCode.USAGE
    ran = CliRunner().invoke(app, ["--url", "http://127.0.0.1:9", "up"])
    assert ran.exit_code == ExitCode.USAGE
    assert "about this machine" in ran.output
