"""A scripted Ollama: the real protocol over HTTP, behind it the bundled embedding model.

It stands in for a server and weights that can't be installed with the tests. Vectors are real
(multilingual-e5-small) but not those of the models it claims to have; answers are the test's own
words, or a sentence of the first passage. It fails as it is told to, with the words and status
codes of the real one.

In a test it is `with FakeOllama(...) as ollama`. It also runs as a process of its own:

    python tests/fakes/ollama.py --port 11500 --faults error=0.05,reset=0.05,truncated=0.1

and prints `ready http://127.0.0.1:11500` when it serves; SIGTERM ends it. `--port 0` takes a free
port. The share of requests (0…1) to `/api/embed`, `/api/chat` and `/api/generate` that go wrong:

    error      500 "llama runner process has terminated"
    busy       503 "server busy"
    memory     500 "model requires more system memory … than is available"
    nan        500 about a vector that is not a number (embeddings only)
    overflow   400 "the input length exceeds the context length"
    reset      the connection is reset before a byte of the answer
    timeout    nothing for `--hang-seconds`, then the connection is closed
    truncated  the connection breaks in the middle of the answer
    early      a stream ends in order, but without its last line
    broken     a stream ends with an error instead of its last line

Which requests those are is drawn with `--seed`. While it runs, `PUT /scripted/faults` with an
object such as `{"error": 0.5}` replaces the shares (`{}`: none), and `GET /scripted/counts` tells
how many requests met which fault, and how many none (`served`).
"""

import argparse
import asyncio
import json
import random
import re
import signal
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self, get_args

from ragcore.adapters.models.bundled import BundledEmbedder
from ragcore.adapters.models.tokenizers import load_counter

QUERY_PREFIXES = ("search_query: ", "query: ")
DOCUMENT_PREFIXES = ("search_document: ", "passage: ")

Fault = Literal[
    "error",
    "busy",
    "memory",
    "nan",
    "overflow",
    "reset",
    "timeout",
    "truncated",
    "early",
    "broken",
]
_FAULTY_PATHS = ("/api/embed", "/api/chat", "/api/generate")


LanguageModel = Callable[[list[dict[str, Any]], dict[str, Any]], Iterable[str]]
"""Writes an answer to messages, with Ollama's options, a piece at a time."""


@dataclass
class FakeModel:
    """What `/api/tags` and `/api/show` say about a model."""

    name: str
    digest: str = "0" * 64
    architecture: str = "nomic-bert-moe"
    context_length: int = 0
    """In tokens; 0: as long as is usual for a model of its architecture."""
    parameters: str = ""
    capabilities: list[str] | None = field(default_factory=lambda: ["embedding"])
    tells_dimension: bool = True
    size: int = 957_000_000
    """Bytes."""

    def __post_init__(self) -> None:
        self.context_length = self.context_length or (
            131_072 if self.architecture == "llama" else 512
        )


@dataclass
class Reply:
    """A status and a JSON body, given after a wait."""

    status: int
    body: dict[str, Any]
    wait_seconds: float = 0.0


@dataclass
class Broken:
    """No answer, or half of one."""

    fault: Literal["reset", "timeout", "truncated"]
    reply: Reply | None = None
    """What is cut off in the middle."""


End = Literal["done", "cut", "early", "error", "garbage", "never"]
"""How a stream ends. cut: the connection breaks; early: without its last line; never: it waits
until the client hangs up."""


@dataclass
class Chat:
    """What a call of `/api/chat` or `/api/generate` answers, and how that ends."""

    text: str
    pieces: Iterable[str] | None = None
    """As they are streamed; None: word by word."""
    ends: End = "done"
    done_reason: str = "stop"

    def words(self) -> Iterable[str]:
        return re.findall(r"\s*\S+", self.text) if self.pieces is None else self.pieces


@dataclass
class Stream:
    """Lines of JSON, one after another, and how they end."""

    lines: Iterator[dict[str, Any]]
    ends: End = "done"


class FakeOllama:
    """Serves on a loopback port inside `with`, a free one unless it is given."""

    def __init__(
        self,
        *models: FakeModel,
        available: Sequence[FakeModel] = (),
        faults: Mapping[Fault, float] | None = None,
        seed: int = 0,
        port: int = 0,
        hang_seconds: float = 30.0,
        delay_seconds: float = 0.0,
        token_seconds: float = 0.0,
        answers: Callable[[str], str] | None = None,
        language_model: LanguageModel | None = None,
    ) -> None:
        """`available` are models that can be pulled. `answers` words a chat that no test scripted,
        from the user's last message, `language_model` from all of them; without either such a chat
        is an error of the test.
        `delay_seconds` pass before each answer, `token_seconds` before each word of it.
        """
        self.models = list(models) or [FakeModel("nomic-embed-text-v2-moe:latest")]
        self.available = list(available)
        self.faults: dict[Fault, float] = dict(faults or {})
        self.counts: Counter[str] = Counter()
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.failures: deque[Reply | Broken] = deque()
        """What the next embeddings and chats get, in order, before it works again."""
        self.chats: deque[str | Chat] = deque()
        """What the next calls of `/api/chat` and `/api/generate` answer, in order."""
        self.answers = answers
        self._language_model = language_model
        self.is_waiting = threading.Event()
        """An answer that never ends has come to where it waits."""
        self.hung_up = threading.Event()
        """A client left in the middle of an answer that never ends."""
        self.poison: str | None = None
        """Texts that hold it end in the error of a vector that is not a number."""
        self.authorizations: list[str | None] = []
        """The header of each request."""
        self.most_at_once = 0
        self.hang_seconds = hang_seconds
        self._delay_seconds = delay_seconds
        self._token_seconds = token_seconds
        self._at_once = 0
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._loaded: set[str] = set()
        self._embedder = BundledEmbedder(threads=1)
        self._server = _Server(("127.0.0.1", port), _handler(self))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def embedded(self) -> list[str]:
        """Every text it was sent, prefixes included, in order of arrival."""
        return [
            text for path, body in self.requests if path == "/api/embed" for text in _texts(body)
        ]

    @property
    def asked(self) -> list[list[dict[str, str]]]:
        """The messages of every chat, in order of arrival."""
        return [body["messages"] for path, body in self.requests if path == "/api/chat"]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()
        asyncio.run(self._embedder.aclose())

    def fail(self, status: int, message: str, *, times: int = 1) -> None:
        self.failures.extend([Reply(status, {"error": message})] * times)

    def hang(self, seconds: float) -> None:
        self.failures.append(Reply(503, {"error": "too late"}, wait_seconds=seconds))

    def reset(self, *, times: int = 1) -> None:
        """Reset the connections of the next requests before a byte of the answer."""
        self.failures.extend([Broken("reset")] * times)

    def forget(self) -> None:
        """Forget what it was asked and told, as far as tests that share it could meet it."""
        self.requests.clear()
        self.failures.clear()
        self.chats.clear()
        self.faults.clear()
        self.counts.clear()
        self.is_waiting.clear()
        self.hung_up.clear()
        self.poison = None
        self.most_at_once = 0
        self.authorizations.clear()

    def wait(self, seconds: float) -> None:
        """Wait, unless the server ends meanwhile."""
        if seconds > 0:
            self._ended.wait(seconds)

    def answer(self, method: str, path: str, body: dict[str, Any]) -> "Reply | Broken | Stream":
        with self._lock:
            self.requests.append((path, body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            route = self._routes().get((method, path))
            if route is None:
                return Reply(404, {"error": "404 page not found"})
            return self._faulty(route, body) if path in _FAULTY_PATHS else route(body)
        finally:
            with self._lock:
                self._at_once -= 1

    def _routes(self) -> dict[tuple[str, str], Callable[[dict[str, Any]], "Reply | Stream"]]:
        return {
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/embed"): self._embed,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/pull"): self._pull,
            ("DELETE", "/api/delete"): self._delete,
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("GET", "/api/version"): lambda _: Reply(200, {"version": "0.15.6"}),
            ("GET", "/scripted/counts"): lambda _: Reply(200, dict(self.counts)),
            ("PUT", "/scripted/faults"): self._set_faults,
        }

    # --- what goes wrong ---------------------------------------------------------------

    def _faulty(
        self, route: Callable[[dict[str, Any]], "Reply | Stream"], body: dict[str, Any]
    ) -> "Reply | Broken | Stream":
        with self._lock:
            failure = self.failures.popleft() if self.failures else None
            fault = None if failure is not None else self._draw("input" in body)
            self.counts[fault or "served"] += 1
        self.wait(self._delay_seconds)
        if isinstance(failure, Reply):
            self.wait(failure.wait_seconds)
        if failure is not None:
            return failure
        if fault in _FAULT_REPLIES:
            return _FAULT_REPLIES[fault]
        if fault == "reset" or fault == "timeout":
            return Broken(fault)
        return _spoiled(route(body), fault)

    def _draw(self, is_embedding: bool) -> Fault | None:
        """Choose what happens to a request: one fault at most, by their shares."""
        point = self._random.random()
        for fault, share in self.faults.items():
            point -= share
            if point < 0:
                fits = fault not in (("early", "broken") if is_embedding else ("nan",))
                return fault if fits else None
        return None

    def _set_faults(self, body: dict[str, Any]) -> Reply:
        try:
            self.faults = checked_faults(body)
        except ValueError as error:
            return Reply(400, {"error": str(error)})
        return Reply(200, dict(self.faults))

    # --- models ------------------------------------------------------------------------

    def _model(self, body: dict[str, Any]) -> FakeModel | None:
        return _named(self.models, body)

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
        return Reply(200, {"models": [_listed(model) for model in self.models]})

    def _ps(self, _: dict[str, Any]) -> Reply:
        loaded = [_listed(model) for model in self.models if model.name in self._loaded]
        more = {"expires_at": "2026-01-01T00:05:00Z", "size_vram": 0}
        return Reply(200, {"models": [entry | more for entry in loaded]})

    def _pull(self, body: dict[str, Any]) -> "Reply | Stream":
        model = _named(self.available, body) or self._model(body)
        lines = self._pulled(model)
        if body.get("stream", True):
            return Stream(lines)
        *_, last = lines
        return Reply(500 if "error" in last else 200, last)

    def _pulled(self, model: FakeModel | None) -> Iterator[dict[str, Any]]:
        yield {"status": "pulling manifest"}
        if model is None:
            yield {"error": "pull model manifest: file does not exist"}
            return
        layer = sha256(model.name.encode()).hexdigest()
        of_layer = {"status": f"pulling {layer[:12]}", "digest": f"sha256:{layer}"}
        for quarter in range(5):
            self.wait(self._token_seconds)
            yield of_layer | {"total": model.size, "completed": model.size * quarter // 4}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        with self._lock:
            if _named(self.models, {"model": model.name}) is None:
                self.models.append(model)
        yield {"status": "success"}

    def _delete(self, body: dict[str, Any]) -> Reply:
        model = self._model(body)
        if model is None:
            return Reply(404, {"error": f"model '{body.get('model')}' not found"})
        self.models.remove(model)
        return Reply(200, {})

    # --- answers -----------------------------------------------------------------------

    def _chat(self, body: dict[str, Any]) -> "Reply | Stream":
        asked = body["messages"][-1]["content"] if body.get("messages") else ""
        return self._written(
            body, asked, lambda words: {"message": {"role": "assistant", "content": words}}
        )

    def _generate(self, body: dict[str, Any]) -> "Reply | Stream":
        return self._written(body, body.get("prompt", ""), lambda words: {"response": words})

    def _written(
        self, body: dict[str, Any], asked: str, shape: Callable[[str], dict[str, Any]]
    ) -> "Reply | Stream":
        model = self._model(body)
        if model is None:
            return _not_found(body)
        self._loaded.add(model.name)
        chat = self._next_chat(body, asked)
        stamp = {"model": model.name, "created_at": "2026-01-01T00:00:00Z"}
        end = {
            "done": True,
            "done_reason": chat.done_reason,
            "prompt_eval_count": 100,
            "eval_count": 20,
        }

        def lines() -> Iterator[dict[str, Any]]:
            for words in chat.words():
                self.wait(self._token_seconds)
                yield stamp | shape(words) | {"done": False}
            if chat.ends == "error":
                yield {"error": "llama runner process has terminated"}
            if chat.ends == "done":
                yield stamp | shape("") | end

        if body.get("stream", True):
            return Stream(lines(), chat.ends)
        return Reply(200, stamp | shape(chat.text or "".join(chat.words())) | end)

    def _next_chat(self, body: dict[str, Any], asked: str) -> Chat:
        with self._lock:
            if self.chats or (self.answers is None and self._language_model is None):
                scripted = self.chats.popleft()
                return Chat(scripted) if isinstance(scripted, str) else scripted
        if self._language_model is not None:
            messages = body.get("messages") or [{"role": "user", "content": asked}]
            return Chat("", pieces=self._language_model(messages, body.get("options") or {}))
        assert self.answers is not None
        return Chat(self.answers(asked))

    # --- vectors -----------------------------------------------------------------------

    def _embed(self, body: dict[str, Any]) -> Reply:
        model = self._model(body)
        if model is None:
            return _not_found(body)
        self._loaded.add(model.name)
        texts = _texts(body)
        if any(self.poison is not None and self.poison in text for text in texts):
            return _FAULT_REPLIES["nan"]
        tokens = [load_counter("bundled")(text) for text in texts]
        if max(tokens, default=0) > model.context_length:
            if not body.get("truncate", True):
                return _FAULT_REPLIES["overflow"]
            texts = [text[: model.context_length] for text in texts]  # a token is a character
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


# --- the words of the real one -------------------------------------------------------------

_FAULT_REPLIES: dict[Any, Reply] = {
    "error": Reply(500, {"error": "llama runner process has terminated: exit status 2"}),
    "busy": Reply(
        503, {"error": "server busy, please try again.  maximum pending requests exceeded"}
    ),
    "memory": Reply(
        500,
        {"error": "model requires more system memory (5.6 GiB) than is available (3.1 GiB)"},
    ),
    "nan": Reply(500, {"error": "failed to encode response: json: unsupported value: NaN"}),
    "overflow": Reply(400, {"error": "the input length exceeds the context length"}),
}


def _spoiled(answer: "Reply | Stream", fault: Fault | None) -> "Reply | Broken | Stream":
    """Spoil the end of an answer."""
    if fault == "truncated" and isinstance(answer, Reply):
        return Broken("truncated", answer)
    if isinstance(answer, Stream) and fault in ("truncated", "early", "broken"):
        lines = list(answer.lines)
        kept = iter(lines[: max(1, len(lines) // 2)])
        if fault == "truncated":
            return Stream(kept, "cut")
        if fault == "early":
            return Stream(kept, "early")
        return Stream(iter([*kept, {"error": "an error was encountered while running the model"}]))
    return answer


def checked_faults(shares: Mapping[str, Any]) -> dict[Fault, float]:
    """Return shares of known faults. Raises ValueError."""
    if unknown := set(shares) - set(get_args(Fault)):
        raise ValueError(f"no such faults: {sorted(unknown)}; there are {get_args(Fault)}")
    faults: dict[Fault, float] = {fault: float(share) for fault, share in shares.items()}  # type: ignore[misc]
    if not all(0 <= share <= 1 for share in faults.values()) or sum(faults.values()) > 1:
        raise ValueError(f"shares are 0…1, and no more than 1 together: {faults}")
    return faults


def _named(models: Sequence[FakeModel], body: dict[str, Any]) -> FakeModel | None:
    wanted = body.get("model")
    found = [m for m in models if wanted in (m.name, m.name.removesuffix(":latest"))]
    return found[0] if found else None


def _listed(model: FakeModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "digest": model.digest,
        "size": model.size,
        "modified_at": "2026-01-01T00:00:00Z",
        "details": {
            "format": "gguf",
            "family": model.architecture,
            "parameter_size": "475M",
            "quantization_level": "F16",
        },
    }


def _texts(body: dict[str, Any]) -> list[str]:
    texts = body["input"]
    return [texts] if isinstance(texts, str) else list(texts)


def _not_found(body: dict[str, Any]) -> Reply:
    return Reply(404, {"error": f'model "{body.get("model")}" not found, try pulling it first'})


# --- HTTP ----------------------------------------------------------------------------------


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that broke: most were broken on purpose."""


def _handler(fake: FakeOllama) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # as in the real one: a stream of small writes

        def do_HEAD(self) -> None:
            self._whole(Reply(200, {}))

        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        do_DELETE = do_PUT = do_POST  # noqa: N815  # the names are http.server's

        def _reply(self, body: dict[str, Any]) -> None:
            fake.authorizations.append(self.headers["Authorization"])
            answer = fake.answer(self.command, self.path, body)
            try:
                if isinstance(answer, Stream):
                    self._stream(answer)
                elif isinstance(answer, Broken):
                    self._break(answer)
                else:
                    self._whole(answer)
            except OSError:
                self.close_connection = True  # the client gave up waiting, or left lines unread
                if isinstance(answer, Stream):
                    fake.hung_up.set()

        def _whole(self, reply: Reply, *, part: float = 1.0) -> None:
            content = json.dumps(reply.body).encode()
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: int(part * len(content))])

        def _break(self, broken: Broken) -> None:
            self.close_connection = True
            if broken.fault == "timeout":
                fake.wait(fake.hang_seconds)
            elif broken.fault == "truncated" and broken.reply is not None:
                self._whole(broken.reply, part=0.5)
            else:
                # Closed without lingering, the other side is told of a reset and not of an end.
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()

        def _stream(self, stream: Stream) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/x-ndjson")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for line in stream.lines:
                self._chunk(json.dumps(line).encode() + b"\n")
            if stream.ends == "garbage":
                self._chunk(b"<html>502</html>\n")
            if stream.ends == "never":
                fake.is_waiting.set()
                self.connection.recv(1)  # nothing more comes from a client but its end
                fake.hung_up.set()
            if stream.ends in ("cut", "never"):
                self.close_connection = True
                return
            self._chunk(b"")

        def _chunk(self, content: bytes) -> None:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    return Handler


# --- a process of its own ------------------------------------------------------------------

_PASSAGE = re.compile(
    r"^[^\n]*\[1\][^\n]*\n(?P<text>.*?)\n[^\n]*\[[12]\]", re.MULTILINE | re.DOTALL
)


def quoting(asked: str) -> str:
    """Answer a prompt with the first sentence of its first passage, cited."""
    passage = _PASSAGE.search(asked)
    if passage is None:
        return asked.strip().rpartition("\n")[2] or "?"
    return re.split(r"(?<=[.!?])\s", passage["text"].strip(), maxsplit=1)[0] + " [1]"


def _read_faults(text: str) -> dict[Fault, float]:
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    return checked_faults({name.strip(): share for name, _, share in pairs})


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A scripted Ollama on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--faults", type=_read_faults, default={}, help="error=0.05,reset=0.1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hang-seconds", type=float, default=30.0, help="of `timeout`")
    parser.add_argument("--delay-seconds", type=float, default=0.0, help="before each answer")
    parser.add_argument("--token-seconds", type=float, default=0.0, help="before each word")
    parser.add_argument("--embedding-models", default="nomic-embed-text-v2-moe", help="a,b")
    parser.add_argument("--chat-models", default="llama3.2", help="a,b")
    return parser.parse_args()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    arguments = _arguments()
    models = [FakeModel(_tagged(name)) for name in arguments.embedding_models.split(",") if name]
    models += [
        FakeModel(
            _tagged(name),
            digest="1" * 64,
            architecture="llama",
            capabilities=["completion"],
        )
        for name in arguments.chat_models.split(",")
        if name
    ]
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    fake = FakeOllama(
        *models,
        faults=arguments.faults,
        seed=arguments.seed,
        port=arguments.port,
        hang_seconds=arguments.hang_seconds,
        delay_seconds=arguments.delay_seconds,
        token_seconds=arguments.token_seconds,
        answers=quoting,
    )
    with suppress(BrokenPipeError), fake:
        print(f"ready {fake.url}", flush=True)
        stop.wait()


def _tagged(name: str) -> str:
    return name if ":" in name else f"{name}:latest"


if __name__ == "__main__":
    main()
