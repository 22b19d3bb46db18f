"""What OpenAI's clients send, and what they understand."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ragcore_api.schemas.values import Out, examples

ModelName = Annotated[
    str,
    Field(
        max_length=200,
        description="`ragcore/COLLECTION`; `GET /v1/models` lists them.",
        examples=["ragcore/default"],
    ),
]

_Text = Annotated[str, Field(min_length=1, max_length=100_000)]


class OpenAIIn(BaseModel):
    """Types are checked strictly; parameters that are not named here are left alone.

    OpenAI's clients send many of them (`temperature`, `tools`, `user` …), and new ones every year.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


# --- models --------------------------------------------------------------------------------

_MODEL = {"id": "ragcore/default", "object": "model", "created": 1767225600, "owned_by": "ragcore"}


class ModelOut(Out):
    """A collection, as a model that answers from it."""

    model_config = examples(_MODEL)

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Seconds since 1970.")
    owned_by: str = "ragcore"


class ModelsOut(Out):
    object: Literal["list"] = "list"
    data: list[ModelOut]


# --- chat ----------------------------------------------------------------------------------


class PartIn(OpenAIIn):
    """A part of a message; only those of type `text` are read."""

    type: str
    text: str | None = None


class ChatMessageIn(OpenAIIn):
    role: Literal["developer", "system", "user", "assistant", "tool", "function"]
    content: str | list[PartIn] | None = None


class StreamOptionsIn(OpenAIIn):
    include_usage: bool | None = None


class ResponseFormatIn(OpenAIIn):
    type: Literal["text"]


class ChatIn(OpenAIIn):
    """A conversation that ends in a question.

    The last message of the user is the question. What steers a model's wording (`temperature`,
    `max_tokens`, `stop` …) and `tools` are ignored: the service decides, and calls no tools.
    """

    model_config = examples(
        {
            "model": "ragcore/default",
            "messages": [{"role": "user", "content": "When does the last ferry leave?"}],
        },
        {
            "model": "ragcore/reports",
            "messages": [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": "What grew?"},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )

    model: ModelName
    messages: list[ChatMessageIn] = Field(min_length=1, max_length=1000)
    stream: bool | None = None
    stream_options: StreamOptionsIn | None = None
    user: str | None = Field(default=None, description="Who asks, for the trace of the answer.")
    n: int | None = Field(default=None, ge=1, le=1, description="There is one answer.")
    tool_choice: Literal["none", "auto"] | None = Field(
        default=None, description="No tool is ever called, so none can be required."
    )
    response_format: ResponseFormatIn | None = Field(
        default=None, description="Only `text`: an answer with citations is no JSON."
    )


class ChatUsageOut(Out):
    """Tokens as the language model counts them; 0 where there is none."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatMessageOut(Out):
    role: Literal["assistant"] = "assistant"
    content: str = Field(description="The answer, and a list of its sources.")
    refusal: None = None


class ChoiceOut(Out):
    index: int = 0
    message: ChatMessageOut
    logprobs: None = None
    finish_reason: Literal["stop"] = "stop"


class ChatOut(Out):
    """An answer, as a chat completion."""

    model_config = examples(
        {
            "id": "chatcmpl-4c1f0f3e6d0b4a43a8f6f0c0f6f1a2b3",
            "object": "chat.completion",
            "created": 1767225600,
            "model": "ragcore/default",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "On Sundays the last ferry leaves at 21:40. [1]\n\n"
                        "Sources:\n- [1] Winter timetable, p. 3",
                        "refusal": None,
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            "trace_id": None,
        }
    )

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int = Field(description="Seconds since 1970.")
    model: str
    choices: list[ChoiceOut]
    usage: ChatUsageOut
    trace_id: str | None = Field(
        description="For `POST /feedback`; null where nothing is traced. In a stream it is in the"
        " chunk with the `finish_reason`."
    )


# --- embeddings ----------------------------------------------------------------------------


class EmbeddingsIn(OpenAIIn):
    """Texts to be embedded by a collection's model."""

    model_config = examples(
        {"model": "ragcore/default", "input": ["The last ferry leaves at 21:40."]},
        {"model": "ragcore/default", "input": "When is the last ferry?", "input_type": "query"},
    )

    model: ModelName
    input: _Text | Annotated[list[_Text], Field(min_length=1, max_length=2048)] = Field(
        description="A text, or up to 2048: 500,000 characters together. Not tokens."
    )
    encoding_format: Literal["float", "base64"] | None = Field(
        default=None, description="Numbers, or the bytes of little-endian 32-bit floats."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="Must be those of the collection's vectors."
    )
    input_type: Literal["document", "query"] | None = Field(
        default=None,
        description="What the texts are: models that are told apart by prefixes embed questions "
        "otherwise than what is searched. Default: `document`. OpenAI has no such parameter.",
    )


class EmbeddingOut(Out):
    object: Literal["embedding"] = "embedding"
    index: int = Field(description="Of the text, from 0.")
    embedding: list[float] | str = Field(description="A unit vector, or base64 of its bytes.")


class EmbeddingsUsageOut(Out):
    prompt_tokens: int
    total_tokens: int


_EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0123, -0.0456]}],
    "model": "ragcore/default",
    "usage": {"prompt_tokens": 12, "total_tokens": 12},
}


class EmbeddingsOut(Out):
    """Vectors, in the order of the texts."""

    model_config = examples(_EMBEDDINGS)

    object: Literal["list"] = "list"
    data: list[EmbeddingOut]
    model: str
    usage: EmbeddingsUsageOut
