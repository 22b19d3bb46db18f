"""The workflows for n8n, looked at without n8n: whole, without secrets, and true to the API."""

import json
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY

HOME = REPOSITORY / "integrations" / "n8n"
FILES = sorted((HOME / "workflows").glob("*.json"))
CREDENTIALS = {each["id"]: each for each in json.loads((HOME / "credentials.json").read_text())}
OPENAPI = json.loads((REPOSITORY / "docs/reference/openapi.json").read_text())
ALERT = "ragcoreAlert0001"
VERSIONS = {
    "@n8n/n8n-nodes-langchain.chatTrigger": 1.1,
    "n8n-nodes-base.errorTrigger": 1,
    "n8n-nodes-base.httpRequest": 4.5,
    "n8n-nodes-base.if": 2.3,
    "n8n-nodes-base.respondToWebhook": 1.5,
    "n8n-nodes-base.scheduleTrigger": 1.2,
    "n8n-nodes-base.set": 3.4,
    "n8n-nodes-base.stickyNote": 1,
    "n8n-nodes-base.stopAndError": 1,
    "n8n-nodes-base.wait": 1.1,
    "n8n-nodes-base.webhook": 2.1,
}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Any:
    return json.loads(request.param.read_text())


def requests_of(workflow: Any) -> list[Any]:
    return [node for node in workflow["nodes"] if node["type"] == "n8n-nodes-base.httpRequest"]


def test_there_are_seven_with_ids_of_their_own() -> None:
    workflows = [json.loads(path.read_text()) for path in FILES]
    ids = [workflow["id"] for workflow in workflows]
    assert len(set(ids)) == len(ids) == 7
    assert all(re.fullmatch(r"[A-Za-z0-9]{16}", each) for each in [*ids, *CREDENTIALS])
    nodes = [node["id"] for workflow in workflows for node in workflow["nodes"]]
    assert len(set(nodes)) == len(nodes)


def test_nodes_are_of_known_types_and_versions(workflow: Any) -> None:
    assert {(n["type"], n["typeVersion"]) for n in workflow["nodes"]} <= set(VERSIONS.items())
    assert any(node["type"].endswith("stickyNote") for node in workflow["nodes"])


def test_connections_join_nodes_that_exist(workflow: Any) -> None:
    names = [node["name"] for node in workflow["nodes"]]
    assert len(set(names)) == len(names)
    targets = {
        target["node"]
        for connection in workflow["connections"].values()
        for output in connection["main"]
        for target in output
    }
    assert set(workflow["connections"]) | targets <= set(names)
    triggers = {n["name"] for n in workflow["nodes"] if is_start(n)}
    notes = {n["name"] for n in workflow["nodes"] if n["type"].endswith("stickyNote")}
    assert set(names) - targets == triggers | notes


def is_start(node: Any) -> bool:
    return str(node["type"]).endswith(("Trigger", ".webhook"))


def test_credentials_are_named_and_hold_no_secret(workflow: Any) -> None:
    for node in workflow["nodes"]:
        for kind, named in node.get("credentials", {}).items():
            declared = CREDENTIALS[named["id"]]
            assert (declared["type"], declared["name"]) == (kind, named["name"])
    for credential in CREDENTIALS.values():
        literals = {v for v in credential["data"].values() if not str(v).startswith("${")}
        assert literals <= {"X-API-Key", "X-Webhook-Key", "X-Report-Key", 5432, "disable"}


def test_every_webhook_asks_who_calls(workflow: Any) -> None:
    for node in workflow["nodes"]:
        if node["type"].endswith((".webhook", "chatTrigger")):
            assert node["parameters"]["authentication"] in {"headerAuth", "basicAuth"}
            assert node["credentials"]


def test_no_address_is_written_out(workflow: Any) -> None:
    assert "://" not in json.dumps(workflow)


def test_requests_have_a_time_limit_tries_and_an_error_branch(workflow: Any) -> None:
    for node in requests_of(workflow):
        assert 0 < node["parameters"]["options"]["timeout"] <= 300_000
        assert node["retryOnFail"] and 2 <= node["maxTries"] <= 5
        assert node["onError"] == "continueErrorOutput"
        (_, errors) = workflow["connections"][node["name"]]["main"]
        assert errors, node["name"]


def test_failures_go_to_the_alert(workflow: Any) -> None:
    expected = None if workflow["id"] == ALERT else ALERT
    assert workflow["settings"].get("errorWorkflow") == expected


def test_requests_are_of_the_api(workflow: Any) -> None:
    for node in requests_of(workflow):
        parameters = node["parameters"]
        url = parameters["url"].removeprefix("=")
        if url.startswith("${RAGCORE_URL}"):
            path = url.removeprefix("${RAGCORE_URL}").replace("{{ $json.job_id }}", "{job_id}")
            check_request(OPENAPI["paths"][path][parameters["method"].lower()], parameters)


def check_request(operation: Any, parameters: Any) -> None:
    """Names in the query, the headers and the body are those of the operation."""
    known = {(each["in"], each["name"].lower()) for each in operation.get("parameters", [])}
    sent = {("query", name) for name in names_in(parameters, "queryParameters")} | {
        ("header", name.lower()) for name in names_in(parameters, "headerParameters")
    }
    assert sent <= known
    bodies = operation.get("requestBody", {}).get("content", {})
    if parameters.get("contentType") == "multipart-form-data":
        fields = properties(bodies["multipart/form-data"]["schema"])
        assert set(names_in(parameters, "bodyParameters")) <= fields
    elif "jsonBody" in parameters:
        fields = properties(bodies["application/json"]["schema"])
        assert set(re.findall(r"[{,] (\w+): ", parameters["jsonBody"])) <= fields


def names_in(parameters: Any, group: str) -> list[str]:
    return [each["name"] for each in parameters.get(group, {}).get("parameters", [])]


def properties(schema: Any) -> set[str]:
    if "$ref" in schema:
        schema = OPENAPI["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return set(schema["properties"])


def test_filling_in_leaves_no_name_open_and_refuses_what_would_break_out() -> None:
    tool = runpy.run_path(str(HOME / "import_workflows.py"))
    values = tool["DEFAULTS"] | {"RAGCORE_URL": "http://127.0.0.1:8700/"}
    for path in FILES:
        filled = json.dumps(tool["filled_workflow"](path, values))
        assert not re.search(r"\$\{[A-Z]", filled)
        assert "8700//" not in filled
    with pytest.raises(ValueError, match="RAGCORE_COLLECTION"):
        tool["filled_workflow"](Path(FILES[0]), values | {"RAGCORE_COLLECTION": "' + $env.X + '"})
