"""Functions and connection in the real Open WebUI, over the real API."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from apis import Api, running_api
from browser import chromium_page, keep_picture
from conftest import REPOSITORY, TestServer
from fakes.langfuse import PUBLIC_KEY, SECRET_KEY, FakeLangfuse
from fakes.ollama import FakeModel, FakeOllama
from open_webui import OpenWebUI, running_open_webui
from ragcore.embedded import EmbeddedServers
from ragcore.embedded.machine import free_port
from serving import serving

pytestmark = [
    pytest.mark.skipif(
        "RAGCORE_TEST_OPEN_WEBUI" not in os.environ,
        reason="needs Open WebUI; `make test-open-webui` runs it",
    ),
    pytest.mark.timeout(900),
]

QUESTIONS = [("When does the ferry leave?", "07:40"), ("Когда отходит паром?", "08:15")]
CONSOLE = "https://rag.example.org"
PLAIN = "llama3.2:latest"


@pytest.fixture(scope="module")
def langfuse() -> Iterator[FakeLangfuse]:
    with FakeLangfuse() as server:
        yield server


@pytest.fixture(scope="module")
def ollama() -> Iterator[FakeOllama]:
    """A chat model that says what it was shown, and searches where it is given tools."""

    def words(messages: list[dict[str, Any]], _: Mapping[str, Any]) -> Iterator[str]:
        shown = str(messages)
        if "Available Tools" in shown:
            (tool,) = re.findall(r'"name":\s*"([^"]*search[^"]*)"', messages[0]["content"])[:1]
            wanted = {"question": QUESTIONS[0][0], "collection": "harbour"}
            yield json.dumps({"tool_calls": [{"name": tool, "parameters": wanted}]})
        else:
            yield "It saw the ferry. [1]" if "07:40" in shown else "It saw nothing."

    model = FakeModel(PLAIN, capabilities=["completion"])
    with FakeOllama(model, language_model=words) as server:
        yield server


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer,
    migrated_template: str,
    embedded: EmbeddedServers,
    langfuse: FakeLangfuse,
) -> Iterator[Api]:
    with running_api(
        postgres_server,
        template=migrated_template,
        redis_url=embedded.redis_url,
        langfuse={"url": langfuse.url, "public_key": PUBLIC_KEY, "secret_key": SECRET_KEY},
    ) as api:
        for title, text, readers in (
            ("Timetable", "The ferry leaves at 07:40 from pier nine.", "all"),
            ("Расписание", "Паром отходит в 08:15 от третьего причала.", "all"),
            ("Safe", "The safe of the harbour opens with 2718.", "anna@example.org"),
        ):
            api.ingest(text, title=title, collection="harbour", metadata={"readers": readers})
        api.ingest("The vault of the bank opens with 3141.", collection="bank")
        yield api


class Harbour:
    """Open WebUI with the functions, and ragcore behind a port that can be closed."""

    def __init__(self, admin: OpenWebUI, api: Api, port: int) -> None:
        self.admin, self._api, self._port = admin, api, port
        self._stack = ExitStack()

    def start_ragcore(self) -> None:
        self._stack.enter_context(serving(self._api.settings, port=self._port))

    def stop_ragcore(self) -> None:
        self._stack.close()


@contextmanager
def installed(
    directory: Path, api: Api, ollama: FakeOllama, langfuse: FakeLangfuse
) -> Iterator[Harbour]:
    port = free_port(None)
    key = api.key("query", "ingest", collections=["harbour"])["Authorization"].split()[1]
    with running_open_webui(
        directory,
        ENABLE_OPENAI_API="True",
        OPENAI_API_BASE_URLS=f"http://127.0.0.1:{port}/v1",
        OPENAI_API_KEYS=key,
        ENABLE_OLLAMA_API="True",
        OLLAMA_BASE_URLS=ollama.url,
        ENABLE_TITLE_GENERATION="True",
        ENABLE_FORWARD_USER_INFO_HEADERS="true",
        RAG_OPENAI_API_BASE_URL=f"http://127.0.0.1:{port}/v1",
        RAG_OPENAI_API_KEY=key,
        RAG_EMBEDDING_MODEL="ragcore/harbour",
        CONTENT_EXTRACTION_ENGINE="external",
        EXTERNAL_DOCUMENT_LOADER_URL=f"http://127.0.0.1:{port}",
        EXTERNAL_DOCUMENT_LOADER_API_KEY=key,
        TOOL_SERVER_CONNECTIONS=json.dumps(list(tool_servers(port, key))),
    ) as admin:
        environment = {
            "OPEN_WEBUI_URL": admin.url,
            "OPEN_WEBUI_TOKEN": admin.token,
            "RAGCORE_URL": f"http://127.0.0.1:{port}",
            "RAGCORE_API_KEY": key,
            "RAGCORE_COLLECTION": "harbour",
            "RAGCORE_PUBLIC_URL": CONSOLE,
            "RAGCORE_FILTERS": '{"readers": {"$in": ["all", "{{user.email}}"]}}',
            "LANGFUSE_URL": langfuse.url,
            "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
            "LANGFUSE_SECRET_KEY": SECRET_KEY,
        }
        harbour = Harbour(admin, api, port)
        harbour.start_ragcore()
        try:
            assert "made" in install(environment)
            again = install(environment)
            assert set(again.split("\n")) == {
                f"{name}: as it was"
                for name in (
                    "ragcore_pipe",
                    "ragcore_passages",
                    "langfuse_chats",
                    "ragcore_ratings",
                )
            }
            yield harbour
        finally:
            harbour.stop_ragcore()


def tool_servers(port: int, key: str) -> Iterator[Mapping[str, Any]]:
    """ragcore's tools as an OpenAPI server and by MCP, as docs/how-to/open-webui.md has them."""
    address = f"http://127.0.0.1:{port}"
    about = {"auth_type": "bearer", "key": key, "config": {"enable": True}}
    info = {"name": "ragcore", "description": "Search documents and answer from them."}
    openapi = {"type": "openapi", "url": address, "path": "tools/openapi.json"}
    yield {**openapi, **about, "info": {"id": "ragcore", **info}}
    mcp = {"type": "mcp", "url": f"{address}/mcp", "path": ""}
    yield {**mcp, **about, "info": {"id": "ragcoremcp", **info}}


def install(environment: Mapping[str, str]) -> str:
    ran = subprocess.run(
        [sys.executable, REPOSITORY / "integrations/open_webui/install.py"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


@pytest.fixture(scope="module")
def harbour(
    api: Api,
    ollama: FakeOllama,
    langfuse: FakeLangfuse,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Harbour]:
    with installed(tmp_path_factory.mktemp("open-webui"), api, ollama, langfuse) as harbour:
        yield harbour


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_the_pipe_answers_with_sources_and_statuses(
    harbour: Harbour, question: str, answer: str
) -> None:
    assert "ragcore_pipe.harbour" in harbour.admin.models()
    assert "ragcore_pipe.bank" not in harbour.admin.models()  # not one of the key's
    message = harbour.admin.chat("ragcore_pipe.harbour", question)
    assert answer in message["content"] and "[1]" in message["content"]
    (source,) = message["sources"]
    assert answer in source["document"][0]
    assert source["source"]["url"].startswith(f"{CONSOLE}/#/documents/")
    assert "collection=harbour" in source["source"]["url"] and "&chunk=" in source["source"]["url"]
    told = [status["description"] for status in message["statusHistory"]]
    assert len(told) == 3 and "harbour" in told[0]
    assert message["statusHistory"][-1]["done"]


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_the_connection_answers_with_sources_and_statuses(
    harbour: Harbour, question: str, answer: str
) -> None:
    message = harbour.admin.chat("ragcore/harbour", question)
    assert answer in message["content"] and "[1]" in message["content"]
    (source,) = message["sources"]
    assert answer in source["document"][0]
    assert message["statusHistory"]


def test_two_users_are_shown_two_sets_of_documents(harbour: Harbour) -> None:
    harbour.admin.share("ragcore_pipe.harbour")
    anna, boris = harbour.admin.user("anna"), harbour.admin.user("boris")
    question = "What opens the safe of the harbour?"
    told = anna.chat("ragcore_pipe.harbour", question)
    assert "2718" in told["content"]
    hidden = boris.chat("ragcore_pipe.harbour", question)
    assert "2718" not in str(hidden)
    assert "07:40" in boris.chat("ragcore_pipe.harbour", "When does the ferry leave?")["content"]


@pytest.mark.parametrize(
    ("question", "told"), [(QUESTIONS[0][0], "reached"), (QUESTIONS[1][0], "недоступен")]
)
def test_ragcore_stopped_is_told_and_started_again_answers(
    harbour: Harbour, question: str, told: str
) -> None:
    harbour.stop_ragcore()
    try:
        message = harbour.admin.chat("ragcore_pipe.harbour", question)
        assert told in str(message["error"])
    finally:
        harbour.start_ragcore()
    for model in ("ragcore_pipe.harbour", "ragcore/harbour"):
        assert "[1]" in harbour.admin.chat(model, question)["content"]


def test_the_filter_gives_any_model_passages(harbour: Harbour) -> None:
    plain = harbour.admin.chat(PLAIN, QUESTIONS[0][0])
    assert "saw nothing" in plain["content"]
    helped = harbour.admin.chat(PLAIN, QUESTIONS[0][0], filter_ids=["ragcore_passages"])
    assert "saw the ferry" in helped["content"]
    assert any("07:40" in source["document"][0] for source in helped["sources"])


def test_plain_chats_are_traced_and_thumbs_are_feedback(
    harbour: Harbour, langfuse: FakeLangfuse
) -> None:
    langfuse.forget()
    plain = harbour.admin.chat(PLAIN, "Hello there")
    (span,) = [each for each in waited(langfuse.spans) if each.name == "chat"]
    assert span["langfuse.observation.output"] == plain["content"]
    rate(harbour.admin, plain, 1)
    (score,) = waited(langfuse.scores)
    assert (score["traceId"], score["value"]) == (span.trace_id, 1)

    langfuse.forget()
    message = harbour.admin.chat("ragcore_pipe.harbour", QUESTIONS[0][0])
    rate(harbour.admin, message, -1, comment="not this pier")
    (score,) = waited(langfuse.scores)
    assert score["traceId"] == message["statusHistory"][-1]["trace_id"]
    assert (score["value"], score["comment"]) == (0, "not this pier")


def rate(user: OpenWebUI, message: Mapping[str, Any], rating: int, **said: str) -> None:
    user.http.post(
        "/api/v1/evaluations/feedback",
        json={
            "type": "rating",
            "data": {"rating": rating, "model_id": message["model"], **said},
            "meta": {"chat_id": message["chat_id"], "message_id": message["id"]},
        },
    ).raise_for_status()


def waited(seen: list[Any], *, seconds: float = 30) -> list[Any]:
    deadline = time.monotonic() + seconds
    while not seen and time.monotonic() < deadline:
        time.sleep(0.1)
    return seen


def test_titles_and_tags_cost_no_question(harbour: Harbour, langfuse: FakeLangfuse) -> None:
    langfuse.forget()
    answer = harbour.admin.http.post(
        "/api/v1/tasks/title/completions",
        json={
            "model": "ragcore_pipe.harbour",
            "messages": [{"role": "user", "content": "Когда отходит паром?"}],
        },
    )
    content = answer.json()["choices"][0]["message"]["content"]
    assert content == '{"title": "Когда отходит паром?"}'
    assert not [each for each in langfuse.spans if "query" in each.name]


@pytest.mark.parametrize("server", ["server:ragcore", "server:mcp:ragcoremcp"])
def test_any_model_uses_the_tools(harbour: Harbour, server: str) -> None:
    listed = {tool["id"] for tool in harbour.admin.http.get("/api/v1/tools/").json()}
    assert server in listed
    message = harbour.admin.chat(
        PLAIN, "Look it up.", tool_ids=[server], params={"function_calling": "legacy"}
    )
    assert "saw the ferry" in message["content"]


def test_a_file_dropped_into_a_chat_is_read_by_ragcore(harbour: Harbour) -> None:
    text = "# Расписание\n\nКатер на остров Вега уходит в 16:20.\n"
    uploaded = harbour.admin.http.post(
        "/api/v1/files/", files={"file": ("расписание.md", text.encode(), "text/markdown")}
    ).raise_for_status()
    file_id = uploaded.json()["id"]
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        file = harbour.admin.http.get(f"/api/v1/files/{file_id}").json()
        if file["data"].get("content"):
            break
        time.sleep(0.3)
    assert "16:20" in file["data"]["content"], file


async def test_a_question_typed_into_the_page_is_answered_with_its_sources(
    harbour: Harbour,
) -> None:
    """The pictures are those of docs/how-to/open-webui.md."""
    question, answer = QUESTIONS[1]
    async with chromium_page() as page:
        await page.goto(harbour.admin.url)
        await page.evaluate(
            "token => { localStorage.token = token; localStorage.version = '0.12.4' }",
            harbour.admin.token,
        )
        await page.goto(f"{harbour.admin.url}/?models=ragcore_pipe.harbour")
        news = page.get_by_role("button", name=re.compile("Okay"))
        await news.click(timeout=60_000)
        await page.locator("#chat-input").click(timeout=60_000)
        await page.keyboard.type(question)
        await page.keyboard.press("Enter")
        await page.get_by_text(answer).first.wait_for(timeout=60_000)
        await page.get_by_text("1 Source").first.wait_for(timeout=60_000)
        await page.wait_for_timeout(1000)  # until nothing moves
        await keep_picture(page, "open-webui-answer")
        await page.get_by_role("button", name="1. Расписание").first.click()
        link = page.get_by_role("link", name="1. Расписание").first
        await link.wait_for(timeout=10_000)
        assert (await link.get_attribute("href") or "").startswith(f"{CONSOLE}/#/documents/")
        await page.wait_for_timeout(500)
        await keep_picture(page, "open-webui-source")
