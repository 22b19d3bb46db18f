"""What schemas are made of, and the shape of an error."""

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field

CollectionName = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,48}$", examples=["default"])]
DocumentId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:~-]{1,200}$")]
Box = tuple[float, float, float, float]


def examples(*values: Any) -> ConfigDict:
    """Return the configuration of a schema that shows these values in the OpenAPI document."""
    return ConfigDict(json_schema_extra={"examples": list(values)})


MOST_QUESTION_CHARACTERS: Final = 10_000
"""All of a question is embedded, at about a second of processor time for so many."""


class In(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    model_config = ConfigDict(frozen=True, from_attributes=True, validate_by_name=True)

    @classmethod
    def of(cls, value: object) -> Self:
        """Take a value of the library, field by field; aliases name the fields that differ."""
        return cls.model_validate(value)


class OpenAIError(Out):
    """What is wrong, as OpenAI tells it."""

    message: str
    type: str = Field(
        description="`invalid_request_error`, `authentication_error`, `permission_error`, "
        "`rate_limit_error` or `server_error`."
    )
    param: str | None = Field(description="The parameter at fault, where one is.")
    code: str = Field(description="Public and stable; listed in docs/reference/errors.md.")


class OpenAIErrorOut(Out):
    """An error under `/v1`, in OpenAI's shape."""

    model_config = examples(
        {
            "error": {
                "message": "there is no collection 'reports'",
                "type": "invalid_request_error",
                "param": None,
                "code": "collection_not_found",
            }
        }
    )

    error: OpenAIError


class Problem(Out):
    """An error, after RFC 9457."""

    model_config = examples(
        {
            "type": "urn:ragcore:problem:document_not_found",
            "title": "Not Found",
            "status": 404,
            "detail": "there is no document 'timetable' in collection 'default'",
            "code": "document_not_found",
            "request_id": "4c1f0f3e6d0b4a43a8f6f0c0f6f1a2b3",
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str = Field(description="Public and stable; listed in docs/reference/errors.md.")
    request_id: str
