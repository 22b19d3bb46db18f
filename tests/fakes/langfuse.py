"""A Langfuse on loopback that decodes what is really sent: spans, scores; and serves prompts.

It can also hang, refuse, and be slow.
"""

import base64
import gzip
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

PUBLIC_KEY, SECRET_KEY = "pk-lf-test", "sk-lf-of-the-tests"


@dataclass
class Span:
    """One span as it came."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    status: str
    seconds: float

    def __getitem__(self, key: str) -> Any:
        return self.attributes[key]

    def metadata(self, name: str) -> Any:
        """Return a value from what Langfuse shows as metadata."""
        return json.loads(self.attributes[f"langfuse.observation.metadata.{name}"])


@dataclass
class FakeLangfuse:
    """The server; `with` it. What came is in `spans` and `scores`."""

    spans: list[Span] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    """Of all requests, unpacked."""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    prompts: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Text and version by name."""
    status: int = 0
    """Answered to every request; 0: what is right."""
    hangs: bool = False
    """Whether requests get no answer until `close`."""

    def __post_init__(self) -> None:
        self._came = threading.Condition()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Be as new, on the same port."""
        with self._came:
            for seen in (self.spans, self.scores, self.bodies, self.headers, self.prompts):
                seen.clear()
            self.status, self.hangs = 0, False

    def wait_for(self, is_there: Callable[[], bool]) -> None:
        """Return when enough has come."""
        with self._came:
            self._came.wait_for(is_there)

    def trace(self, trace_id: str, *, root: str) -> list[Span]:
        """Return a trace's spans, when its root has come, which is sent last."""

        def found() -> list[Span]:
            return [span for span in self.spans if span.trace_id == trace_id]

        self.wait_for(lambda: any(span.name == root for span in found()))
        return found()

    def wait_for_request(self) -> None:
        """Return when some request has come, be it answered or not."""
        self.wait_for(lambda: bool(self.headers))

    # --- what is answered ------------------------------------------------------------------

    def _take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        with self._came:
            self.headers.append(headers)
            self.bodies.append(body)
            if not self.status and not self.hangs:
                if path.endswith("/otel/v1/traces"):
                    is_json = headers.get("Content-Type", "").startswith("application/json")
                    self.spans += _spans(_export_in_json(body) if is_json else _export(body))
                elif path.endswith("/scores"):
                    told = json.loads(body)
                    self.scores += told if isinstance(told, list) else [told]
            self._came.notify_all()

    def _answer(self, url: str) -> tuple[int, Any]:
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        if self.hangs:
            self._closing.wait()
        if self.status:
            return self.status, {"message": "told to"}
        if path.endswith("/projects"):
            return 200, {"data": [_PROJECT]}
        if path.endswith("/v2/prompts"):
            return 200, self._listed(int(query["page"][0]))
        if "/v2/prompts/" in path:
            name = unquote(path.rpartition("/v2/prompts/")[2])
            text, version = self.prompts[name]
            return 200, _PROMPT | {"name": name, "prompt": text, "version": version}
        if path.endswith("/scores"):
            return 202, {"status": "accepted"}
        return 200, {}

    def _listed(self, page: int) -> dict[str, Any]:
        names = sorted(self.prompts)
        data = [_META | {"name": name} for name in names[page - 1 : page]]  # one a page
        meta = {"page": page, "limit": 1, "totalItems": len(names), "totalPages": len(names)}
        return {"data": data, "meta": meta}


_PROJECT = {
    "id": "p", "name": "tests", "organization": {"id": "o", "name": "o"}, "metadata": {},
}  # fmt: skip
_PROMPT = {"type": "text", "config": {}, "labels": ["production"], "tags": []}
_META = _PROMPT | {"versions": [1], "lastUpdatedAt": "2026-01-01T00:00:00Z", "lastConfig": {}}


def authorization() -> str:
    """What requests with the right keys show."""
    return "Basic " + base64.b64encode(f"{PUBLIC_KEY}:{SECRET_KEY}".encode()).decode()


def _export(body: bytes) -> ExportTraceServiceRequest:
    return ExportTraceServiceRequest.FromString(body)


def _export_in_json(body: bytes) -> ExportTraceServiceRequest:
    """Read OTLP in JSON, where ids are hexadecimal and not, as elsewhere in protobuf, base64."""

    def as_base64(found: dict[str, Any]) -> dict[str, Any]:
        ids = {name: found[name] for name in ("traceId", "spanId") if name in found}
        return found | {n: base64.b64encode(bytes.fromhex(v)).decode() for n, v in ids.items()}

    told = json.loads(body, object_hook=as_base64)
    return json_format.ParseDict(told, ExportTraceServiceRequest())


def _spans(request: ExportTraceServiceRequest) -> list[Span]:
    return [
        Span(
            name=span.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_id=span.parent_span_id.hex(),
            attributes={a.key: _value(a.value) for a in span.attributes},
            events=[(e.name, {a.key: _value(a.value) for a in e.attributes}) for e in span.events],
            status=span.status.message,
            seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        )
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def _handler(fake: FakeLangfuse) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._reply(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            self._reply(body)

        def _reply(self, body: bytes) -> None:
            fake._take(urlsplit(self.path).path, dict(self.headers), body)
            status, answer = fake._answer(self.path)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    return Handler
