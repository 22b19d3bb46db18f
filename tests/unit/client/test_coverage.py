"""Each operation of the OpenAPI document has a method of the client, and no method is forgotten."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

import pytest

from conftest import REPOSITORY
from ragcore.client import Retries
from ragcore.client.exchange import Request
from ragcore.client.operations import Operations

JOB: Final = UUID(int=1)
NOT_IN_THE_CLIENT: Final = {
    "get_metrics": "Prometheus asks for it",
    "list_models": "OpenAI's clients",
    "get_model": "OpenAI's clients",
    "create_chat_completion": "OpenAI's clients",
    "create_embeddings": "OpenAI's clients",
    "hear_minio": "a bucket's own notifications",
    "get_tools": "language models are told of it",
    "process_document": "Open WebUI asks for it; others have `convert`",
}

METHODS: Final[Mapping[str, Callable[[Operations], Any]]] = {
    "ingest": lambda rag: Operations.ingest(rag, b"x"),
    "ingest_files": lambda rag: Operations.ingest_files(rag, [__file__]),
    "ingest_text": lambda rag: Operations.ingest_text(rag, "x"),
    "ingest_bucket": lambda rag: Operations.ingest_bucket(rag, "a"),
    "convert": lambda rag: Operations.convert(rag, b"x"),
    "job": lambda rag: Operations.job(rag, JOB),
    "jobs": Operations.jobs,
    "job_objects": lambda rag: Operations.job_objects(rag, JOB),
    "wait": lambda rag: Operations.wait(rag, JOB),
    "wait_all": lambda rag: Operations.wait_all(rag, [JOB]),
    "follow": lambda rag: Operations.follow(rag, JOB),
    "cancel": lambda rag: Operations.cancel(rag, JOB),
    "retry": lambda rag: Operations.retry(rag, JOB),
    "retry_failed": Operations.retry_failed,
    "search": lambda rag: Operations.search(rag, "x"),
    "ask": lambda rag: Operations.ask(rag, "x"),
    "ask_stream": lambda rag: Operations.ask_stream(rag, "x"),
    "feedback": lambda rag: Operations.feedback(rag, "a", 1),
    "documents": Operations.documents,
    "document": lambda rag: Operations.document(rag, "a"),
    "refresh": lambda rag: Operations.refresh(rag, "a"),
    "update": lambda rag: Operations.update(rag, "a", title="x"),
    "delete": lambda rag: Operations.delete(rag, "a"),
    "delete_matching": lambda rag: Operations.delete_matching(rag, {"year": 1}),
    "chunks": lambda rag: Operations.chunks(rag, "a"),
    "markdown": lambda rag: Operations.markdown(rag, "a"),
    "docling": lambda rag: Operations.docling(rag, "a"),
    "original": lambda rag: Operations.original(rag, "a"),
    "page_image": lambda rag: Operations.page_image(rag, "a", 1),
    "collections": Operations.collections,
    "collection": lambda rag: Operations.collection(rag, "a"),
    "create_collection": lambda rag: Operations.create_collection(rag, "a"),
    "delete_collection": lambda rag: Operations.delete_collection(rag, "a"),
    "reindex": lambda rag: Operations.reindex(rag, "a"),
    "reindex_state": lambda rag: Operations.reindex_state(rag, "a"),
    "switch_reindex": lambda rag: Operations.switch_reindex(rag, "a"),
    "roll_back_reindex": lambda rag: Operations.roll_back_reindex(rag, "a"),
    "discard_reindex": lambda rag: Operations.discard_reindex(rag, "a"),
    "keys": Operations.keys,
    "create_key": lambda rag: Operations.create_key(rag, "a", scopes=["query"]),
    "revoke_key": lambda rag: Operations.revoke_key(rag, UUID(int=1)),
    "audit": Operations.audit,
    "live": Operations.live,
    "ready": Operations.ready,
    "version": Operations.version,
}
ALSO_ASKED: Final = {"follow": Request("GET", f"/jobs/{JOB}/events")}
"""What a method asks for after its first answer."""


@pytest.fixture(scope="module")
def operations() -> Mapping[str, tuple[str, re.Pattern[str]]]:
    """Method and pattern of the path of each operation that the service documents."""
    document = json.loads((REPOSITORY / "docs/reference/openapi.json").read_text())
    found = {}
    for path, methods in document["paths"].items():
        pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
        for method, operation in methods.items():
            found[operation["operationId"]] = (method.upper(), re.compile(pattern))
    return found


def test_every_operation_has_a_method_or_a_reason_to_have_none(
    operations: Mapping[str, tuple[str, re.Pattern[str]]],
) -> None:
    rag = Operations(retries=Retries(), timeout_seconds=1)
    covered = set()
    for name, call in METHODS.items():
        for request in filter(None, [next(call(rag)), ALSO_ASKED.get(name)]):
            operation = _operation_of(request, operations)
            assert operation is not None, f"{name} asks for {request.method} {request.path}"
            covered.add(operation)
    assert set(operations) - covered - set(NOT_IN_THE_CLIENT) == set(), "add a method, or a reason"
    assert not covered & set(NOT_IN_THE_CLIENT)


def test_every_method_is_tried_above() -> None:
    methods = {name for name in dir(Operations) if not name.startswith("_")}
    assert methods == set(METHODS)


def _operation_of(
    request: Request, operations: Mapping[str, tuple[str, re.Pattern[str]]]
) -> str | None:
    """Name the operation of a path, one without placeholders first, as the service does."""
    fitting = [
        name
        for name, (method, path) in operations.items()
        if method == request.method and path.fullmatch(request.path)
    ]
    return min(fitting, key=lambda name: "[^/]+" in operations[name][1].pattern, default=None)
