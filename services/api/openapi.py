"""The OpenAPI document, completed by what the routes don't say one by one."""

from typing import Any, Final

from pydantic import BaseModel

from ragcore_api.auth import OPEN_PATHS
from ragcore_api.errors import MEDIA_TYPE, OPENAI_PREFIX
from ragcore_api.schemas.values import OpenAIError, OpenAIErrorOut, Problem

DESCRIPTION: Final = """\
Documents in, cited answers out.

Put a document in with `POST /ingest`, follow its job with `GET /jobs/{job_id}`, ask with
`POST /query`. Each sentence of an answer is tied to the passage that bears it out, with its page.

**Keys.** Send `Authorization: Bearer KEY` or `X-API-Key: KEY`; on loopback of an embedded stack
none is asked for. A key has scopes (`query` asks and reads, `ingest` takes documents in and out,
`admin` does everything) and sees some collections or all.

**Errors** are `application/problem+json`. Their `code` is stable; `detail` is for people. After
429, 503 and 507 wait for `Retry-After` seconds and send the same request again.

Under `/v1` they have OpenAI's shape, with the same codes.

**Lists** come in pages: send `next_cursor` back as `cursor` until it is null.
"""

TAGS: Final = {
    "questions": "Passages for a question, and answers that cite them.",
    "openai": "The same for clients of OpenAI's API: each collection is a model "
    "`ragcore/COLLECTION`.",
    "documents": "Documents on their way in, and those that are there: found, read, changed, "
    "deleted.",
    "jobs": "What became of documents on their way in.",
    "collections": "Named sets of documents that share an embedding model; the unit of access.",
    "access": "API keys, and the trail of who changed what.",
    "operation": "Whether the service lives, is ready, and which one it is.",
}
"""Every tag that a route has, in the order of a first reading."""

_ANY_ANSWER: Final = {
    "X-Request-ID": {
        "description": "The request's own, or one made for it; it stands in the log.",
        "schema": {"type": "string"},
    }
}
_RETRY_AFTER: Final = {
    "Retry-After": {
        "description": "Seconds to wait before the same request may succeed.",
        "schema": {"type": "integer"},
    }
}
_TOO_LARGE: Final = {
    "description": "Content Too Large: `body_too_large`",
    "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_SECURITY_SCHEMES: Final = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key, where `Authorization` is taken by a proxy.",
    },
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the shape of errors, the headers of answers, ways to show a key, and tags, in place.

    Safe to repeat on the same document.
    """
    components = document["components"]
    components["schemas"]["Problem"] = Problem.model_json_schema()
    components["schemas"] |= {
        schema.__name__: _schema_of(schema) for schema in (OpenAIError, OpenAIErrorOut)
    }
    components["securitySchemes"] = _SECURITY_SCHEMES
    document["security"] = [{name: []} for name in _SECURITY_SCHEMES]
    document["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in OPEN_PATHS:
                _open(operation)
            if "requestBody" in operation:
                operation["responses"].setdefault("413", dict(_TOO_LARGE))
            if path.startswith(OPENAI_PREFIX):
                _tell_errors_as_openai_does(operation)
            for status, answer in operation["responses"].items():
                headers = answer.setdefault("headers", {})
                headers |= _ANY_ANSWER | (_RETRY_AFTER if status in ("429", "503", "507") else {})
    return document


def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return schema


def _tell_errors_as_openai_does(operation: dict[str, Any]) -> None:
    shape = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIErrorOut"}}}
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            answer["content"] = shape


def _open(operation: dict[str, Any]) -> None:
    """Say that an operation asks for no key, takes no parameters, and is not limited."""
    operation["security"] = []
    for status in ("401", "422", "429"):
        operation["responses"].pop(status, None)
