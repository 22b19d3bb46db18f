"""`ports.Tracer` over OpenTelemetry, exported by Langfuse's own span processor.

ragcore makes the span of a question or a job. Inside a question the retriever, the synthesizer and
the language models are LlamaIndex's, and OpenInference's instrumentation of that makes their spans.
Langfuse's client class is not used: it keeps one client a process for each key, uploads media that
it finds in texts before anything is masked, and may wait for ever when the process ends.
"""

import asyncio
import hashlib
import json
import logging
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from ragcore import __version__
from ragcore.adapters.langfuse.connection import Connection, installed
from ragcore.adapters.langfuse.content import Content, ContentRules
from ragcore.adapters.langfuse.prices import Price
from ragcore.adapters.langfuse.scores import Score, ScoreSender
from ragcore.errors import NotConfigured
from ragcore.model import Answer, Asker, Feedback, Job, Stage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

    from ragcore.adapters.langfuse.ids import SealedIds

_SCOPE: Final = "ragcore"
_INSTRUMENTED: Final = "openinference.instrumentation.llama_index"
_GOODBYE_SECONDS: Final = 4.0
"""How long spans and scores still in memory may take to leave when the process ends."""
_BATCH_SPANS: Final = 64
"""At most so many leave together: with passages and prompts in them about a megabyte."""
_SEND_EVERY_SECONDS: Final = 2.0
_LONGEST_TEXT: Final = 32_768
"""Characters of one attribute; the rest of it is cut off."""
_MOST_ATTRIBUTES: Final = 1024
"""Of one span: a hundred passages have four each."""
_LONGEST_LABEL: Final = 200
"""Characters; Langfuse drops longer names of users and sessions."""
_PROMPT_NAME: Final = "langfuse.observation.prompt.name"
_PROMPT_VERSION: Final = "langfuse.observation.prompt.version"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How traces are made; the same for everybody in a process."""

    connection: Connection
    content: Content = "full"
    masks: tuple[str, ...] = ()
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """What nothing that is sent may hold."""
    sample: float = 1.0
    """Share of questions and jobs that are traced."""
    environment: str = "default"
    prices: Mapping[str, Price] = field(default_factory=dict)
    """Of language models, by name."""


@asynccontextmanager
async def open_tracer(options: Options) -> "AsyncIterator[LangfuseTracer]":
    """Trace in this process while the block runs; several at once share one tracer.

    Leaving the last block waits a few seconds at most for what is still to be sent. Raises
    MissingExtra without the `langfuse` extra, NotConfigured for options that can't be meant, and
    for others than those of a tracer that is open already: LlamaIndex is instrumented once.
    """
    tracer = await asyncio.to_thread(_process.join, options)
    try:
        yield tracer
    finally:
        if _process.leave():
            await _bounded(tracer.close, seconds=_GOODBYE_SECONDS)


class _Process:
    """The one tracer of this process, and how many use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracer: LangfuseTracer | None = None
        self._users = 0

    def join(self, options: Options) -> "LangfuseTracer":
        with self._lock:
            if self._tracer is None:
                self._tracer = LangfuseTracer(options)
            elif self._tracer.options != options:
                raise NotConfigured(
                    "this process traces with other RAGCORE_LANGFUSE__ settings already; close "
                    "what was opened with those before"
                )
            self._users += 1
            return self._tracer

    def leave(self) -> bool:
        """Return whether this was the last one: the tracer is its to close then."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._tracer = None
            return self._users == 0


_process = _Process()


class LangfuseTracer:
    """Makes spans, and takes scores; see `ports.Tracer`."""

    def __init__(self, options: Options) -> None:
        """Takes a second for imports. Raises MissingExtra, NotConfigured."""
        with installed():
            from ragcore.adapters.langfuse.ids import SealedIds

            self.options = options
            self._ids: SealedIds = SealedIds(options.connection.secret_key)
            self._rules = ContentRules(
                options.content, masks=options.masks, secrets=options.secrets
            )
            self._provider = _provider(options, self._ids, self._rules)
        self._tracer: Tracer = self._provider.get_tracer(_SCOPE, __version__)
        self._scores = ScoreSender(options.connection)
        self._instrumenting = threading.Lock()
        self._is_instrumented = False
        self._uninstrument: Callable[[], None] | None = None

    def warm_up(self) -> None:
        with self._instrumenting:
            if not self._is_instrumented:
                self._uninstrument = _instrumented(self._provider)
                self._is_instrumented = True

    def question(
        self,
        question: str,
        *,
        collections: Sequence[str],
        asker: Asker,
        options: Mapping[str, str | int | bool],
    ) -> "_QuestionTrace":
        if not self._is_instrumented:
            self.warm_up()
        context = _root_context(
            "question",
            user_id=_label(asker.user),
            session_id=_label(asker.session),
            metadata=_present(
                collection=collections[0] if len(collections) == 1 else None,
                key=_label(asker.key, most=100),
            ),
        )
        span = self._tracer.start_span(
            "question",
            context=context,
            attributes={
                "langfuse.observation.type": "chain",
                "langfuse.observation.input": question,
                **_metadata(collections=list(collections), **options),
            },
        )
        return _QuestionTrace(span, context)

    @contextmanager
    def job(self, job: Job) -> "Iterator[_JobTrace]":
        from opentelemetry.context import attach, detach

        context = _root_context(
            "job", metadata=_present(collection=job.collection, document_id=job.document_id)
        )
        span = self._tracer.start_span(
            job.kind,
            context=context,
            attributes={
                "langfuse.observation.type": "span",
                **_metadata(job_id=str(job.job_id), attempt=job.attempts),
            },
        )
        trace = _JobTrace(self._tracer, span, context)
        token = attach(trace.context)
        try:
            yield trace
        except BaseException as error:
            trace.broke(error)
            raise
        finally:
            detach(token)
            trace.end()

    def score(self, feedback: Feedback) -> None:
        made_at = self._ids.made_at(feedback.trace_id)
        opinion = f"{feedback.trace_id}\0{feedback.given_by}".encode(errors="replace")
        self._scores.put(
            Score(
                score_id=hashlib.sha256(opinion).hexdigest()[:32],
                trace_id=feedback.trace_id,
                # Langfuse replaces a score by one of the same id and time.
                timestamp=made_at,
                value=feedback.score,
                comment=feedback.comment and self._rules.text(feedback.comment),
                given_by=feedback.given_by,
                environment=self.options.environment,
            )
        )

    def note_prompt(self, name: str, version: int) -> None:
        """Say of the span under way that this prompt was looked up, for the generation inside."""
        from opentelemetry.trace import get_current_span

        get_current_span().set_attributes({_PROMPT_NAME: name, _PROMPT_VERSION: version})

    def close(self) -> None:
        """Send what waits. Blocks as long as that takes, perhaps for ever: for a daemon thread."""
        if self._uninstrument is not None:
            self._uninstrument()
        scores = threading.Thread(target=self._scores.close, daemon=True)
        scores.start()
        self._provider.shutdown()
        scores.join()


def _instrumented(provider: "TracerProvider") -> Callable[[], None] | None:
    """Have LlamaIndex's spans made, and return what ends it; None where somebody does already."""
    with installed():
        from openinference.instrumentation import TraceConfig
        from openinference.instrumentation.llama_index import LlamaIndexInstrumentor

    instrumentor = LlamaIndexInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        log.warning("LlamaIndex is instrumented already: Langfuse gets questions without details")
        return None
    # Vectors never get into memory that waits; of the rest the exporter decides.
    config = TraceConfig(hide_embeddings_vectors=True)
    instrumentor.instrument(tracer_provider=provider, config=config, skip_dep_check=True)
    return lambda: instrumentor.uninstrument()


def _provider(options: Options, ids: "SealedIds", rules: ContentRules) -> "TracerProvider":
    """Return a provider of our own: an application that traces itself keeps its global one."""
    from langfuse._client.span_processor import LangfuseSpanProcessor
    from langfuse._version import __version__ as sdk_version
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    from ragcore.adapters.langfuse.exporting import CarefulExporter
    from ragcore.adapters.langfuse.prompt_links import PromptLinks

    connection = options.connection
    keys = f"{connection.public_key}:{connection.secret_key}".encode()
    sender = OTLPSpanExporter(
        endpoint=f"{connection.url.rstrip('/')}/api/public/otel/v1/traces",
        headers={
            "Authorization": f"Basic {b64encode(keys).decode()}",
            "x-langfuse-sdk-name": "python",
            "x-langfuse-sdk-version": sdk_version,
            "x-langfuse-public-key": connection.public_key,
            "x-langfuse-ingestion-version": "4",
        },
        timeout=connection.timeout_seconds,
        compression=Compression.Gzip,
    )
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(options.sample)),
        resource=Resource(
            {
                "service.name": "ragcore",
                "service.version": __version__,
                "langfuse.environment": options.environment,
                "telemetry.sdk.language": "python",
            }
        ),
        id_generator=ids,
        span_limits=SpanLimits(
            max_span_attributes=_MOST_ATTRIBUTES, max_span_attribute_length=_LONGEST_TEXT
        ),
        shutdown_on_exit=False,  # it would wait half a minute for a server that hangs
    )
    provider.add_span_processor(PromptLinks())
    provider.add_span_processor(
        LangfuseSpanProcessor(
            public_key=connection.public_key,
            secret_key=connection.secret_key,
            base_url=connection.url,
            span_exporter=CarefulExporter(sender, rules=rules, prices=options.prices),
            should_export_span=_is_ours,
            flush_at=_BATCH_SPANS,
            flush_interval=_SEND_EVERY_SECONDS,
        )
    )
    return provider


def _is_ours(span: Any) -> bool:
    scope = span.instrumentation_scope
    return scope is not None and scope.name in (_SCOPE, _INSTRUMENTED)


async def _bounded(call: Callable[[], object], *, seconds: float) -> None:
    """Run a call that may hang for ever in a daemon thread, and wait for it only so long."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def run() -> None:
        try:
            call()
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="langfuse-goodbye", daemon=True).start()
    try:
        await asyncio.wait_for(done.wait(), seconds)
    except TimeoutError:
        log.warning("Langfuse did not take the last traces within %s s; they are dropped", seconds)


# --- traces --------------------------------------------------------------------------------


class _QuestionTrace:
    """See `ports.QuestionTrace`."""

    def __init__(self, span: "Span", context: "Context") -> None:
        from opentelemetry.trace import set_span_in_context

        self._span = span
        self._context = set_span_in_context(span, context)

    def __enter__(self) -> "_QuestionTrace":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            _note_error(self._span, error)
        self._span.end()

    @contextmanager
    def inside(self) -> Iterator[None]:
        from opentelemetry.context import attach, detach

        token = attach(self._context)
        try:
            yield
        finally:
            detach(token)

    def answered(self, answer: Answer) -> Answer:
        from dataclasses import replace

        if not self._span.is_recording():
            return answer
        self._span.set_attributes(
            {
                "langfuse.observation.output": answer.text,
                **_metadata(
                    generator=answer.generator,
                    no_answer_reason=answer.no_answer_reason,
                    passages=len(answer.passages),
                    citations=len(answer.citations),
                    supported=sum(citation.supported for citation in answer.citations),
                    warnings=len(answer.warnings),
                    timings_ms={k: round(v, 1) for k, v in answer.timings_ms.items()},
                ),
            }
        )
        return replace(answer, trace_id=_trace_id(self._span))


class _JobTrace:
    """See `ports.JobTrace`."""

    def __init__(self, tracer: "Tracer", span: "Span", context: "Context") -> None:
        from opentelemetry.trace import set_span_in_context

        self.context = set_span_in_context(span, context)
        self._tracer = tracer
        self._span = span
        self._stage: Stage | None = None
        self._stage_span: Span | None = None

    def reached(self, stage: Stage) -> None:
        if stage != self._stage:
            self._end_stage()
            self._stage = stage
            self._stage_span = self._tracer.start_span(
                stage, context=self.context, attributes={"langfuse.observation.type": "span"}
            )

    def ended(self, job: Job) -> None:
        self._span.set_attributes(
            _metadata(
                status=job.status,
                outcome=job.outcome,
                error_code=job.error and job.error.code,
                chunks=job.chunks,
                pages=job.pages,
                language=job.language,
                timings_ms=dict(job.timings_ms),
                warnings=len(job.warnings),
                counts=dict(job.counts) or None,
            )
        )
        if job.error is not None:
            # Its code alone: the detail may quote from the document.
            level = "ERROR" if job.status == "failed" else "WARNING"
            for span in filter(None, (self._span, self._stage_span)):
                span.set_attribute("langfuse.observation.level", level)
                span.set_attribute(_STATUS_MESSAGE, job.error.code)

    def broke(self, error: BaseException) -> None:
        _note_error(self._span, error)

    def end(self) -> None:
        self._end_stage()
        self._span.end()

    def _end_stage(self) -> None:
        if self._stage_span is not None:
            self._stage_span.end()


_STATUS_MESSAGE: Final = "langfuse.observation.status_message"


def _note_error(span: "Span", error: BaseException) -> None:
    """Tell a failure from a caller who left before the end."""
    left = isinstance(error, (asyncio.CancelledError, GeneratorExit))
    span.set_attribute("langfuse.observation.level", "WARNING" if left else "ERROR")
    said = "given up before the end" if left else f"{type(error).__name__}: {error}"
    span.set_attribute(_STATUS_MESSAGE, said)


def _root_context(name: str, **propagated: Any) -> "Context":
    """Return a context without a span, whose spans bear these attributes.

    Without one: a trace that an application around us has under way has an id of its own making.
    """
    from langfuse import propagate_attributes
    from opentelemetry.context import Context, attach, detach, get_current

    token = attach(Context())
    try:
        with propagate_attributes(trace_name=name, tags=[name], **propagated):
            return get_current()
    finally:
        detach(token)


def _trace_id(span: "Span") -> str:
    from opentelemetry.trace import format_trace_id

    return format_trace_id(span.get_span_context().trace_id)


def _label(text: str | None, *, most: int = _LONGEST_LABEL) -> str | None:
    return None if text is None else text[:most]


def _present(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _metadata(**values: Any) -> dict[str, str]:
    """Return attributes that stand under `metadata` in Langfuse, which takes JSON for them."""
    return {
        f"langfuse.observation.metadata.{name}": json.dumps(value, ensure_ascii=False)
        for name, value in values.items()
        if value is not None
    }
