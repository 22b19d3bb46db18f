"""Which prompt a generation was made with."""

from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span, SpanProcessor
from opentelemetry.trace import get_current_span

_LINK: Final = ("langfuse.observation.prompt.name", "langfuse.observation.prompt.version")


class PromptLinks(SpanProcessor):
    """Hands the prompt that a span looked up on to the spans that begin inside it.

    A prompt is looked up in the span around that of the language model. The exporter takes the
    link off all that are no generations.
    """

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        attributes = getattr(get_current_span(parent_context), "attributes", None) or {}
        for key in _LINK:
            if key in attributes:
                span.set_attribute(key, attributes[key])
