"""`/mcp` of a running API, by the client of the official SDK, with a worker behind it."""

import json
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, TextContent

from apis import ADMIN, Api, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers
from serving import serving
from working import working

FERRY = "On Sundays the last ferry leaves at 21:40."
QUESTION = "When does the last ferry leave on Sundays?"


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        api.ingest(FERRY, document_id="ferry", title="Winter timetable", metadata={"year": 2026})
        api.ingest("The treasure lies under the palm.", collection="hidden", document_id="map")
        yield api


@asynccontextmanager
async def connected(
    api: Api, headers: Mapping[str, str] = {"X-API-Key": ADMIN}, **options: Any
) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{api.url}/mcp", http_client=http), **options) as client,
    ):
        yield client


def value_of(result: CallToolResult) -> dict[str, Any]:
    assert not result.is_error, result.content
    assert result.structured_content is not None
    (text,) = result.content
    assert isinstance(text, TextContent)
    assert json.loads(text.text) == result.structured_content
    return result.structured_content


def refusal_of(result: CallToolResult) -> str:
    assert result.is_error
    (text,) = result.content
    assert isinstance(text, TextContent)
    return text.text


async def test_the_tools_say_what_they_are_for(api: Api) -> None:
    async with connected(api) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert list(tools) == [
        "search", "ask", "ingest_url", "ingest_text", "list_documents", "get_document",
    ]  # fmt: skip
    for tool in tools.values():
        assert tool.description
        assert "\n  " not in tool.description
        assert tool.output_schema
        assert tool.annotations
        assert "call" not in tool.input_schema["properties"]
    assert tools["ask"].input_schema["required"] == ["question"]
    assert tools["ask"].annotations.read_only_hint
    assert not tools["ingest_url"].annotations.read_only_hint


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_question_is_answered_with_citations(api: Api, mode: str) -> None:
    async with connected(api, mode=mode) as client:
        answer = value_of(await client.call_tool("ask", {"question": QUESTION}))
        found = value_of(
            await client.call_tool("search", {"question": QUESTION, "filters": {"year": 2026}})
        )
    assert "21:40" in answer["answer"]
    assert answer["no_answer_reason"] is None
    assert answer["citations"][0]["title"] == "Winter timetable"
    assert answer["citations"][0]["supported"]
    assert found["passages"][0]["text"] == FERRY


async def test_a_text_is_taken_in_and_found(api: Api) -> None:
    async with connected(api) as client:
        with working(api.settings):
            text = {"text": "# Parrots\n\nThe parrot speaks eleven languages.", "title": "Parrots"}
            job = value_of(
                await client.call_tool(
                    "ingest_text", text | {"document_id": "parrot", "wait_seconds": 60}
                )
            )
        assert (job["status"], job["outcome"], job["error"]) == ("succeeded", "created", None)
        question = {"question": "How many languages does the parrot speak?"}
        found = value_of(await client.call_tool("search", question))
        assert found["passages"][0]["document_id"] == "parrot"
        assert found["passages"][0]["headings"] == ["Parrots"]
        whole = value_of(await client.call_tool("get_document", {"document_id": "parrot"}))
        assert "eleven languages" in whole["text"]
        assert whole["next_offset"] is None
        part = value_of(
            await client.call_tool(
                "get_document", {"document_id": "parrot", "offset": 2, "limit": 7}
            )
        )
        assert (part["text"], part["next_offset"]) == ("Parrots", 9)


async def test_documents_are_listed_page_by_page(api: Api) -> None:
    async with connected(api) as client:
        first = value_of(await client.call_tool("list_documents", {"limit": 1}))
        assert first["documents"][0]["document_id"] == "ferry"
        rest = value_of(
            await client.call_tool("list_documents", {"cursor": "ferry", "collection": "default"})
        )
    assert "ferry" not in [document["document_id"] for document in rest["documents"]]


async def test_a_url_of_this_network_is_not_fetched(api: Api) -> None:
    async with connected(api) as client:
        result = await client.call_tool("ingest_url", {"url": f"{api.url}/version"})
    assert "forbidden_url: " in refusal_of(result)


async def test_a_key_reaches_only_its_collections(api: Api) -> None:
    calls: dict[str, dict[str, Any]] = {
        "search": {"question": "Where is the treasure?"},
        "ask": {"question": "Where is the treasure?"},
        "list_documents": {},
        "get_document": {"document_id": "map"},
        "ingest_text": {"text": "Mine.", "document_id": "map"},
        "ingest_url": {"url": "https://example.org/"},
    }
    key = api.key("query", "ingest", collections=["default"])
    async with connected(api, key) as client:
        for tool, arguments in calls.items():
            result = await client.call_tool(tool, arguments | {"collection": "hidden"})
            assert "forbidden: this key is not for collection" in refusal_of(result)
            assert "treasure" not in refusal_of(result)
        assert value_of(await client.call_tool("ask", {"question": QUESTION}))["citations"]


async def test_a_key_does_what_its_scopes_say(api: Api) -> None:
    async with connected(api, api.key("query")) as client:
        result = await client.call_tool("ingest_text", {"text": "No."})
        assert "forbidden: this key lacks the scope 'ingest'" in refusal_of(result)
    async with connected(api, api.key("ingest")) as client:
        result = await client.call_tool("ask", {"question": QUESTION})
        assert "forbidden: this key lacks the scope 'query'" in refusal_of(result)


async def test_what_is_not_there_or_cannot_be_meant_is_told(api: Api) -> None:
    async with connected(api) as client:
        for tool, arguments, told in (
            ("get_document", {"document_id": "nothing"}, "document_not_found: "),
            ("list_documents", {"collection": "nothing"}, "collection_not_found: "),
            ("search", {"question": "?", "filters": {"year": {"$near": 1}}}, "invalid_filter: "),
            ("search", {"question": " "}, "question"),
            ("search", {"question": "?", "top_k": 1000}, "top_k"),
            ("ingest_text", {"text": "a", "document_id": "a b"}, "document_id"),
        ):
            assert told in refusal_of(await client.call_tool(tool, arguments))


def test_strangers_and_browsers_get_no_further(api: Api) -> None:
    request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    with httpx.Client(base_url=api.url) as stranger:
        answer = stranger.post("/mcp", json=request)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    answer = api.http.get("/mcp", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_without_the_extra_there_are_no_tools(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with serving(api.settings) as url:
        answer = httpx.post(f"{url}/mcp", json={}, headers={"X-API-Key": ADMIN})
    assert (answer.status_code, answer.json()["code"]) == (501, "missing_extra")
    assert "ragcore[mcp]" in answer.json()["detail"]


def test_requests_are_counted_under_their_route(api: Api) -> None:
    api.http.post("/mcp", json={})
    assert 'route="/mcp"' in api.http.get("/metrics").text
