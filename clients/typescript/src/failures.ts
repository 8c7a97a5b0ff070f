import { type Metadata, type ServiceError, status } from "@grpc/grpc-js";
import {
  DeadlineError,
  type ErrorFacts,
  KVBlockError,
  LeaseLostError,
  type Reason,
  type Then,
} from "./errors.js";
import { BadRequest, ErrorInfo, Status } from "./generated/details.js";
import { ErrorReason } from "./generated/kvblock/v1/errors.js";

const DOMAIN = "kvblock.v1";
const THENS: readonly string[] = ["repeat", "resume", "lease_lost", "give_up"];

/** The error of a call that failed; `sent`: whether any of it may have reached the server. */
export function errorOf(failed: ServiceError, address: string, sent: boolean): KVBlockError {
  const details = detailsOf(failed.metadata);
  const code = status[failed.code] ?? "UNKNOWN";
  const said = plain(failed.metadata, "kvblock-then");
  const given = said !== undefined && THENS.includes(said) ? (said as Then) : undefined;
  const byCode = failed.code === status.UNAVAILABLE || failed.code === status.CANCELLED;
  const after = plain(failed.metadata, "kvblock-retry-after-ms");
  const facts: ErrorFacts = {
    ...details,
    code,
    then: given ?? (byCode ? "repeat" : "give_up"),
    fateUnknown: details.reason === undefined && sent,
    retryAfterMs: after !== undefined && /^[0-9]+$/.test(after) ? Number(after) : undefined,
  };
  const text = failed.details || code;
  if (facts.then === "lease_lost" || details.reason === "SESSION_REPLACED") {
    return new LeaseLostError(text, facts);
  }
  if (failed.code === status.DEADLINE_EXCEEDED && given === undefined) {
    return tooLate(address, sent);
  }
  if (details.reason === undefined && failed.code === status.UNAVAILABLE) {
    return new KVBlockError(`no server answers at ${address}: ${text}`, facts);
  }
  return new KVBlockError(text, facts);
}

/** The error of a call that was not answered in time. */
export function tooLate(address: string, sent = true): DeadlineError {
  const fate = sent ? "; whether it was carried out is unknown" : "";
  return new DeadlineError(`${address} did not answer in time${fate}`, {
    code: "DEADLINE_EXCEEDED",
    fateUnknown: sent,
  });
}

function plain(metadata: Metadata | undefined, key: string): string | undefined {
  const value = metadata?.get(key)[0];
  return typeof value === "string" ? value : undefined;
}

/** What the details of a status say; what is no such message says nothing. */
function detailsOf(metadata: Metadata | undefined): ErrorFacts {
  const facts: ErrorFacts = {};
  const packed = metadata?.get("grpc-status-details-bin")[0];
  if (!(packed instanceof Uint8Array)) return facts;
  for (const detail of decoded(Status, packed)?.details ?? []) {
    if (detail.typeUrl.endsWith("/google.rpc.ErrorInfo")) {
      const info = decoded(ErrorInfo, detail.value);
      if (info?.domain !== DOMAIN) continue;
      facts.reason = info.reason in ErrorReason ? (info.reason as Reason) : "UNSPECIFIED";
      facts.metadata = info.metadata;
    } else if (detail.typeUrl.endsWith("/google.rpc.BadRequest")) {
      facts.violations = decoded(BadRequest, detail.value)?.fieldViolations ?? [];
    }
  }
  return facts;
}

function decoded<T>(kind: { decode(input: Uint8Array): T }, bytes: Uint8Array): T | undefined {
  try {
    return kind.decode(bytes);
  } catch {
    // Code and text are there without it, and a newer peer may send what this client cannot read.
    return undefined;
  }
}
