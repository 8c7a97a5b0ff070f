import type { Metadata } from "@grpc/grpc-js";
import { context, isSpanContextValid, type SpanContext, trace } from "@opentelemetry/api";

function current(): SpanContext | undefined {
  const span = trace.getSpanContext(context.active());
  return span !== undefined && isSpanContextValid(span) ? span : undefined;
}

function written(span: SpanContext): string {
  return `00-${span.traceId}-${span.spanId}-${span.traceFlags.toString(16).padStart(2, "0")}`;
}

/** The current trace context as W3C's `traceparent`; empty: there is none. */
export function traceparent(): string {
  const span = current();
  return span === undefined ? "" : written(span);
}

/** Adds the current trace context to what a call sends. */
export function addTrace(metadata: Metadata): void {
  const span = current();
  if (span === undefined) return;
  metadata.set("traceparent", written(span));
  const state = span.traceState?.serialize();
  if (state) metadata.set("tracestate", state);
}
