export { Arena } from "./arena.js";
export { type Allocation, Client, connect, type Request } from "./client.js";
export { duration } from "./clock.js";
export {
  ClosedError,
  DeadlineError,
  type FieldViolation,
  KVBlockError,
  LeaseLostError,
  type Reason,
  type Then,
  UnansweredError,
  UsageError,
} from "./errors.js";
export type {
  AttachEngineResponse,
  CanAllocateResponse,
  EngineHints,
  EngineStep,
  ExpectedGeometry,
  GetBlockTableResponse,
  Grant,
  Lease,
  PoolStats,
  Refusal,
  SessionAttached,
  StatsResponse,
  StepResponse,
  StepResult,
} from "./generated/kvblock/v1/kvblock.js";
export { RefusalReason, StepPolicy } from "./generated/kvblock/v1/kvblock.js";
export { Session, type SessionOptions, type StepAnswer, type StepOptions } from "./session.js";
export type { CallOptions, ConnectOptions, TlsOptions } from "./settings.js";
