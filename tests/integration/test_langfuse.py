"""Tracing through the real Langfuse SDK into a receiver that decodes what arrives."""

import asyncio
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ragcore.adapters.langfuse import langfuse_tracing
from ragcore.llamaindex.bridge import Bridged
from ragcore.llamaindex.query_engine import AnswererSynthesizer, RagQueryEngine
from ragcore.llamaindex.retriever import RagRetriever
from ragcore.model import Answer, Passage, SearchResult

FERRY = Passage("1", "ferry", "default", 0, "The ferry leaves at 07:40.", score=0.9)


class Receiver:
    """Where traces go: the names of the spans that came, or no answer at all."""

    def __init__(self, *, hangs: bool = False) -> None:
        self.spans: list[str] = []
        self.release = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if hangs:
                    receiver.release.wait()
                    return
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        receiver.spans += [span.name for span in scope.spans]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    receiver = Receiver(hangs=getattr(request, "param", False))
    yield receiver
    receiver.close()


class Echo:
    """An answerer that repeats the best passage."""

    name = "echo"

    async def answer(self, question: str, passages: list[Passage], **_: object) -> Answer:
        return Answer(passages[0].text, citations=(), passages=tuple(passages))


async def ask_once() -> Answer:
    async def search(question: str, **_: object) -> SearchResult:
        return SearchResult((FERRY,), timings_ms={})

    retriever = RagRetriever(Bridged.shared(search), collection="default")
    engine = RagQueryEngine(retriever, AnswererSynthesizer(Bridged.shared(Echo())))
    return await engine.ask("When does the ferry leave?")


async def test_a_question_is_seen_with_its_retrieval_and_its_answer(receiver: Receiver) -> None:
    async with langfuse_tracing(public_key="pk", secret_key="sk", url=receiver.url):
        answer = await ask_once()
    assert answer.text == FERRY.text
    assert any("RagQueryEngine" in name for name in receiver.spans)
    assert any("RagRetriever" in name for name in receiver.spans)
    assert any("AnswererSynthesizer" in name for name in receiver.spans)


@pytest.mark.parametrize("receiver", [True], indirect=True, ids=["hanging"])
async def test_a_server_that_hangs_holds_nobody_up(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    async with langfuse_tracing(public_key="pk2", secret_key="sk", url=receiver.url):
        answer = await ask_once()
    assert answer.text == FERRY.text
    assert not receiver.release.is_set()  # we left while it was still hanging


async def test_nothing_is_traced_after_the_block(receiver: Receiver) -> None:
    async with langfuse_tracing(public_key="pk3", secret_key="sk", url=receiver.url):
        pass
    await ask_once()
    await asyncio.sleep(0)
    assert receiver.spans == []
