"""Spans: one for each call that is sampled, and one for each sampled step of a session.

Rules:
- A call or step that a ratio drops costs a random number and a comparison; nothing is built for it.
- A sampled call's span is current in the task of the call, so that its log lines carry the trace
  id. Nothing is detached: gRPC runs each call in a task, and so in a context, of its own.
- No span and no context is held open by a context manager.

Which steps of a session are sampled
====================================
A session is one call that lives as long as its engine, so sampling it as a call would record either
all of its steps for days, or none. A child span shares its parent's trace id, and a ratio sampler
decides by the trace id: steps that are plain children would all share the fate of their stream.
Decided:

- Under a ratio sampler (`traceidratio`, `parentbased_traceidratio`) each step is decided on its
  own, by the sampler, under a fresh trace id and without a parent: 1 % means 1 % of the steps, on
  one long stream too, whatever was decided about the stream.
- Under the other samplers the ratio is all or nothing, and a step goes with its stream: every step
  with `always_on`, none with `always_off`, and with `parentbased_*` what the caller of the stream
  decided, if it did.
- A sampled step of a sampled stream is a child of the stream's span. A sampled step of a stream
  that is not sampled is a trace of its own, and links to the stream's span: that one is not
  exported, but its ids group the steps of a stream, and its trace id is the caller's.
- A step whose message names a span of its engine belongs to that span: it is its child, in its
  trace, and links to the stream's. Whether it is sampled is what the sampler says of such a child,
  as of a call with that parent; under `parentbased_*`, what the engine decided.

Rejected: a decision in every message of a session (each step would pay for it in bytes; only an
engine that traces its iterations does), and an event on the stream's span for each step (kept in
memory until the stream ends, and then cut off).
"""

import time
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TypeAlias

import grpc
from opentelemetry import propagate, trace
from opentelemetry.context import Context, attach
from opentelemetry.propagators.textmap import Getter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from kvblock.version import VERSION
from kvblock_service.core.commands import Allocate, Freed, Granted, Refused, Step, Stepped
from kvblock_service.rpc.observe import AppliedCommand
from kvblock_service.telemetry import names

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

_ROOT = Context()
_current: "ContextVar[TracedCall | None]" = ContextVar("kvblock_traced_call", default=None)


class PresetIds(RandomIdGenerator):
    """Random ids; the next root span gets the trace id that the sampler was asked about."""

    def __init__(self) -> None:
        self.preset = 0

    def generate_trace_id(self) -> int:
        """The preset trace id, once, else a random one."""
        trace_id, self.preset = self.preset, 0
        return trace_id or super().generate_trace_id()


class _MetadataGetter(Getter[Metadata]):
    def get(self, carrier: Metadata, key: str) -> list[str] | None:
        values = [value for name, value in carrier if name == key and isinstance(value, str)]
        return values or None

    def keys(self, carrier: Metadata) -> list[str]:
        return [name for name, _ in carrier]


class Tracing:
    """Starts the spans of a server.

    `ratio` is the share of root spans that the sampler takes by their trace ids, None for a sampler
    that does not decide by the trace id.
    """

    def __init__(self, provider: TracerProvider, ids: PresetIds, ratio: float | None) -> None:
        self.by_id = ratio is not None
        self._bound = TraceIdRatioBased.get_bound_for_rate(1.0 if ratio is None else ratio)
        self._tracer = provider.get_tracer(names.SCOPE, VERSION)
        self._ids = ids
        self._propagator = propagate.get_global_textmap()
        self._fields = frozenset(self._propagator.fields)
        self._getter = _MetadataGetter()

    def begin_call(
        self, name: str, attributes: dict[str, str], metadata: Metadata
    ) -> "TracedCall | None":
        """Follow a unary call, if the sampler takes it."""
        parent = self._parent(metadata)
        root_id = self.take_root() if parent is _ROOT else 0
        if parent is _ROOT and not root_id:
            return None
        span = self.start(name, parent, SpanKind.SERVER, attributes, root_id=root_id)
        return TracedCall(span, parent) if span.is_recording() else None

    def begin_stream(
        self, name: str, attributes: dict[str, str], metadata: Metadata
    ) -> "TracedCall":
        """Follow a stream; whether the sampler takes it or not, its steps may be sampled."""
        parent = self._parent(metadata)
        return _Stream(self, self.start(name, parent, SpanKind.SERVER, attributes), parent)

    def take_root(self) -> int:
        """A trace id for a root span, or 0 where a sampler that decides by the id drops it.

        This is the sampler's own rule without its objects: most calls end here.
        """
        trace_id = self._ids.generate_trace_id()
        if self.by_id and trace_id & TraceIdRatioBased.TRACE_ID_LIMIT >= self._bound:
            return 0
        return trace_id

    def start(
        self,
        name: str,
        parent: Context,
        kind: SpanKind,
        attributes: "dict[str, str] | dict[str, str | int]",
        *,
        root_id: int = 0,
        links: list[Link] | None = None,
        start_time: int | None = None,
    ) -> Span:
        """Start a span; the sampler decides. A root span gets the trace id `root_id`, if not 0."""
        self._ids.preset = root_id
        span = self._tracer.start_span(name, parent, kind, attributes, links, start_time)
        self._ids.preset = 0
        return span

    def _parent(self, metadata: Metadata) -> Context:
        for name, _ in metadata:
            if name in self._fields:
                return self._propagator.extract(metadata, _ROOT, self._getter)
        return _ROOT


def observe(applied: AppliedCommand) -> None:
    """Tell the call that runs in this task of its command, if it is followed."""
    call = _current.get()
    if call is not None:
        call.applied(applied)


def trace_id() -> str:
    """The trace id of the call that runs in this task, in hexadecimal; empty if not followed."""
    call = _current.get()
    return "" if call is None else call.trace_id


class TracedCall:
    """A call that is followed in the task which makes this; `context` holds its span."""

    def __init__(self, span: Span, parent: Context) -> None:
        self._span = span
        self._sampled = span.is_recording()
        self.context = trace.set_span_in_context(span, parent)
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)
        if self._sampled:
            attach(self.context)
        _current.set(self)

    def applied(self, applied: AppliedCommand) -> None:
        """The call has carried out a command."""
        self._span.set_attributes(_attributes(applied))

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """The call has ended."""
        if self._sampled:
            self._span.set_attributes(names.status_attributes(code))
            if code in names.SERVER_FAULTS:
                self._span.set_status(Status(StatusCode.ERROR, details))
            self._span.end()


class _Stream(TracedCall):
    """A stream, sampled or not."""

    def __init__(self, tracing: Tracing, span: Span, parent: Context) -> None:
        super().__init__(span, parent)
        self._tracing = tracing
        self._links = [Link(span.get_span_context())]
        self._is_named = False

    def applied(self, applied: AppliedCommand) -> None:
        """The stream has carried out a command: a step has a span of its own."""
        if self._sampled and not self._is_named:
            self._is_named = True
            engine = applied.command.engine
            self._span.set_attributes({names.POOL: applied.pool, names.ENGINE: engine})
        if applied.step_id:
            self._step(applied)
        elif self._sampled:
            super().applied(applied)

    def _step(self, applied: AppliedCommand) -> None:
        """Record a step, if it is sampled."""
        if applied.parent is not None:
            span = trace.NonRecordingSpan(applied.parent)
            self._record(applied, trace.set_span_in_context(span, _ROOT), SpanKind.SERVER)
            return
        by_id = self._tracing.by_id
        root_id = self._tracing.take_root() if by_id else 0
        if root_id or (self._sampled and not by_id):
            parent = self.context if self._sampled else _ROOT
            self._record(applied, parent, SpanKind.INTERNAL, root_id)

    def _record(
        self, applied: AppliedCommand, parent: Context, kind: SpanKind, root_id: int = 0
    ) -> None:
        """The span of a step; it links to the stream's where that is not its parent."""
        attributes = _attributes(applied)
        attributes[names.STEP_ID] = applied.step_id
        span = self._tracing.start(
            names.STEP_SPAN,
            parent,
            kind,
            attributes,
            root_id=root_id,
            links=None if parent is self.context else self._links,
            start_time=applied.started_ns,
        )
        span.end(max(time.time_ns(), applied.started_ns))


def _attributes(applied: AppliedCommand) -> dict[str, str | int]:
    command, outcome = applied.command, applied.outcome
    asked = granted = 0
    freed: int | None = None
    refused: Refused | None = None
    if isinstance(command, Step) and isinstance(outcome, Stepped):
        asked = (sum(command.num_blocks) or len(command.allocate_ids)) + command.acquire
        granted = len(outcome.blocks) + len(outcome.acquired)
        freed = sum(outcome.freed_counts) + len(command.release) + sum(outcome.trimmed_counts)
        refused = outcome.refused
    elif isinstance(command, Allocate):
        asked = command.num_blocks
        granted = len(outcome.blocks) if isinstance(outcome, Granted) else 0
        refused = outcome if isinstance(outcome, Refused) else None
    elif isinstance(outcome, Freed):
        freed = outcome.num_blocks
    attributes: dict[str, str | int] = {
        names.POOL: applied.pool,
        names.ENGINE: command.engine,
        names.LOCK_WAIT_NS: applied.lock_wait_ns,
    }
    if asked:
        attributes |= {names.BLOCKS_ASKED: asked, names.BLOCKS_GRANTED: granted}
    if freed is not None:
        attributes[names.BLOCKS_FREED] = freed
    if refused is not None:
        attributes[names.REFUSAL_REASON] = refused.reason.name
    return attributes
