"""`ragcore up` and `ragcore down`: the whole stack, as a user starts it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from conftest import running_servers, server_directory
from ragcore.embedded.run_directory import RunDirectory

pytestmark = pytest.mark.slow


class Stack:
    """A stack in the background, in a data directory of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        code = "from ragcore.cli import main; main()"
        return subprocess.run(
            [sys.executable, "-c", code, *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> None:
        done = self.command("up", "--detach", "--port", "0")
        assert done.returncode == 0, done.stderr

    @property
    def state(self) -> dict[str, Any]:
        state = RunDirectory(self.data_dir, "up").read_state()
        assert state is not None
        return state

    @property
    def api(self) -> httpx.Client:
        return httpx.Client(base_url=self.state["url"], timeout=60)

    @property
    def redis(self) -> "redis.Redis":
        state = RunDirectory(self.data_dir, "valkey").read_state()
        assert state is not None
        return redis.Redis.from_url(state["url"])

    def processes(self, name: str = "") -> list[int]:
        """Process ids of all that runs for this data directory, or of those with that name."""
        mine = str(self.data_dir).encode()
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != os.getpid():
                command = _read(path / "cmdline")
                if mine in command + _read(path / "environ") and name.encode() in command:
                    found.append(int(path.name))
        return found

    def ingest(self, text: str, **fields: object) -> dict[str, Any]:
        """Post a text and return its finished job."""
        with self.api as api:
            answer = api.post("/ingest", json={"text": text, **fields})
            assert answer.status_code == 202, answer.text
        return self.finished(answer.headers["location"])

    def finished(self, job_url: str) -> dict[str, Any]:
        with self.api as api:
            while (job := api.get(job_url).json())["status"] in ("queued", "running"):
                time.sleep(0.1)
        assert job["status"] == "succeeded", job
        return dict(job)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def wait_until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with server_directory() as directory:
        stack = Stack(directory / "data")
        stack.up()
        try:
            yield stack
        finally:
            stack.command("down")
            assert stack.processes() == []


def test_a_posted_text_is_found_and_cited(stack: Stack) -> None:
    job = stack.ingest("The lighthouse of Vesk was built in 1887.", title="Vesk")
    assert (job["outcome"], job["chunks"]) == ("created", 1)
    question = {"question": "When was the lighthouse built?"}
    with stack.api as api:
        found = api.post("/search", json=question).json()
        answer = api.post("/query", json=question).json()
        listed = api.get("/documents").json()
    assert found["passages"][0]["document_id"] == job["document_id"]
    assert "1887" in answer["answer"]
    assert answer["citations"][0]["quote"] == "The lighthouse of Vesk was built in 1887."
    assert job["document_id"] in [document["document_id"] for document in listed["documents"]]


def test_posted_files_become_documents_with_their_metadata(stack: Stack) -> None:
    files = [
        ("file", ("one.md", "# Маяк\n\nМаяк погас в 1931 году.".encode(), "text/markdown")),
        ("file", ("two.html", b"<h1>Harbour</h1><p>It has three piers.</p>", "text/html")),
    ]
    with stack.api as api:
        answer = api.post(
            "/ingest", files=files, data={"collection": "files", "metadata": '{"year": 1931}'}
        )
    jobs = [stack.finished(job["status_url"]) for job in answer.json()["jobs"]]
    assert [job["outcome"] for job in jobs] == ["created", "created"]
    with stack.api as api:
        listed = api.get("/documents", params={"collection": "files", "limit": 1}).json()
        rest = api.get(
            "/documents", params={"collection": "files", "cursor": listed["next_cursor"]}
        ).json()
    documents = listed["documents"] + rest["documents"]
    assert {document["metadata"]["year"] for document in documents} == {1931}
    assert len(documents) == 2
    assert rest["next_cursor"] is None


def test_the_same_text_again_is_unchanged(stack: Stack) -> None:
    first = stack.ingest("Twice the same.", document_id="twice")
    second = stack.ingest("Twice the same.", document_id="twice")
    assert (first["outcome"], second["outcome"]) == ("created", "unchanged")


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (("POST", "/ingest", {"json": {"text": ""}}), 422, "invalid_input"),
        (("POST", "/ingest", {"json": {"text": "x", "collection": "No!"}}), 422, "invalid_input"),
        (("POST", "/ingest", {"content": b"{"}), 415, "unsupported_format"),
        (("POST", "/ingest", {"data": {"a": "b"}, "files": {"x": b"y"}}), 422, "invalid_input"),
        (("POST", "/search", {"json": {}}), 422, "invalid_input"),
        (
            ("POST", "/search", {"json": {"question": "x", "filters": {"a": {"$no": 1}}}}),
            422,
            "invalid_filter",
        ),
        (
            ("POST", "/search", {"json": {"question": "x", "collection": "none"}}),
            404,
            "collection_not_found",
        ),
        (("GET", "/jobs/00000000-0000-0000-0000-000000000000", {}), 404, "job_not_found"),
        (("GET", "/nowhere", {}), 404, "not_found"),
        (("GET", "/search", {}), 405, "method_not_allowed"),
        (("GET", "/documents", {"headers": {"Host": "evil.example"}}), 403, "forbidden_origin"),
        (
            ("GET", "/documents", {"headers": {"Origin": "https://evil.example"}}),
            403,
            "forbidden_origin",
        ),
    ],
)
def test_what_is_wrong_is_told_as_a_problem(
    stack: Stack, request_: tuple[str, str, dict[str, Any]], status: int, code: str
) -> None:
    method, path, options = request_
    with stack.api as api:
        answer = api.request(method, path, **options)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_second_up_in_the_background_finds_the_first(stack: Stack) -> None:
    before = stack.state
    done = stack.command("up", "--detach")
    assert done.returncode == 0
    assert f"already up at {before['url']}" in done.stderr
    told = json.loads(stack.command("up", "--detach", "--json").stdout)
    assert (told["url"], told["pid"]) == (before["url"], before["pid"])
    assert stack.state == before


def test_a_second_up_in_the_foreground_is_refused(stack: Stack) -> None:
    done = stack.command("up", "--port", "0")
    assert done.returncode != 0
    assert "already up" in done.stderr


def test_a_taken_port_is_refused_with_the_way_out(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = Stack(data_dir).command("up", "--port", str(port))
    assert done.returncode != 0
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr


def test_in_the_foreground_it_ends_with_ctrl_c_and_leaves_nothing(data_dir: Path) -> None:
    settings = {"RAGCORE_DATA_DIR": str(data_dir), "RAGCORE_PORT": "0", "RAGCORE_WORKERS": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", "from ragcore.cli import main; main()", "up"],
        env={**os.environ, **settings},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("ragcore is up at http://127.0.0.1:"):
                process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert any(line.startswith("api | ") for line in lines)
    wait_until(lambda: not Stack(data_dir).processes())


def test_every_flag_is_a_setting_too_and_paths_may_be_relative(data_dir: Path) -> None:
    stack = Stack(data_dir)
    config = data_dir.with_name("ragcore.toml")
    config.write_text('collection = "from-the-file"')
    config.with_name("uvicorn.py").write_text("raise AssertionError('shadowed')")
    settings = {
        "RAGCORE_DATA_DIR": str(data_dir),
        "RAGCORE_PORT": "0",
        "RAGCORE_WORKERS": "0",
        "RAGCORE_DETACH": "true",
        "RAGCORE_CONFIG_FILE": config.name,
    }
    subprocess.run(
        [sys.executable, "-c", "from ragcore.cli import main; main()", "up"],
        env={**os.environ, **settings},
        cwd=config.parent,
        check=True,
    )
    with stack.api as api:
        assert api.get("/health/live").json() == {"status": "ok"}
        assert "embedding_model" in api.get("/version").json()
        posted = api.post("/ingest", json={"text": "Where does it go?"}).json()
    assert posted["jobs"][0]["collection"] == "from-the-file"
    assert stack.processes("ragcore_worker") == []
    told = json.loads(stack.command("down", "--json").stdout)
    assert (told["was_up"], told["still_in_use"]) == (True, [])
    wait_until(lambda: not stack.processes())


def test_down_leaves_servers_to_others_and_says_so(data_dir: Path) -> None:
    with running_servers(data_dir, valkey=False) as servers:
        done = Stack(data_dir).command("down")
        assert "for another process that uses it: postgres" in done.stderr
        os.kill(servers.pids["postgres"], 0)


def test_down_without_up_says_so(data_dir: Path) -> None:
    done = Stack(data_dir).command("down")
    assert done.returncode == 0
    assert "was not up" in done.stderr
    told = json.loads(Stack(data_dir).command("down", "--json").stdout)
    assert (told["was_up"], told["still_in_use"]) == (False, [])


def test_a_worker_killed_at_work_is_replaced_and_its_job_ends(stack: Stack) -> None:
    paragraphs = [
        f"In chapter {n} the keeper lights lamp {n * 7} of the tower." for n in range(400)
    ]
    (worker,) = stack.processes("ragcore_worker")
    with stack.api as api:
        accepted = api.post("/ingest", json={"text": "\n\n".join(paragraphs)})
        job_url = accepted.headers["location"]
        wait_until(lambda: api.get(job_url).json()["status"] == "running")
    os.kill(worker, signal.SIGKILL)
    job = stack.finished(job_url)
    assert (job["outcome"], job["attempts"]) == ("created", 2)
    assert stack.processes("ragcore_worker") != [worker]


def test_an_emptied_redis_loses_no_job(stack: Stack) -> None:
    (worker,) = stack.processes("ragcore_worker")
    os.kill(worker, signal.SIGSTOP)
    try:
        with stack.api as api, stack.redis as client:
            accepted = api.post("/ingest", json={"text": "Rung for in vain."})
            client.flushall()
    finally:
        os.kill(worker, signal.SIGCONT)
    assert stack.finished(accepted.headers["location"])["outcome"] == "created"


def test_a_killed_redis_is_no_reason_to_refuse_a_document(stack: Stack) -> None:
    state = RunDirectory(stack.data_dir, "valkey").read_state()
    assert state is not None
    os.kill(state["pid"], signal.SIGKILL)
    assert stack.ingest("While Redis was away.")["outcome"] == "created"


def test_a_killed_database_is_back_by_itself(stack: Stack) -> None:
    state = RunDirectory(stack.data_dir, "postgres").read_state()
    assert state is not None
    os.kill(state["pid"], signal.SIGKILL)
    with stack.api as api:
        wait_until(lambda: api.get("/health/ready").status_code == 200)
    assert stack.ingest("After PostgreSQL was killed.")["outcome"] == "created"


def test_killing_up_takes_everything_along_and_loses_nothing(stack: Stack) -> None:
    job = stack.ingest("Older than the kill.", document_id="kept")
    os.kill(stack.state["pid"], signal.SIGKILL)
    wait_until(lambda: not stack.processes())
    stack.up()
    with stack.api as api:
        assert api.get(f"/jobs/{job['job_id']}").json() == job
        assert json.dumps("kept") in api.get("/documents").text
