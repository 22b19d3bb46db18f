import json
import re
from pathlib import Path
from typing import Any

import pytest

from ragcore.settings import Settings
from ragcore_api.main import create_app
from ragcore_api.openapi import TAGS

SNAPSHOT = Path(__file__).parents[3] / "docs" / "reference" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_errors_are_documented_in_the_shape_they_have(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400 and name != "get /health/ready":
                is_openai = " /v1/" in name
                shape = "application/json" if is_openai else "application/problem+json"
                assert set(answer["content"]) == {shape}, (name, status)
    assert set(document["components"]["schemas"]["Problem"]["properties"]) == {
        "type", "title", "status", "detail", "code", "request_id",
    }  # fmt: skip


def test_every_operation_says_what_it_does_and_what_it_answers(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        assert operation["description"].endswith("."), name
        successes = [answer for status, answer in operation["responses"].items() if status < "300"]
        assert all(kind["schema"] for kind in successes[0]["content"].values()), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            found = [value["$ref"]] if "$ref" in value else []
            return found + [each for inner in value.values() for each in references(inner)]
        if isinstance(value, list):
            return [each for inner in value for each in references(inner)]
        return []

    named = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(references(document)) <= named


def test_the_document_is_the_one_that_callers_know(document: dict[str, Any]) -> None:
    known = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(document)) == known, "the contract changed: `make docs` renews it"


def test_operations_have_names_that_code_and_tools_can_use(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name), name


def test_every_operation_has_a_summary_and_a_tag_that_is_explained(
    document: dict[str, Any],
) -> None:
    for name, operation in operations(document):
        assert operation["summary"], name
        assert set(operation["tags"]) <= TAGS.keys(), name


def test_json_that_is_sent_or_answered_is_shown_by_an_example(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, operation in operations(document):
        bodies = [operation.get("requestBody", {"content": {}})]
        bodies += [answer for status, answer in operation["responses"].items() if status < "300"]
        for body in bodies:
            reference = body["content"].get("application/json", {}).get("schema", {}).get("$ref")
            if reference is not None:
                schema = schemas[reference.rpartition("/")[2]]
                assert _is_shown(schema, schemas), f"{name}: {reference} has no example"


def _is_shown(schema: dict[str, Any], schemas: dict[str, Any]) -> bool:
    """Whether a schema has an example, or what it lists has one."""
    if "examples" in schema:
        return True
    listed = [
        field["items"]["$ref"].rpartition("/")[2]
        for field in schema.get("properties", {}).values()
        if "$ref" in field.get("items", {})
    ]
    return any("examples" in schemas[name] for name in listed)


def test_whoever_may_try_again_is_told_when(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, answer in operation["responses"].items():
            waits = status in ("429", "503", "507")
            assert ("Retry-After" in answer["headers"]) == waits, (name, status)
            assert "X-Request-ID" in answer["headers"]
