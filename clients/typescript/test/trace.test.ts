import assert from "node:assert/strict";
import { test } from "node:test";
import { Metadata } from "@grpc/grpc-js";
import { context, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { addTrace, traceparent } from "../src/trace.js";

test("the current trace context goes along, and none where there is none", () => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  const span = { traceId: "1".repeat(32), spanId: "2".repeat(16), traceFlags: 1 };
  const metadata = new Metadata();
  context.with(trace.setSpanContext(ROOT_CONTEXT, span), () => {
    addTrace(metadata);
    assert.equal(traceparent(), `00-${span.traceId}-${span.spanId}-01`);
  });
  assert.deepEqual(metadata.get("traceparent"), [`00-${span.traceId}-${span.spanId}-01`]);
  assert.equal(traceparent(), "");
});
