"""A few of the operations as tools of a language model, for OpenAPI tool servers."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request

from ragcore import __version__
from ragcore_api.deps import QueryCaller

router = APIRouter(tags=["openai"])

_ANSWERING: Final = ("question", "collection", "top_k", "filters")

TOOLS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("/search", "post"): _ANSWERING,
    ("/query", "post"): _ANSWERING,
    ("/collections", "get"): (),
    ("/documents", "get"): ("collection", "limit", "cursor"),
    ("/documents/{document_id}/content", "get"): ("document_id", "collection"),
}
"""What a model may do, and which of the parameters it is told of: each costs room in a prompt."""


@router.get("/tools/openapi.json", operation_id="get_tools", summary="Get the tools")
async def get_tools(request: Request, caller: QueryCaller) -> dict[str, Any]:
    """Describe searching, asking and reading alone, as an OpenAPI document.

    For whoever gives tools to a language model, such as Open WebUI's tool servers. They call the
    operations themselves, with the same key.
    """
    return _described(request.app)


@cache
def _described(app: FastAPI) -> dict[str, Any]:
    document = app.openapi()
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), told in TOOLS.items():
        paths.setdefault(path, {})[method] = _tool(document, path, method, told)
    return {
        "openapi": document["openapi"],
        "info": {
            "title": "ragcore",
            "version": __version__,
            "description": "Search documents, answer from them with citations, read them.",
        },
        "paths": paths,
    }


def _tool(document: Mapping[str, Any], path: str, method: str, told: tuple[str, ...]) -> Any:
    """Return an operation with only these parameters, and nothing that refers elsewhere."""
    operation = document["paths"][path][method]
    tool = {name: operation[name] for name in ("operationId", "summary")}
    tool["description"] = operation["description"].partition("\n\n")[0]
    parameters = operation.get("parameters", ())
    if chosen := [each for each in parameters if each["name"] in told]:
        tool["parameters"] = chosen
    if body := operation.get("requestBody"):
        reference = body["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        wanted = {
            "type": "object",
            "required": schema["required"],
            "properties": {name: _plain(schema["properties"][name]) for name in told},
        }
        tool["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": wanted}},
        }
    return tool | {"responses": {"200": {"description": "The result, in JSON."}}}


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the first of several shapes: models do better with one."""
    first: Mapping[str, Any] = next(iter(schema.get("anyOf", ())), {})
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    return {**first, **rest}
