"""Finished spans → Langfuse, in batches, from a thread of its own."""

import json
import logging
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Status

from ragcore.adapters.langfuse.content import ContentRules
from ragcore.adapters.langfuse.prices import Price

_KIND: Final = "openinference.span.kind"
_VALUES: Final = ("input.value", "input.mime_type", "output.value", "output.mime_type")
_DOCUMENT: Final = re.compile(r"retrieval\.documents\.(\d+)\.document\.(id|score|content|metadata)")
_BEGINS: Final = "First Token Stream Event"
"""Event that LlamaIndex's instrumentation puts on the span of a model that begins to write."""
_PROMPT: Final = "langfuse.observation.prompt."
_EXPORTER_LOGGER: Final = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
_COMPLAIN_EVERY_SECONDS: Final = 60.0

log = logging.getLogger(__name__)


class CarefulExporter(SpanExporter):
    """Sends what the content rules leave of each span, with what its tokens cost.

    What can't be sent is dropped, and said once a minute: by then the next spans wait.
    """

    def __init__(
        self, inner: SpanExporter, *, rules: ContentRules, prices: Mapping[str, Price]
    ) -> None:
        self._inner = inner
        self._rules = rules
        self._prices = prices
        self._complaint = _Complaint()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        told = [made for span in spans if (made := self._made_ready(span))]
        with _overheard() as reasons:
            result = self._inner.export(told)
        if result is not SpanExportResult.SUCCESS:
            self._complaint.add(len(spans), reasons[-1] if reasons else "it gives no reason")
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)

    def _made_ready(self, span: ReadableSpan) -> ReadableSpan | None:
        try:
            return self._told(span)
        except Exception:  # the edge of this thread: one odd span must not cost the others
            log.exception("span %r is not sent to Langfuse", span.name)
            return None

    def _told(self, span: ReadableSpan) -> ReadableSpan:
        attributes = _shown_well(span.name, dict(span.attributes or {}))
        if attributes.get(_KIND) == "LLM":
            attributes |= self._spent(attributes) | _first_token(span.events)
        else:  # it stands on the span that looked for it, to be passed on
            attributes = {k: v for k, v in attributes.items() if not k.startswith(_PROMPT)}
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._rules.attributes(attributes),
            events=[self._event(event) for event in span.events],
            links=span.links,
            kind=span.kind,
            status=self._status(span.status),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _spent(self, attributes: Mapping[str, Any]) -> dict[str, str]:
        """Return tokens and cost in Langfuse's words; none for a model without a price."""
        price = self._prices.get(str(attributes.get("llm.model_name")))
        if price is None:
            return {}
        read = int(attributes.get("llm.token_count.prompt") or 0)
        written = int(attributes.get("llm.token_count.completion") or 0)
        cost = price.details(read=read, written=written)
        return {
            "langfuse.observation.usage_details": json.dumps({"input": read, "output": written}),
            "langfuse.observation.cost_details": json.dumps(cost),
        }

    def _event(self, event: Event) -> Event:
        """Return an event without stack traces, which are the log's."""
        attributes = dict(event.attributes or {})
        attributes.pop("exception.stacktrace", None)
        kind = attributes.pop("exception.type", None)
        told = self._rules.attributes(attributes)
        return Event(event.name, told | ({"exception.type": kind} if kind else {}), event.timestamp)

    def _status(self, status: Status) -> Status:
        """Return the status; of an error's words only its class where no text is told."""
        said = status.description
        if not said:
            return status
        return Status(status.status_code, self._rules.text(said) or said.partition(":")[0][:100])


def _shown_well(name: str, attributes: dict[str, Any]) -> dict[str, Any]:
    """Say once, and where Langfuse looks for it, what the instrumentation says several times.

    It shows `input.value` and `output.value`, which hold the `repr` of messages and nodes.
    """
    kind = attributes.get(_KIND)
    if "._" in name:  # `RagQueryEngine._aquery` inside `RagQueryEngine.aquery`: the same once more
        return _without(attributes, *_VALUES)
    if kind == "LLM" and any(key.startswith("llm.input_messages.") for key in attributes):
        return _without(attributes, *_VALUES)
    if kind == "RETRIEVER":
        return _with_passages(_without(attributes, "output.value", "output.mime_type"))
    return attributes


def _with_passages(attributes: dict[str, Any]) -> dict[str, Any]:
    """Gather what was retrieved: which with what scores as metadata, with the texts as output."""
    found: dict[int, dict[str, Any]] = {}
    for key in list(attributes):
        if part := _DOCUMENT.fullmatch(key):
            found.setdefault(int(part[1]), {})[part[2]] = attributes[key]
            if part[2] in ("content", "metadata"):
                del attributes[key]
    passages = [_passage(each) for _, each in sorted(found.items())]
    texts = [
        {"score": each.get("score"), "text": each.get("content")}
        for _, each in sorted(found.items())
    ]
    return attributes | {
        "langfuse.observation.metadata.passages": json.dumps(passages),
        "langfuse.observation.output": json.dumps(texts, ensure_ascii=False),
    }


def _passage(told: Mapping[str, Any]) -> dict[str, Any]:
    try:
        metadata = json.loads(told.get("metadata", "{}"))
    except ValueError:  # so long that it was cut off
        metadata = {}
    return {
        "chunk_id": told.get("id"),
        "document_id": metadata.get("document_id"),
        "collection": metadata.get("collection"),
        "page": metadata.get("page"),
        "score": told.get("score"),
    }


def _without(attributes: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in attributes.items() if key not in keys}


def _first_token(events: Sequence[Event]) -> dict[str, str]:
    for event in events:
        if event.name == _BEGINS:
            at = datetime.fromtimestamp(event.timestamp / 1e9, UTC)
            return {"langfuse.observation.completion_start_time": at.isoformat()}
    return {}


# --- what the exporter says of a failure ---------------------------------------------------


class _Complaint:
    """Spans that could not be sent, counted up between two lines in the log."""

    def __init__(self) -> None:
        self._dropped = 0
        self._last = -_COMPLAIN_EVERY_SECONDS

    def add(self, spans: int, reason: str) -> None:
        self._dropped += spans
        now = time.monotonic()
        if now - self._last >= _COMPLAIN_EVERY_SECONDS:
            log.warning("%d spans could not be sent to Langfuse: %s", self._dropped, reason)
            self._dropped, self._last = 0, now


class _Ears(logging.Filter):
    """Keeps what the exporter says in our thread off the log, where it would stand for each batch.

    An application's own exporter uses the same logger, in other threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self._heard = threading.local()

    def filter(self, record: logging.LogRecord) -> bool:
        reasons: list[str] | None = getattr(self._heard, "reasons", None)
        if reasons is None:
            return True
        reasons.append(record.getMessage())
        return False

    @contextmanager
    def listening(self) -> Iterator[list[str]]:
        reasons: list[str] = []
        self._heard.reasons = reasons
        try:
            yield reasons
        finally:
            self._heard.reasons = None


_ears = _Ears()


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """Collect what the exporter logs inside the block."""
    logging.getLogger(_EXPORTER_LOGGER).addFilter(_ears)  # added once, however often
    with _ears.listening() as reasons:
        yield reasons
