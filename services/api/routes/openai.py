"""The API for OpenAI's clients: each collection is a model."""

import asyncio
import base64
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from sse_starlette import EventSourceResponse

from ragcore.errors import (
    CollectionMismatch,
    CollectionNotFound,
    InvalidInput,
    Unavailable,
)
from ragcore.flows.embedding import Embedding
from ragcore.model import Collection, Message, Vector
from ragcore.rag import Rag
from ragcore.steps.fingerprints import require_same_embedding
from ragcore_api.asking import asker_of
from ragcore_api.chat import Chat, ChatStream, without_sources
from ragcore_api.deps import Caller, QueryCaller, RagDep
from ragcore_api.errors import problems
from ragcore_api.schemas.openai import (
    ChatIn,
    ChatMessageIn,
    ChatOut,
    EmbeddingOut,
    EmbeddingsIn,
    EmbeddingsOut,
    EmbeddingsUsageOut,
    ModelOut,
    ModelsOut,
)
from ragcore_api.schemas.values import MOST_QUESTION_CHARACTERS, CollectionName
from ragcore_api.streams import told
from ragcore_api.waiting import answered

router = APIRouter(prefix="/v1", tags=["openai"])

_PREFIX: Final = "ragcore/"
_MODEL: Final = re.compile(r"ragcore/([a-z0-9_-]{1,48})")
_MOST_TURNS: Final = 100
_MOST_CHARACTERS: Final = 500_000
_OPEN_WEBUI: Final = "x-openwebui-"
"""What the headers begin with by which Open WebUI tells of its user and chat."""

_PROBLEMS = problems(CollectionNotFound, InvalidInput, CollectionMismatch, Unavailable)


# --- models --------------------------------------------------------------------------------


@router.get(
    "/models", operation_id="list_models", summary="List models", responses=problems(Unavailable)
)
async def list_models(rag: RagDep, caller: QueryCaller) -> ModelsOut:
    """List the collections that the caller sees, each as a model that answers from it."""
    seen = [
        collection
        for collection, _, _ in await rag.collections()
        if caller.principal.sees(collection.name)
    ]
    return ModelsOut(data=sorted(map(_model, seen), key=lambda model: model.id))


@router.get(
    "/models/ragcore/{name}",
    operation_id="get_model",
    summary="Get a model",
    responses=problems(CollectionNotFound, Unavailable),
)
async def get_model(
    name: Annotated[CollectionName, Path()], rag: RagDep, caller: QueryCaller
) -> ModelOut:
    """Tell of one collection, as a model."""
    return _model(await rag.runtime.collections.get(caller.require_collection(name)))


def _model(collection: Collection) -> ModelOut:
    created = collection.created_at
    return ModelOut(
        id=_PREFIX + collection.name, created=0 if created is None else int(created.timestamp())
    )


def _collection_named(model: str, caller: Caller) -> str:
    """Return the collection that a model stands for. Raises CollectionNotFound, Forbidden."""
    found = _MODEL.fullmatch(model)
    if found is None:
        raise CollectionNotFound(
            f"there is no model {model!r}; a collection NAME is the model {_PREFIX}NAME, and "
            "`GET /v1/models` lists them"
        )
    return caller.require_collection(found[1])


# --- chat ----------------------------------------------------------------------------------


@router.post(
    "/chat/completions",
    operation_id="create_chat_completion",
    summary="Answer in a chat",
    response_model=ChatOut,
    responses={
        200: {
            "description": "The answer; with `stream`, pieces of it.",
            "content": {
                "text/event-stream": {
                    "schema": {
                        "description": "Chunks of a chat completion in lines `data: …`, the last "
                        "one `data: [DONE]`; or, at any point, an error, which is the last.",
                    }
                }
            },
        },
        **_PROBLEMS,
    },
)
async def create_chat_completion(
    asked: ChatIn, request: Request, rag: RagDep, caller: QueryCaller
) -> Response:
    """Answer the last message of the user from a collection's documents, with its sources.

    The sources stand in a list after the answer. Open WebUI, known by its `X-OpenWebUI-…` headers,
    is streamed them as `event` lines instead, which other clients would not understand.
    """
    collection = _collection_named(asked.model, caller)
    history, question = _conversation_in(asked.messages)
    chat = Chat.about(question, model=asked.model)
    asker = asker_of(request, caller, user=asked.user)
    if not asked.stream:
        return await answered(
            request,
            rag.ask(question, collection=collection, history=history, asker=asker),
            lambda answer: Response(
                chat.whole(answer).model_dump_json(), media_type="application/json"
            ),
        )
    options = asked.stream_options
    stream = ChatStream(
        chat,
        includes_usage=options is not None and options.include_usage is True,
        is_open_webui=any(name.startswith(_OPEN_WEBUI) for name in request.headers),
    )
    events = rag.ask_stream(question, collection=collection, history=history, asker=asker)
    # The first event comes before the status: what can't be answered at all is an error.
    return await answered(
        request,
        anext(events),
        lambda first: EventSourceResponse(
            told(first, events, request, tell=stream.tell, fail=stream.fail), sep="\n"
        ),
    )


def _conversation_in(messages: Sequence[ChatMessageIn]) -> tuple[Sequence[Message], str]:
    """Return the latest turns before the user's last message, and the question it asks.

    What the system and tools say is no part of it. Raises InvalidInput.
    """
    places = [place for place, message in enumerate(messages) if message.role == "user"]
    if not places:
        raise InvalidInput("no message has the role 'user': there is no question")
    turns = [turn for message in messages[: places[-1]] if (turn := _turn(message))]
    return turns[-_MOST_TURNS:], _question_in(messages[places[-1]])


def _turn(message: ChatMessageIn) -> Message | None:
    text = _text_of(message)
    if message.role == "user" and text:
        return Message("user", text)
    if message.role == "assistant" and text:
        return Message("assistant", without_sources(text))
    return None


def _question_in(asked: ChatMessageIn) -> str:
    if isinstance(asked.content, list):
        kinds = {part.type for part in asked.content} - {"text"}
        if kinds:
            raise InvalidInput(f"the question has parts of type {min(kinds)[:50]!r}; send text")
    question = _text_of(asked)
    if not question.strip():
        raise InvalidInput("the last message of the user is empty: there is no question")
    if len(question) > MOST_QUESTION_CHARACTERS:
        raise InvalidInput(f"the question is over {MOST_QUESTION_CHARACTERS} characters")
    return question


def _text_of(message: ChatMessageIn) -> str:
    if isinstance(message.content, list):
        return "\n".join(part.text for part in message.content if part.text)
    return message.content or ""


# --- embeddings ----------------------------------------------------------------------------


@router.post(
    "/embeddings",
    operation_id="create_embeddings",
    summary="Embed texts",
    response_model=EmbeddingsOut,
    responses=_PROBLEMS,
)
async def create_embeddings(asked: EmbeddingsIn, rag: RagDep, caller: QueryCaller) -> Response:
    """Return a unit vector for each text, by the embedding model of a collection.

    A text that is too long for the model is read in parts. Nothing is stored.
    """
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    if sum(map(len, texts)) > _MOST_CHARACTERS:
        raise InvalidInput(f"the input is over {_MOST_CHARACTERS} characters; send it in parts")
    await _require_model(rag, _collection_named(asked.model, caller), asked.dimensions)
    # Without the cache of documents: what strangers send would stay there.
    embedding = Embedding(rag.runtime.model)
    if asked.input_type == "query":
        vectors = [await embedding.embed_query(text) for text in texts]
    else:
        vectors = list(await embedding.embed_documents(texts))
    # In a thread: the numbers of two thousand vectors are fifteen megabytes.
    answer = await asyncio.to_thread(_written, asked, texts, vectors, embedding.count_tokens)
    return Response(answer, media_type="application/json")


def _written(
    asked: EmbeddingsIn,
    texts: Sequence[str],
    vectors: Sequence[Vector],
    count_tokens: Callable[[str], int],
) -> str:
    tokens = sum(map(count_tokens, texts))
    encode = _in_base64 if asked.encoding_format == "base64" else _as_numbers
    return EmbeddingsOut(
        data=[
            EmbeddingOut(index=index, embedding=encode(vector))
            for index, vector in enumerate(vectors)
        ],
        model=asked.model,
        usage=EmbeddingsUsageOut(prompt_tokens=tokens, total_tokens=tokens),
    ).model_dump_json()


async def _require_model(rag: Rag, collection: str, dimensions: int | None) -> None:
    """Raise CollectionNotFound, CollectionMismatch, and InvalidInput for other dimensions."""
    found = await rag.runtime.collections.get(collection)
    require_same_embedding(collection, found.embedding, rag.runtime.model.spec)
    if dimensions not in (None, found.embedding.dimension):
        raise InvalidInput(
            f"dimensions {dimensions!r}: vectors of collection {collection!r} have "
            f"{found.embedding.dimension}, and can't be shortened"
        )


def _as_numbers(vector: Vector) -> list[float]:
    return [float(number) for number in vector]


def _in_base64(vector: Vector) -> str:
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
