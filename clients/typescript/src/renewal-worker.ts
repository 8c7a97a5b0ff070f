/**
 * The thread that keeps a lease alive, on a channel of its own.
 *
 * It needs nothing of the engine's thread, which may compute for as long as it likes. Only a server
 * that says so, or the lease's own time, ends the lease.
 */
import { type MessagePort, workerData } from "node:worker_threads";
import { durationNs, fromMs, now, pause, toMs } from "./clock.js";
import { KVBlockError, LeaseLostError } from "./errors.js";
import type { RenewLeaseRequest } from "./generated/kvblock/v1/kvblock.js";
import { SharedLease } from "./lease.js";
import type { FromRenewal, RenewalStart, ToRenewal } from "./renewal.js";
import { backoff } from "./retry.js";
import { Transport } from "./transport.js";

const CALL_MIN_MS = 50;

const { buffer, channel, port } = workerData as RenewalStart;
const lease = new SharedLease(buffer);
let request: RenewLeaseRequest | undefined;
let transport: Transport | undefined;
let notBefore = 0n;
let failures = 0;
let asked: number[] = [];
let wake = new AbortController();

function tell(message: FromRenewal): void {
  (port as MessagePort).postMessage(message);
}

port.on("message", (message: ToRenewal) => {
  if (message.kind === "start") {
    request = message.request;
    void run();
  } else if (message.kind === "hints" && request !== undefined) {
    request.hints = message.hints;
  } else if (message.kind === "renew") {
    asked.push(message.id);
  }
  wake.abort();
  wake = new AbortController();
  if (message.kind === "stop" && request === undefined) port.close();
});

async function run(): Promise<void> {
  while (lease.open) {
    const moment = now();
    const ends = lease.validUntil;
    let due = asked.length > 0 ? moment : lease.renewAt;
    if (due < notBefore) due = notBefore;
    // No later than the end, to tell of a loss when it comes.
    if (due > ends) due = ends;
    if (moment >= ends) {
      if (lease.lose()) tell({ kind: "lost", error: undefined });
    } else if (moment < due) {
      await pause(toMs(due - moment), [wake.signal]);
    } else {
      await renew(request as RenewLeaseRequest, ends - moment);
    }
  }
  transport?.close();
  port.close();
}

async function renew(message: RenewLeaseRequest, left: bigint): Promise<void> {
  transport ??= new Transport(channel);
  const waiting = asked;
  const sent = now();
  try {
    // Half of what is left: there is time for another try on another connection.
    const timeoutMs = Math.max(toMs(left) / 2, CALL_MIN_MS);
    const answer = await transport.unary(transport.stub.renewLease, message, timeoutMs);
    failures = 0;
    asked = asked.filter((id) => !waiting.includes(id));
    if (answer.lease !== undefined) {
      lease.told(durationNs(answer.lease.ttl), durationNs(answer.lease.renewAfter));
    }
    if (!lease.answered(sent)) {
      if (lease.lose()) tell({ kind: "lost", error: undefined });
      return;
    }
    lease.owedBlocks = answer.owedBlocks;
    for (const id of waiting) tell({ kind: "renewed", id });
  } catch (error) {
    if (!(error instanceof KVBlockError)) throw error;
    failed(error, waiting);
  }
}

function failed(error: KVBlockError, waiting: number[]): void {
  if (error instanceof LeaseLostError) {
    if (lease.lose())
      tell({ kind: "lost", error: { message: error.message, facts: { ...error } } });
    return;
  }
  failures += 1;
  const ms = (error.retryAfterMs ?? 0) + backoff(failures);
  const part = toMs(lease.validUntil - now()) / 4;
  notBefore = now() + fromMs(Math.max(0, Math.min(ms, part)));
  if (error.reason === undefined) {
    transport?.close();
    transport = undefined;
  }
  if (error.then === "give_up" && error.reason !== undefined) {
    asked = asked.filter((id) => !waiting.includes(id));
    for (const id of waiting) {
      tell({ kind: "failed", id, error: { message: error.message, facts: { ...error } } });
    }
  }
}
