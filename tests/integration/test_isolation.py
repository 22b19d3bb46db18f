"""A key for one collection sees nothing of another, on whatever route it asks."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest

from conftest import TestServer, server_directory
from ragcore.embedded import EmbeddedServers
from ragcore.rag import Rag
from ragcore.settings import Settings
from serving import serving

ADMIN = "the-first-key-of-a-new-stack"
OWN, OTHER = "alpha", "bravo"
HIDDEN = "hidden-document"
SECRET = "Zanzibar"
"""Stands in the text, the title and the metadata of the other collection's document."""


@dataclass
class World:
    """A service with a document in each of two collections, and jobs of all kinds in the other."""

    http: httpx.Client
    database_url: str
    jobs: dict[str, UUID]
    """Of the other collection, by how they stand."""
    keys: dict[str, dict[str, str]]
    """Headers of keys for the own collection, by scope."""

    @property
    def markers(self) -> list[str]:
        """What nobody may learn who has not said it himself."""
        return [OTHER, HIDDEN, SECRET, *map(str, self.jobs.values())]

    def everything_of_the_other(self) -> list[Any]:
        with psycopg.connect(self.database_url) as connection:
            return [
                connection.execute(query, (OTHER,)).fetchall()
                for query in (
                    "SELECT document_id, title, metadata, version_id, expires_at"
                    " FROM ragcore.documents WHERE collection = %s ORDER BY 1",
                    "SELECT job_id, status, outcome, attempts"
                    " FROM ragcore.jobs WHERE collection = %s ORDER BY 1",
                    "SELECT name, language, strict FROM ragcore.collections WHERE name = %s",
                )
            ]


@pytest.fixture(scope="module")
def world(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[World]:
    with (
        server_directory() as directory,
        postgres_server.database(template=migrated_template) as url,
    ):
        settings = Settings(
            database_url=url,
            redis_url=embedded.redis_url,
            data_dir=directory / "data",
            access={"admin_key": ADMIN, "requests_per_minute": 0},
            buckets={
                "servers": {
                    "shared": {"url": "http://127.0.0.1:9", "buckets": ["shared"]},
                    "theirs": {
                        "url": "http://127.0.0.1:9",
                        "buckets": ["theirs"],
                        "collections": [OTHER],
                    },
                }
            },
        )
        jobs = asyncio.run(_filled(settings))
        with (
            serving(settings) as address,
            httpx.Client(base_url=address, timeout=60) as http,
        ):
            yield World(http, url, jobs, _keys(http))


async def _filled(settings: Settings) -> dict[str, UUID]:
    async with Rag.open(settings) as rag:
        await rag.ingest_text("Coconuts grow by the sea.", collection=OWN, document_id="own")
        done = await rag.ingest_text(
            f"# {SECRET}\n\nCoconuts grow in {SECRET}, by the sea.",
            collection=OTHER,
            document_id=HIDDEN,
            title=SECRET,
            metadata={"place": SECRET},
        )
        (failed,) = await rag.ingest(b"", collection=OTHER, document_id=f"{HIDDEN}-failed")
        assert failed.status == "failed"
    return {"done": done.job_id, "failed": failed.job_id}


def _keys(http: httpx.Client) -> dict[str, dict[str, str]]:
    admin = {"X-API-Key": ADMIN}
    waiting = {"text": SECRET, "collection": OTHER, "document_id": f"{HIDDEN}-waiting"}
    http.post("/ingest", json=waiting, headers=admin).raise_for_status()
    made = {}
    for scope in ("query", "ingest", "admin"):
        wanted = {"name": f"of-{OWN}", "scopes": [scope], "collections": [OWN]}
        answer = http.post("/keys", json=wanted, headers=admin)
        made[scope] = {"X-API-Key": answer.raise_for_status().json()["secret"]}
    return made


QUESTIONS: list[dict[str, Any]] = [
    {"question": "Where do coconuts grow?"},
    {"question": "Where do coconuts grow?", "collection": OWN},
    {"question": "Where do coconuts grow?", "collection": OTHER},
    {"question": "Where do coconuts grow?", "collection": [OWN, OTHER]},
    {"question": "Where do coconuts grow?", "collection": OWN, "top_k": 50, "explain": True},
    {"question": "Where do coconuts grow?", "collection": OWN, "filters": {"place": SECRET}},
    {
        "question": "Where do coconuts grow?",
        "collection": OWN,
        "filters": {"$or": [{"document_id": HIDDEN}, {"title": {"$ne": "x"}}]},
    },
]
CHATS: list[dict[str, Any]] = [
    {"model": model, "messages": [{"role": "user", "content": "Where do coconuts grow?"}]}
    for model in (f"ragcore/{OWN}", f"ragcore/{OTHER}", OTHER)
]
BODIES: dict[str, list[Any]] = {
    "POST /search": QUESTIONS,
    "POST /query": [*QUESTIONS, *(question | {"stream": True} for question in QUESTIONS)],
    "POST /v1/chat/completions": [*CHATS, *(chat | {"stream": True} for chat in CHATS)],
    "POST /v1/embeddings": [
        {"model": f"ragcore/{OWN}", "input": "coconuts"},
        {"model": f"ragcore/{OTHER}", "input": "coconuts"},
    ],
    "POST /ingest": [
        {"text": "Mine now.", "document_id": HIDDEN, "collection": OTHER},
        {"text": "Mine too.", "document_id": "own-too", "collection": OWN},
        {"text": "Mine now."},
    ],
    "POST /ingest/bucket": [
        {"bucket": "shared", "collection": OTHER},
        {"bucket": "shared", "collection": OTHER, "delete_missing": True},
        {"bucket": "theirs", "collection": OTHER, "dry_run": True},
        {"bucket": "theirs", "collection": OWN},
        {"bucket": "theirs"},
        {"bucket": "shared", "collection": OWN},
    ],
    "POST /hooks/minio": [{"Records": [{"s3": {"bucket": {"name": "theirs"}}}]}],
    "POST /feedback": [{"trace_id": "0" * 31 + "1", "score": 1}],
    "POST /convert": [{}],  # looks at nothing that is stored
    "PUT /process": [{}],  # neither does this
    "POST /jobs/retry": [{}, {"collection": OTHER}, {"document_id": f"{HIDDEN}-failed"}],
    "PATCH /documents/{document_id}": [{"title": "Mine now"}, {"metadata": {}}],
    "POST /documents/delete": [
        {"filter": {"document_id": {"$exists": True}}, "collection": OTHER},
        {"filter": {"place": {"$exists": True}}, "collection": OWN},
        {"filter": {"document_id": HIDDEN}},
        {"filter": {"document_id": HIDDEN}, "collection": OTHER, "dry_run": True},
    ],
    "PUT /collections/{name}": [{}, {"language": "ru"}],
    "POST /collections/{name}/reindex": [{}, {"max_tokens": 64}],
    "POST /collections/{name}/reindex/switch": [{}, {"accept_loss": True}],
    "POST /collections/{name}/reindex/rollback": [{}, {"accept_loss": True}],
    "POST /keys": [{"name": "mine", "scopes": ["admin"]}],
}
"""What is sent to each route that takes a body: the polite and the impolite."""

QUERIES: dict[str, list[dict[str, Any]]] = {
    "collection": [{}, {"collection": OWN}, {"collection": OTHER}],
    "document_id": [{}, {"document_id": HIDDEN}],
}


def test_no_route_shows_or_changes_anything_of_another_collection(world: World) -> None:
    before = world.everything_of_the_other()
    for scope, headers in world.keys.items():
        for request in _requests(world):
            answer = world.http.request(**request, headers=headers)
            told = f"{scope}: {request} → {answer.status_code} {answer.text[:2000]}"
            assert answer.status_code < 500, told
            said = str(request)
            for marker in world.markers:
                if marker not in said:  # a refusal may repeat what it was asked for
                    assert marker not in f"{answer.text} {answer.headers}", f"{marker}: {told}"
    assert world.everything_of_the_other() == before


def test_the_same_key_sees_its_own_collection(world: World) -> None:
    """The walk above would be worthless with keys that see nothing at all."""
    headers = world.keys["query"]
    question = {"question": "Where do coconuts grow?", "collection": OWN}
    answer = world.http.post("/query", json=question, headers=headers).json()
    assert "sea" in answer["answer"]
    listed = world.http.get("/documents", params={"collection": OWN}, headers=headers).json()
    assert "own" in [document["document_id"] for document in listed["documents"]]
    collections = world.http.get("/collections", headers=headers).json()["collections"]
    assert [collection["name"] for collection in collections] == [OWN]


def _requests(world: World) -> Iterator[dict[str, Any]]:
    """Every route of the service, with all that its parameters can name of the other."""
    described = world.http.get("/openapi.json", headers={"X-API-Key": ADMIN}).json()
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            if "requestBody" in operation:
                assert route in BODIES, f"say what to send to {route}"
            names = {each["name"] for each in operation.get("parameters", [])}
            for address in _addresses(path, world):
                for query in _queries(names - _in_path(path)):
                    for body in BODIES.get(route, [None]):
                        yield {
                            "method": method.upper(),
                            "url": address,
                            "params": query,
                            "json": body,
                        }


def _in_path(path: str) -> set[str]:
    return {part.split("}")[0] for part in path.split("{")[1:]}


def _addresses(path: str, world: World) -> Iterator[str]:
    if "{job_id}" in path:
        for job_id in (*world.jobs.values(), uuid4()):
            yield path.replace("{job_id}", str(job_id))
        return
    yield (
        path.replace("{document_id}", HIDDEN)
        .replace("{name}", OTHER)
        .replace("{key_id}", str(uuid4()))
        .replace("{page}", "1")
    )


def _queries(names: set[str]) -> Iterator[dict[str, Any]]:
    collections = QUERIES["collection"] if "collection" in names else [{}]
    documents = QUERIES["document_id"] if "document_id" in names else [{}]
    for collection in collections:
        for document in documents:
            yield collection | document
