"""The real Open WebUI, started for the tests that ask for it, and its REST API."""

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from ragcore.embedded.machine import free_port

ADMIN = {"email": "admin@example.org", "password": "of-the-tests-only"}
_STARTS_WITHIN_SECONDS = 300
_ANSWERS_WITHIN_SECONDS = 120


class OpenWebUI:
    """One running Open WebUI, seen by one of its users."""

    def __init__(self, url: str, stack: contextlib.ExitStack, token: str = "") -> None:
        self.url, self.token, self._stack = url, token, stack
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=120))

    def signed_in(self, email: str, password: str) -> "OpenWebUI":
        answer = self.http.post(
            "/api/v1/auths/signin", json={"email": email, "password": password}
        ).raise_for_status()
        return OpenWebUI(self.url, self._stack, answer.json()["token"])

    def user(self, name: str) -> "OpenWebUI":
        """Make a user who may chat, and sign in."""
        who = {"email": f"{name}@example.org", "password": f"{name}-of-the-tests"}
        self.http.post(
            "/api/v1/auths/add", json={**who, "name": name, "role": "user"}
        ).raise_for_status()
        return self.signed_in(**who)

    def models(self) -> list[str]:
        answer = self.http.get("/api/models", params={"refresh": "true"}).raise_for_status()
        return [model["id"] for model in answer.json()["data"]]

    def share(self, model: str) -> None:
        """Let every user chat with a model, as an administrator does on its page."""
        self.http.post(
            "/api/v1/models/create",
            json={
                "id": model,
                "base_model_id": None,
                "name": model,
                "meta": {},
                "params": {},
                "access_grants": [
                    {"principal_type": "user", "principal_id": "*", "permission": "read"}
                ],
                "is_active": True,
            },
        ).raise_for_status()

    def chat(self, model: str, question: str, **more: Any) -> Mapping[str, Any]:
        """Ask as the page does, and return the message that is stored when it is done."""
        asked, told = str(uuid4()), str(uuid4())
        now = int(time.time())
        messages = {
            asked: {
                "id": asked,
                "parentId": None,
                "childrenIds": [told],
                "role": "user",
                "content": question,
                "timestamp": now,
                "models": [model],
            },
            told: {
                "id": told,
                "parentId": asked,
                "childrenIds": [],
                "role": "assistant",
                "content": "",
                "model": model,
                "modelName": model,
                "timestamp": now,
            },
        }
        chat = {
            "title": "New Chat",
            "models": [model],
            "history": {"messages": messages, "currentId": told},
            "messages": list(messages.values()),
        }
        made = self.http.post("/api/v1/chats/new", json={"chat": chat}).raise_for_status()
        chat_id = made.json()["id"]
        self.http.post(
            "/api/chat/completions",
            json={
                "model": model,
                "messages": [{"role": "user", "content": question}],
                "stream": True,
                "chat_id": chat_id,
                "id": told,
                "session_id": "of-the-tests",
                **more,
            },
        ).raise_for_status()
        message = self._finished(chat_id, told)
        return {**message, "chat_id": chat_id}

    def _finished(self, chat_id: str, message_id: str) -> Mapping[str, Any]:
        deadline = time.monotonic() + _ANSWERS_WITHIN_SECONDS
        while time.monotonic() < deadline:
            chat = self.http.get(f"/api/v1/chats/{chat_id}").raise_for_status().json()
            message: Mapping[str, Any] = chat["chat"]["history"]["messages"][message_id]
            if message.get("done") or message.get("error"):
                return message
            time.sleep(0.2)
        raise AssertionError(f"no answer within {_ANSWERS_WITHIN_SECONDS} s: {message}")


@contextmanager
def running_open_webui(directory: Path, **environment: str) -> Iterator[OpenWebUI]:
    """Start the program that OPEN_WEBUI_COMMAND names, and stop it at the end of the block."""
    port = free_port(None)
    url = f"http://127.0.0.1:{port}"
    settings = {
        "DATA_DIR": str(directory / "data"),
        "WEBUI_SECRET_KEY": "only-for-this-test",
        "WEBUI_ADMIN_EMAIL": ADMIN["email"],
        "WEBUI_ADMIN_PASSWORD": ADMIN["password"],
        "OFFLINE_MODE": "true",
        "HF_HUB_OFFLINE": "1",
        "ENABLE_OLLAMA_API": "False",
        "ENABLE_OPENAI_API": "False",
        "RAG_EMBEDDING_ENGINE": "openai",
        "ENABLE_PERSISTENT_CONFIG": "False",
        "ENABLE_VERSION_UPDATE_CHECK": "False",
        "ENABLE_TITLE_GENERATION": "False",
        "ENABLE_TAGS_GENERATION": "False",
        "ENABLE_FOLLOW_UP_GENERATION": "False",
        "ENABLE_AUTOCOMPLETE_GENERATION": "False",
        "ENABLE_API_KEYS": "True",
        "CORS_ALLOW_ORIGIN": url,
        "ANONYMIZED_TELEMETRY": "false",
    }
    log = directory / "open-webui.log"
    program = shlex.split(os.environ["OPEN_WEBUI_COMMAND"])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*program, "serve", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | settings | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
        )
        try:
            _await_ready(url, process, log)
            with contextlib.ExitStack() as stack:
                yield OpenWebUI(url, stack).signed_in(**ADMIN)
        finally:
            process.terminate()
            process.wait()


def _await_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").is_success:
                return
        time.sleep(0.5)
    raise AssertionError(f"Open WebUI did not start:\n{log.read_text()[-3000:]}")
