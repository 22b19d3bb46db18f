"""The workflows in the real n8n, over the real API and worker, alone and with a queue."""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import psycopg
import pytest

from apis import Api, running_api
from browser import chromium_page, keep_picture
from buckets import Bucket, S3Server
from conftest import REPOSITORY, TestServer
from ragcore.embedded import EmbeddedServers
from ragcore.settings import CallbackSettings
from serving import serving
from working import working

pytestmark = pytest.mark.skipif(
    "RAGCORE_TEST_N8N" not in os.environ, reason="needs n8n; `make test-n8n` runs it"
)

KEY = {"X-Webhook-Key": "the-key-of-the-webhooks"}
_STARTS_WITHIN_SECONDS = 240
_REPORTS_WITHIN_SECONDS = 120

QUESTIONS = [("When does the ferry leave?", "07:40"), ("Когда отходит паром?", "08:15")]


class Reports(SimpleQueue[Any]):
    """What the workflows posted to the report address; Ollama's answers come from here, too."""

    url: str


@pytest.fixture(scope="module")
def reports() -> Iterator[Reports]:
    received = Reports()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = b'{"response": "pong", "model": "tiny"}'
            if self.path != "/api/generate":
                received.put(body)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield received
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def watched(s3_server: S3Server) -> Bucket:
    """What the workflow watches."""
    return s3_server.make_bucket()


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    s3_server: S3Server,
    watched: Bucket,
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        callbacks=CallbackSettings(allowed_hosts=("127.0.0.1",)),
        buckets={"servers": {"test": s3_server.settings(watched.name)}},
    ) as api:
        api.ingest("The ferry leaves at 07:40 from pier nine.", collection="harbour")
        api.ingest("Паром отходит в 08:15 от третьего причала.", collection="harbour")
        yield api


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module", params=["regular", "queue"])
def n8n(
    request: pytest.FixtureRequest,
    api: Api,
    reports: Reports,
    postgres_server: TestServer,
    embedded: EmbeddedServers,
    watched: Bucket,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator["N8n"]:
    """n8n with the workflows, and ragcore behind a port that a test can close and open again."""
    home, port, ragcore_port = tmp_path_factory.mktemp("n8n"), free_port(), free_port()
    key = api.key("query", "ingest", collections=["harbour"])["Authorization"].split()[1]
    with postgres_server.database() as database_url, ExitStack() as stack:
        database = httpx.URL(database_url)
        environment = os.environ | {
            "N8N_USER_FOLDER": str(home),
            "N8N_ENCRYPTION_KEY": "only-for-this-test",
            "N8N_DIAGNOSTICS_ENABLED": "false",
            "N8N_VERSION_NOTIFICATIONS_ENABLED": "false",
            "N8N_TEMPLATES_ENABLED": "false",
            "N8N_PERSONALIZATION_ENABLED": "false",
            "N8N_SECURE_COOKIE": "false",
            "N8N_LISTEN_ADDRESS": "127.0.0.1",
            "N8N_PORT": str(port),
            "WEBHOOK_URL": f"http://127.0.0.1:{port}/",
            "N8N_RUNNERS_BROKER_PORT": str(free_port()),
            "DB_TYPE": "postgresdb",
            "DB_POSTGRESDB_HOST": database.host,
            "DB_POSTGRESDB_PORT": str(database.port),
            "DB_POSTGRESDB_DATABASE": database.path.strip("/"),
            "DB_POSTGRESDB_USER": database.username,
            "DB_POSTGRESDB_PASSWORD": database.password,
            "RAGCORE_URL": f"http://127.0.0.1:{ragcore_port}",
            "RAGCORE_API_KEY": key,
            "RAGCORE_COLLECTION": "harbour",
            "WEBHOOK_KEY": KEY["X-Webhook-Key"],
            "CHAT_USER": "reader",
            "CHAT_PASSWORD": "of-documents",
            "RAGCORE_BUCKET": watched.name,
            "RAGCORE_BUCKET_PREFIX": f"{request.param}/",
            "POSTGRES_HOST": database.host,
            "POSTGRES_DATABASE": database.path.strip("/"),
            "POSTGRES_USER": database.username,
            "POSTGRES_PASSWORD": database.password,
            "SUPABASE_URL": "http://127.0.0.1:1",
            "SUPABASE_SERVICE_KEY": "of-nobody",
            "REPORT_URL": f"{reports.url}/report",
            "OLLAMA_URL": reports.url,
            "OLLAMA_API_KEY": "none",
        }
        if request.param == "queue":
            valkey = httpx.URL(embedded.redis_url)
            environment |= {
                "EXECUTIONS_MODE": "queue",
                "QUEUE_BULL_REDIS_HOST": valkey.host,
                "QUEUE_BULL_REDIS_PORT": str(valkey.port),
                "QUEUE_BULL_REDIS_PASSWORD": valkey.password,
                "QUEUE_BULL_REDIS_DB": "5",
            }
        program = shlex.split(os.environ["N8N_COMMAND"])
        for _ in range(2):  # the second time it finds all of it there
            subprocess.run(
                [sys.executable, REPOSITORY / "integrations/n8n/import_workflows.py"],
                env=environment,
                check=True,
            )
        assert _imported(database_url) == (7, 7)
        stack.enter_context(running(program, ["start"], environment, home / "main.log"))
        if request.param == "queue":
            other = environment | {"N8N_RUNNERS_BROKER_PORT": str(free_port())}
            stack.enter_context(running(program, ["worker"], other, home / "worker.log"))
        await_ready(f"http://127.0.0.1:{port}")
        http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEY, timeout=120)
        )
        yield N8n(http, api, ragcore_port, request.param)


def _imported(database_url: str) -> tuple[int, int]:
    """How many workflows and credentials n8n has."""
    with psycopg.connect(database_url) as connection:
        row = connection.execute(
            "SELECT (SELECT count(*) FROM workflow_entity), count(*) FROM credentials_entity"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


class N8n:
    def __init__(self, http: httpx.Client, api: Api, ragcore_port: int, mode: str) -> None:
        self.http, self._api, self._port = http, api, ragcore_port
        self.mode = mode

    @contextmanager
    def with_ragcore(self) -> Iterator[None]:
        with serving(self._api.settings, port=self._port), working(self._api.settings):
            yield

    def called_back(self, reports: Reports) -> Any:
        """Deliver callbacks, as the worker does every few seconds, until a report comes."""
        deliver = self._api.rag.runtime.deliver_callbacks
        return self._reported(reports, deliver)  # n8n refuses one that comes before it waits

    def listed(self, reports: Reports) -> Any:
        """List buckets and ingest what is in them, as the worker does, until a report comes."""
        runtime = self._api.rag.runtime

        async def work() -> None:
            await runtime.sync.next()
            while await runtime.work.next() is not None:
                pass
            await runtime.sync.settle()

        return self._reported(reports, work)

    def _reported(self, reports: Reports, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        deadline = time.monotonic() + _REPORTS_WITHIN_SECONDS
        while reports.empty():
            assert time.monotonic() < deadline, "no report came"
            self._api.runner.run(work())
            time.sleep(0.2)
        return reports.get()

    def chat(self, question: str) -> httpx.Response:
        """Send a message as the chat page does."""
        workflow = json.loads((REPOSITORY / "integrations/n8n/workflows/chat.json").read_text())
        (trigger,) = (node for node in workflow["nodes"] if node["name"] == "Chat")
        return self.http.post(
            f"/webhook/{trigger['webhookId']}/chat",
            json={"action": "sendMessage", "sessionId": "of-the-tests", "chatInput": question},
            auth=("reader", "of-documents"),
        )

    def post(self, name: str, body: Mapping[str, Any]) -> httpx.Response:
        return self.http.post(f"/webhook/ragcore-{name}", json=body)


@contextmanager
def running(
    program: list[str], arguments: list[str], environment: Mapping[str, str], log: Path
) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program, *arguments], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def await_ready(url: str) -> None:
    """Return when the webhooks are there, which is after n8n has called itself ready."""
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    webhooks = ("ask", "ingest", "callback", "generate", "bucket")
    waiting = [f"{url}/webhook/ragcore-{name}" for name in webhooks]
    while time.monotonic() < deadline:
        try:
            # A stranger starts nothing: what is there refuses him, what is not is not found.
            waiting = [each for each in waiting if httpx.post(each).status_code != 403]
            if not waiting:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)  # n8n announces nothing that could be waited for
    raise AssertionError(f"n8n did not start within {_STARTS_WITHIN_SECONDS} s")


@pytest.mark.parametrize(("question", "time_of_day"), QUESTIONS)
def test_a_question_is_answered_with_its_source(n8n: N8n, question: str, time_of_day: str) -> None:
    with n8n.with_ragcore():
        answer = n8n.post("ask", {"question": question})
    assert answer.status_code == 200, answer.text
    assert time_of_day in answer.json()["answer"]
    assert answer.json()["citations"]


def test_a_stranger_is_turned_away(n8n: N8n) -> None:
    answer = n8n.http.post("/webhook/ragcore-ask", json={}, headers={"X-Webhook-Key": "wrong"})
    assert answer.status_code == 403


def test_another_collection_is_refused_with_the_code_of_the_problem(n8n: N8n) -> None:
    with n8n.with_ragcore():
        answer = n8n.post("ask", {"question": "What?", "collection": "secret"})
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_an_outage_is_told_and_the_same_file_goes_in_afterwards(n8n: N8n, reports: Reports) -> None:
    file = {"file": ("расписание.txt", "Автобус идёт в 09:05.".encode(), "text/plain")}
    answer = n8n.http.post("/webhook/ragcore-ingest", files=file)
    assert (answer.status_code, answer.json()["code"]) == (502, "ragcore_unreachable")
    alert = reports.get()
    assert (alert["event"], alert["workflow"]) == ("error", "ragcore: ingest a file")
    with n8n.with_ragcore():
        jobs = [
            n8n.http.post(
                "/webhook/ragcore-ingest", files=file, headers={"Idempotency-Key": "timetable"}
            )
            for _ in range(2)
        ]
        assert [each.status_code for each in jobs] == [202, 202]
        first, second = (each.json()["jobs"][0]["job_id"] for each in jobs)
        assert first == second


def test_a_callback_wakes_the_workflow(n8n: N8n, reports: Reports) -> None:
    with n8n.with_ragcore():
        text = "The night train leaves at 23:10 from track two."
        answer = n8n.post("callback", {"text": text, "question": "When does the night train go?"})
        assert answer.status_code == 202, answer.text
        report = n8n.called_back(reports)
    assert report["event"] == "answer"
    assert "23:10" in report["answer"]


@pytest.mark.parametrize(("question", "time_of_day"), QUESTIONS)
def test_a_chat_is_answered_with_its_sources(n8n: N8n, question: str, time_of_day: str) -> None:
    with n8n.with_ragcore():
        answer = n8n.chat(question)
    assert answer.status_code == 200, answer.text
    told = answer.json()["output"]
    assert time_of_day in told and "\n\n[1] " in told


def test_a_chat_says_that_ragcore_is_away_and_takes_no_stranger(n8n: N8n) -> None:
    answer = n8n.chat(QUESTIONS[0][0])
    assert "ragcore_unreachable" in answer.json()["output"]
    stranger = n8n.http.post("/webhook/2ec50b30-7c2b-595d-ac14-2779f8ae4f1d/chat", json={})
    assert stranger.status_code == 401


def test_what_is_new_in_a_bucket_goes_in_and_is_reported(
    n8n: N8n, reports: Reports, watched: Bucket
) -> None:
    watched.put(f"{n8n.mode}/night.txt", "The night bus leaves at 02:45 from the market.")
    watched.put(f"{n8n.mode}/ночь.txt", "Ночной автобус отходит в 03:15 от рынка.")
    while not reports.empty():  # alerts of what was told to fail
        reports.get()
    with n8n.with_ragcore():
        for new in (2, 0):  # the second time nothing is
            assert n8n.http.post("/webhook/ragcore-bucket").is_success
            report = n8n.listed(reports)
            assert (report["event"], report["status"]) == ("bucket", "succeeded")
            assert report["counts"].get("new", 0) == new
        answer = n8n.post("ask", {"question": "Когда отходит ночной автобус?"})
    assert "03:15" in answer.json()["answer"]


def test_a_prompt_goes_straight_to_ollama(n8n: N8n) -> None:
    assert n8n.post("generate", {"prompt": "ping"}).json()["response"] == "pong"


async def test_the_workflows_open_in_the_editor(n8n: N8n) -> None:
    """The pictures are those of docs/how-to/n8n.md."""
    owner = {"email": "owner@example.org", "password": "Of-the-tests-1"}
    name = {"firstName": "Anna", "lastName": "Owner"}
    base = str(n8n.http.base_url)
    async with chromium_page() as page:
        setup = await page.request.post(f"{base}/rest/owner/setup", data={**owner, **name})
        assert setup.ok, await setup.text()
        for workflow, node in (("ask", "Ask ragcore"), ("watch-bucket", "List the bucket")):
            file = REPOSITORY / f"integrations/n8n/workflows/{workflow}.json"
            await page.goto(f"{base}/workflow/{json.loads(file.read_text())['id']}")
            await page.get_by_text(node, exact=True).first.wait_for(timeout=60_000)
            checklist = page.get_by_text("Production Checklist")
            await checklist.wait_for(timeout=60_000)
            await checklist.locator("xpath=..").locator("svg, button").last.click()
            await page.keyboard.press("1")  # fit to view
            await page.wait_for_timeout(2000)  # until nothing moves
            await keep_picture(page, f"n8n-{workflow}")
