"""The trace context that an engine sends with a step: the W3C's `traceparent`.

Rules:
- What is no traceparent, or too long, is ignored, as the W3C's recommendation asks: it never fails
  a step.
"""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

CHARS_MAX = 128
"""Longest text that is looked at. Version 00 has 55 characters; later ones may have more."""

_ROOT = Context()
_w3c = TraceContextTextMapPropagator()


def parent_of(traceparent: str) -> SpanContext | None:
    """The span that a traceparent names; None when it names none."""
    if len(traceparent) > CHARS_MAX:
        return None
    context = _w3c.extract({"traceparent": traceparent}, _ROOT)
    span = trace.get_current_span(context).get_span_context()
    return span if span.is_valid else None
