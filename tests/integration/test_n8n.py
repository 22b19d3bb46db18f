"""The workflows in the real n8n, over the real API and worker, alone and with a queue."""

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import pytest

from apis import Api, running_api
from conftest import REPOSITORY, TestServer
from ragcore.embedded import EmbeddedServers
from ragcore.settings import CallbackSettings
from serving import serving
from working import working

pytestmark = pytest.mark.skipif(
    "RAGCORE_TEST_N8N" not in os.environ, reason="needs n8n; `make test-n8n` runs it"
)

KEY = {"X-Webhook-Key": "the-key-of-the-webhooks"}
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
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        callbacks=CallbackSettings(allowed_hosts=("127.0.0.1",)),
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
        subprocess.run(
            [sys.executable, REPOSITORY / "integrations/n8n/import_workflows.py"],
            env=environment,
            check=True,
        )
        stack.enter_context(running(program, ["start"], environment, home / "main.log"))
        if request.param == "queue":
            other = environment | {"N8N_RUNNERS_BROKER_PORT": str(free_port())}
            stack.enter_context(running(program, ["worker"], other, home / "worker.log"))
        await_ready(f"http://127.0.0.1:{port}/healthz/readiness")
        http = stack.enter_context(
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEY, timeout=120)
        )
        yield N8n(http, api, ragcore_port)


class N8n:
    def __init__(self, http: httpx.Client, api: Api, ragcore_port: int) -> None:
        self.http, self._api, self._port = http, api, ragcore_port

    @contextmanager
    def with_ragcore(self) -> Iterator[None]:
        with serving(self._api.settings, port=self._port), working(self._api.settings):
            yield

    def called_back(self, reports: Reports) -> Any:
        """Deliver callbacks, as the worker does every few seconds, until a report comes."""
        while reports.empty():
            self._api.runner.run(self._api.rag.runtime.deliver_callbacks())
            time.sleep(0.2)  # n8n refuses a callback that comes before it waits
        return reports.get()

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
    while True:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)  # n8n announces nothing that could be waited for


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


def test_a_prompt_goes_straight_to_ollama(n8n: N8n) -> None:
    assert n8n.post("generate", {"prompt": "ping"}).json()["response"] == "pong"
