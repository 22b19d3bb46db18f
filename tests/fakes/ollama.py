"""A fake Ollama server: the real protocol over HTTP, behind it the bundled embedding model.

It stands in for a server and weights that can't be installed with the tests. Vectors are real
(multilingual-e5-small) but not those of the models it claims to have. It fails on request, with
the words and status codes of the real one.
"""

import asyncio
import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self

from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.tokenizers import load_counter

QUERY_PREFIXES = ("search_query: ", "query: ")
DOCUMENT_PREFIXES = ("search_document: ", "passage: ")


@dataclass
class FakeModel:
    """What `/api/tags` and `/api/show` say about a model."""

    name: str
    digest: str = "0" * 64
    architecture: str = "nomic-bert-moe"
    context_length: int = 512
    parameters: str = ""
    capabilities: list[str] | None = field(default_factory=lambda: ["embedding"])
    tells_dimension: bool = True


@dataclass
class Reply:
    """A status and a JSON body, given after a wait."""

    status: int
    body: dict[str, Any]
    wait_seconds: float = 0.0


End = Literal["done", "cut", "early", "error", "garbage", "never"]
"""How a stream ends. cut: the connection breaks; early: without its last line; never: it waits
until the client hangs up."""


@dataclass
class Chat:
    """What a call of `/api/chat` answers, and how that ends."""

    text: str
    pieces: list[str] | None = None
    """As they are streamed; None: word by word."""
    ends: End = "done"
    done_reason: str = "stop"

    def lines(self, model: str) -> Iterator[dict[str, Any]]:
        pieces = re.findall(r"\s*\S+", self.text) if self.pieces is None else self.pieces
        for piece in pieces:
            yield _chat_line(model, piece) | {"done": False}
        if self.ends == "error":
            yield {"error": "llama runner process has terminated"}
        if self.ends == "done":
            yield self.whole(model) | _chat_line(model, "")

    def whole(self, model: str) -> dict[str, Any]:
        return _chat_line(model, self.text) | {
            "done": True,
            "done_reason": self.done_reason,
            "prompt_eval_count": 100,
            "eval_count": 20,
        }


def _chat_line(model: str, content: str) -> dict[str, Any]:
    return {
        "model": model,
        "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": content},
    }


@dataclass
class Stream:
    """A chat that is answered line by line."""

    chat: Chat
    model: str


class FakeOllama:
    """Serves on a free loopback port inside `with`."""

    def __init__(self, *models: FakeModel) -> None:
        self.models = models or (FakeModel("nomic-embed-text-v2-moe:latest"),)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failures: deque[Reply] = deque()
        """What the next embeddings and chats get, in order, before it works again."""
        self.chats: deque[str | Chat] = deque()
        """What the next calls of `/api/chat` answer, in order; the words are the test's."""
        self.hung_up = threading.Event()
        """A client left in the middle of an answer that never ends."""
        self.poison: str | None = None
        """Texts that hold it end in the error of a vector that is not a number."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._embedder = BundledEmbedder(threads=1)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def embedded(self) -> list[str]:
        """Every text it was sent, prefixes included, in order of arrival."""
        return [
            text for path, body in self.requests if path == "/api/embed" for text in _texts(body)
        ]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        asyncio.run(self._embedder.aclose())

    def fail(self, status: int, message: str, *, times: int = 1) -> None:
        self.failures.extend([Reply(status, {"error": message})] * times)

    def hang(self, seconds: float) -> None:
        self.failures.append(Reply(503, {"error": "too late"}, wait_seconds=seconds))

    def answer(self, path: str, body: dict[str, Any]) -> "Reply | Stream":
        with self._lock:
            self.requests.append((path, body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            route = self._routes().get(path)
            return route(body) if route else Reply(404, {"error": "404 page not found"})
        finally:
            with self._lock:
                self._at_once -= 1

    @property
    def asked(self) -> list[list[dict[str, str]]]:
        """The messages of every chat, in order of arrival."""
        return [body["messages"] for path, body in self.requests if path == "/api/chat"]

    def _routes(self) -> dict[str, Callable[[dict[str, Any]], "Reply | Stream"]]:
        return {
            "/api/chat": self._chat,
            "/api/embed": self._embed,
            "/api/show": self._show,
            "/api/tags": self._tags,
            "/api/version": lambda _: Reply(200, {"version": "0.15.6"}),
        }

    def _model(self, body: dict[str, Any]) -> FakeModel | None:
        wanted = body.get("model")
        found = [m for m in self.models if wanted in (m.name, m.name.removesuffix(":latest"))]
        return found[0] if found else None

    def _failure(self) -> Reply | None:
        with self._lock:
            failure = self.failures.popleft() if self.failures else None
        if failure is not None:
            time.sleep(failure.wait_seconds)
        return failure

    def _chat(self, body: dict[str, Any]) -> "Reply | Stream":
        if (failure := self._failure()) is not None:
            return failure
        model = self._model(body)
        if model is None:
            return _not_found(body)
        with self._lock:
            next_chat = self.chats.popleft()
        chat = Chat(next_chat) if isinstance(next_chat, str) else next_chat
        if body.get("stream", True):
            return Stream(chat, model.name)
        return Reply(200, chat.whole(model.name))

    def _embed(self, body: dict[str, Any]) -> Reply:
        if (failure := self._failure()) is not None:
            return failure
        model = self._model(body)
        if model is None:
            return _not_found(body)
        texts = _texts(body)
        if any(self.poison is not None and self.poison in text for text in texts):
            return Reply(500, {"error": "failed to encode response: json: unsupported value: NaN"})
        tokens = [load_counter("bundled")(text) for text in texts]
        if max(tokens, default=0) > model.context_length:
            return Reply(400, {"error": "the input length exceeds the context length"})
        vectors = asyncio.run(self._vectors(texts))
        reply = {"model": model.name, "embeddings": vectors, "prompt_eval_count": sum(tokens)}
        return Reply(200, reply)

    async def _vectors(self, texts: list[str]) -> list[list[float]]:
        return [await self._vector(text) for text in texts]

    async def _vector(self, text: str) -> list[float]:
        for prefix in QUERY_PREFIXES:
            if text.startswith(prefix):
                vector = await self._embedder.embed_query(text.removeprefix(prefix))
                return [3.0 * float(x) for x in vector]  # not of unit length, as some models' are
        for prefix in DOCUMENT_PREFIXES:
            text = text.removeprefix(prefix)
        (vector,) = await self._embedder.embed_documents([text])
        return [3.0 * float(x) for x in vector]

    def _show(self, body: dict[str, Any]) -> Reply:
        model = self._model(body)
        if model is None:
            return _not_found(body)
        facts: dict[str, Any] = {
            "general.architecture": model.architecture,
            f"{model.architecture}.context_length": model.context_length,
        }
        if model.tells_dimension:
            facts[f"{model.architecture}.embedding_length"] = 384
        reply = {"parameters": model.parameters, "model_info": facts}
        if model.capabilities is not None:
            reply["capabilities"] = model.capabilities
        return Reply(200, reply)

    def _tags(self, _: dict[str, Any]) -> Reply:
        listed = [{"name": m.name, "model": m.name, "digest": m.digest} for m in self.models]
        return Reply(200, {"models": listed})


def _texts(body: dict[str, Any]) -> list[str]:
    texts = body["input"]
    return [texts] if isinstance(texts, str) else list(texts)


def _not_found(body: dict[str, Any]) -> Reply:
    return Reply(404, {"error": f'model "{body.get("model")}" not found, try pulling it first'})


def _handler(fake: FakeOllama) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # as in the real one: a stream of small writes

        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any]) -> None:
            answer = fake.answer(self.path, body)
            try:
                if isinstance(answer, Stream):
                    self._stream(answer)
                else:
                    self._whole(answer)
            except OSError:
                self.close_connection = True  # the client gave up waiting, or left lines unread
                if isinstance(answer, Stream):
                    fake.hung_up.set()

        def _whole(self, reply: Reply) -> None:
            content = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _stream(self, stream: Stream) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in stream.chat.lines(stream.model):
                self._chunk(json.dumps(line).encode() + b"\n")
            if stream.chat.ends == "garbage":
                self._chunk(b"<html>502</html>\n")
            if stream.chat.ends == "never":
                self.connection.recv(1)  # nothing more comes from a client but its end
                fake.hung_up.set()
            if stream.chat.ends in ("cut", "never"):
                self.close_connection = True
                return
            self._chunk(b"")

        def _chunk(self, content: bytes) -> None:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    return Handler
