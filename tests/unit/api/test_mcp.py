"""What stands before the tools, and what they say when something fails."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi import Request
from mcp.server.mcpserver.exceptions import ToolError

from ragcore.errors import NotConfigured, RagError, StoreUnavailable
from ragcore.rag import Rag
from ragcore.settings import Settings
from ragcore_api.auth import LOOPBACK
from ragcore_api.main import create_app
from ragcore_api.mcp import Call, Tools
from ragcore_api.watching import JobWatch


class FailingRag:
    collection = "default"

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def search(self, question: str, **options: Any) -> None:
        raise self.error


def call() -> Call:
    state = {"principal": LOOPBACK, "request_id": "r-1"}
    request = Request({"type": "http", "state": state})
    return cast(Call, SimpleNamespace(request_context=SimpleNamespace(request=request)))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (StoreUnavailable("PostgreSQL is away"), "store_unavailable: PostgreSQL is away"),
        (NotConfigured("the password is x"), "not_configured: internal error; the log of"),
    ],
)
async def test_a_tool_tells_of_a_failure_what_a_route_would_tell(
    error: RagError, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    tools = Tools(cast(Rag, FailingRag(error)), cast(JobWatch, None))
    with caplog.at_level(logging.ERROR), pytest.raises(ToolError, match=told):
        await tools.search(call(), "Where?")
    assert str(error) in caplog.text


async def test_a_bug_is_left_to_the_sdk_which_hides_it() -> None:
    tools = Tools(cast(Rag, FailingRag(ZeroDivisionError())), cast(JobWatch, None))
    with pytest.raises(ZeroDivisionError):
        await tools.search(call(), "Where?")


@pytest.mark.parametrize("path", ["/mcp", "/v1/models"])
async def test_without_keys_pages_of_other_sites_reach_nothing(path: str) -> None:
    settings = Settings()
    assert not settings.needs_key
    transport = httpx.ASGITransport(create_app(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for name in ({"Host": "rebound.example"}, {"Origin": "https://evil.example"}):
            answer = await client.post(path, json={}, headers=name)
            assert answer.status_code == 403
            assert "forbidden_origin" in answer.text
