import type { ErrorReason } from "./generated/kvblock/v1/errors.js";

/** Why the server refused a call: `errors.proto` explains each. UNSPECIFIED: a newer server's. */
export type Reason = Exclude<keyof typeof ErrorReason, "UNRECOGNIZED">;

/** What to do after an error: see `docs/errors.md`. */
export type Then = "repeat" | "resume" | "lease_lost" | "give_up";

/** One field of a request that is wrong. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** What an error tells besides its text. */
export interface ErrorFacts {
  code?: string;
  reason?: Reason;
  metadata?: Record<string, string>;
  violations?: FieldViolation[];
  retryAfterMs?: number;
  then?: Then;
  fateUnknown?: boolean;
  cause?: unknown;
}

/** What every failure of this client is, except an abort by the caller's own AbortSignal. */
export class KVBlockError extends Error {
  override name = "KVBlockError";
  /** The gRPC status as its name, such as `NOT_FOUND`; undefined: nothing came from a server. */
  readonly code: string | undefined;
  /** The server's reason; undefined: the server's own code gave none. */
  readonly reason: Reason | undefined;
  /** The facts of the reason. */
  readonly metadata: Record<string, string>;
  /** The fields of the request that are wrong. */
  readonly violations: FieldViolation[];
  /** For how long to wait before the next try, in milliseconds; undefined: the server did not say. */
  readonly retryAfterMs: number | undefined;
  /** What to do next. It is no function, so the error is no thenable. */
  readonly then: Then;
  /** Whether it is unknown if the call was carried out. */
  readonly fateUnknown: boolean;

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause });
    this.code = facts.code;
    this.reason = facts.reason;
    this.metadata = facts.metadata ?? {};
    this.violations = facts.violations ?? [];
    this.retryAfterMs = facts.retryAfterMs;
    this.then = facts.then ?? "give_up";
    this.fateUnknown = facts.fateUnknown ?? false;
  }
}

/** The lease has ended, or another stream has it: no block may be written any more. */
export class LeaseLostError extends KVBlockError {
  override name = "LeaseLostError";

  constructor(message: string, facts: ErrorFacts = {}) {
    super(message, { ...facts, then: facts.then ?? "lease_lost" });
  }
}

/** The call's own deadline has passed. */
export class DeadlineError extends KVBlockError {
  override name = "DeadlineError";
}

/** The step before this one has no answer yet: `recover` gets it. */
export class UnansweredError extends KVBlockError {
  override name = "UnansweredError";
}

/** The client, session or arena has ended, or is not open yet. */
export class ClosedError extends KVBlockError {
  override name = "ClosedError";
}

/** The caller did something that cannot be right; nothing was sent. */
export class UsageError extends KVBlockError {
  override name = "UsageError";
}

/** Whether another try can help. */
export function mayRepeat(failure: unknown): failure is KVBlockError {
  return (
    failure instanceof KVBlockError && (failure.then === "repeat" || failure.then === "resume")
  );
}
