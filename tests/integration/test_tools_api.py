"""The operations that a language model is given as tools, as OpenAPI tool servers read them."""

from collections.abc import Iterator
from typing import Any

import pytest

from apis import Api, running_api
from conftest import TestServer
from ragcore.embedded import EmbeddedServers


@pytest.fixture(scope="module")
def api(
    postgres_server: TestServer, migrated_template: str, embedded: EmbeddedServers
) -> Iterator[Api]:
    with running_api(
        postgres_server, template=migrated_template, redis_url=embedded.redis_url
    ) as api:
        api.ingest("The ferry leaves at 07:40.", document_id="ferry", collection="harbour")
        yield api


def test_they_are_few_and_complete_in_themselves(api: Api) -> None:
    answer = api.http.get("/tools/openapi.json")
    assert answer.status_code == 200
    operations = [
        operation for path in answer.json()["paths"].values() for operation in path.values()
    ]
    assert {operation["operationId"] for operation in operations} == {
        "search_passages",
        "answer_question",
        "list_collections",
        "list_documents",
        "get_document_content",
    }
    assert all(operation["description"] for operation in operations)
    assert "$ref" not in answer.text and "anyOf" not in str(_bodies(operations))
    assert len(answer.text) < 10_000  # it stands in every prompt


def _bodies(operations: list[Any]) -> list[Any]:
    return [operation.get("requestBody") for operation in operations]


def test_each_does_what_it_says_with_what_it_names(api: Api) -> None:
    """Called with nothing but the parameters that a model is told of."""
    paths = api.http.get("/tools/openapi.json").json()["paths"]
    for path in ("/search", "/query"):
        schema = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert schema["required"] == ["question"]
        assert set(schema["properties"]) == {"question", "collection", "top_k", "filters"}
        assert schema["properties"]["collection"]["type"] == "string"
        asked = {"question": "When does it leave?", "collection": "harbour", "top_k": 3}
        assert "07:40" in api.http.post(path, json=asked).text
    assert "harbour" in api.http.get("/collections").text
    told = {each["name"] for each in paths["/documents"]["get"]["parameters"]}
    assert told == {"collection", "limit", "cursor"}
    listed = api.http.get("/documents", params={"collection": "harbour"}).json()
    (document,) = listed["documents"]
    content = api.http.get(
        f"/documents/{document['document_id']}/content", params={"collection": "harbour"}
    )
    assert "07:40" in content.text


def test_they_take_a_key_that_may_ask(api: Api) -> None:
    nobody = api.http.get("/tools/openapi.json", headers={"X-API-Key": "rk_wrong"})
    assert nobody.status_code == 401
    taking = {"X-API-Key": "", **api.key("ingest")}
    assert api.http.get("/tools/openapi.json", headers=taking).status_code == 403
