"""The API with keys over a database of its own, and ways to put documents into it."""

import asyncio
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from conftest import TestServer, server_directory
from ragcore import Rag
from ragcore.model import Job
from ragcore.settings import Settings
from serving import serving

ADMIN = "the-first-key-of-a-new-stack"


@dataclass
class Api:
    """A running API and its administrator."""

    url: str
    settings: Settings
    http: httpx.Client
    """Shows the administrator's key."""

    rag: Rag
    runner: asyncio.Runner
    """Of the loop that `rag` belongs to."""

    def ingest(self, source: Path | str, **options: Any) -> Job:
        """Make a file or a text searchable, in this process."""
        return self.runner.run(self._ingested(source, options))

    async def _ingested(self, source: Path | str, options: Mapping[str, Any]) -> Job:
        if isinstance(source, str):
            job = await self.rag.ingest_text(source, **options)
        else:
            (job,) = await self.rag.ingest(source, **options)
        assert job.status == "succeeded", job.error
        return job

    def key(self, *scopes: str, **options: Any) -> Mapping[str, str]:
        """Make a key and return the headers that show it."""
        answer = self.http.post("/keys", json={"name": "test", "scopes": scopes} | options)
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['secret']}"}


@contextmanager
def running_api(
    server: TestServer, *, template: str, redis_url: str, **groups: Any
) -> Iterator[Api]:
    """Serve over a fresh copy of the migrated database until the block ends.

    `groups` of settings are used besides the test's own.
    """
    with server_directory() as directory, server.database(template=template) as database_url:
        settings = Settings(
            database_url=database_url,  # type: ignore[arg-type]  # pydantic makes it a secret
            redis_url=redis_url,  # type: ignore[arg-type]
            data_dir=directory / "data",
            access={"admin_key": ADMIN, "requests_per_minute": 0},  # type: ignore[arg-type]
            **groups,
        )
        with (
            serving(settings) as url,
            httpx.Client(base_url=url, headers={"X-API-Key": ADMIN}, timeout=60) as http,
            asyncio.Runner() as runner,
        ):
            rag = runner.run(_opened(settings))
            try:
                yield Api(url, settings, http, rag, runner)
            finally:
                runner.run(rag.close())


async def _opened(settings: Settings) -> Rag:
    return await Rag.open(settings)


@contextmanager
def leaving(api: Api, path: str, body: Mapping[str, Any]) -> Iterator[None]:
    """Post something, and hang up at the end of the block."""
    url, content = httpx.URL(api.url), json.dumps(body)
    with socket.create_connection((url.host, url.port or 0)) as connection:
        request = (
            f"POST {path} HTTP/1.1\r\nHost: {url.host}\r\nX-API-Key: {ADMIN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}"
        )
        connection.sendall(request.encode())
        yield


def code_of(answer: httpx.Response) -> str:
    """The code of an error, whose shape is checked on the way."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    return str(problem["code"])
