/** Runs the client by what it reads: a JSON object a line, answered by one. */
import { createInterface } from "node:readline";
import { context, ROOT_CONTEXT, trace } from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import * as pb from "../src/generated/kvblock/v1/kvblock.js";
import {
  Arena,
  type CallOptions,
  Client,
  ClosedError,
  connect,
  DeadlineError,
  KVBlockError,
  LeaseLostError,
  Session,
  UnansweredError,
  UsageError,
} from "../src/index.js";
import { fromStubs, toStubs } from "./json.js";

interface Line {
  do: string;
  on?: string;
  as?: string;
  address: string;
  pool?: string;
  engine?: string;
  timeout?: number;
  retries?: boolean;
  token?: string | null;
  tls?: { ca?: string; cert?: string; key?: string; server_name?: string } | null;
  method: string;
  request?: unknown;
  step?: unknown;
  hints?: unknown;
  traceparent?: string;
  block: number;
  region: number;
  at?: number;
  bytes: string;
  count: number;
}

class Unsupported extends Error {}

interface Attached {
  session: Session;
  lost: number;
}

const objects = new Map<string, Client | Attached | Arena>();

type Call = (client: Client, request: unknown, options: CallOptions) => Promise<unknown>;

const CALLS: Record<string, Call> = {
  Allocate: async (client, request, options) => {
    const answer = await client.allocate(pb.AllocateRequest.fromJSON(request), options);
    return answer.kind === "granted"
      ? { granted: pb.Grant.toJSON(answer) }
      : { refused: pb.Refusal.toJSON(answer) };
  },
  Free: async (client, request, options) => {
    await client.free(pb.FreeRequest.fromJSON(request), options);
    return {};
  },
  FreeReturningCount: async (client, request, options) => ({
    freed_blocks: await client.freeReturningCount(
      pb.FreeReturningCountRequest.fromJSON(request),
      options,
    ),
  }),
  GetBlockTable: async (client, request, options) =>
    pb.GetBlockTableResponse.toJSON(
      await client.getBlockTable(pb.GetBlockTableRequest.fromJSON(request), options),
    ),
  CanAllocate: async (client, request, options) =>
    pb.CanAllocateResponse.toJSON(
      await client.canAllocate(pb.CanAllocateRequest.fromJSON(request), options),
    ),
  Stats: async (client, request, options) =>
    pb.StatsResponse.toJSON(await client.stats(pb.StatsRequest.fromJSON(request), options)),
  Step: async (client, request, options) =>
    pb.StepResponse.toJSON(await client.step(pb.StepRequest.fromJSON(request), options)),
  AttachEngine: async (client, request, options) =>
    pb.AttachEngineResponse.toJSON(
      await client.attachEngine(pb.AttachEngineRequest.fromJSON(request), options),
    ),
  RenewLease: async (client, request, options) =>
    pb.RenewLeaseResponse.toJSON(
      await client.renewLease(pb.RenewLeaseRequest.fromJSON(request), options),
    ),
  DetachEngine: async (client, request, options) =>
    pb.DetachEngineResponse.toJSON(
      await client.detachEngine(pb.DetachEngineRequest.fromJSON(request), options),
    ),
};

function found<T extends Client | Attached | Arena>(
  line: Line,
  is: (one: Client | Attached | Arena | undefined) => one is T,
): T {
  const one = objects.get(line.on ?? "");
  if (!is(one)) throw new Unsupported(`there is no ${line.on} for ${line.do}`);
  return one;
}

const isClient = (one: unknown): one is Client => one instanceof Client;
const isArena = (one: unknown): one is Arena => one instanceof Arena;
const isAttached = (one: unknown): one is Attached =>
  (one as Partial<Attached> | undefined)?.session instanceof Session;

function put(line: Line, one: Client | Attached | Arena): void {
  objects.set(line.as ?? "", one);
}

function timing(line: Line): CallOptions {
  return line.timeout === undefined ? {} : { timeoutMs: line.timeout * 1000 };
}

function stepped(answer: { result: pb.StepResult; owedBlocks: number }): unknown {
  return { result: pb.StepResult.toJSON(answer.result), owed_blocks: answer.owedBlocks };
}

async function attach(line: Line): Promise<unknown> {
  const client = found(line, isClient);
  const { recall: _, ...request } = pb.SessionAttach.fromJSON(toStubs(line.request));
  const session = client.session({
    ...request,
    onLost: () => {
      attached.lost += 1;
    },
  });
  const attached: Attached = { session, lost: 0 };
  put(line, attached);
  return pb.SessionAttached.toJSON(await session.attach(timing(line)));
}

function close(line: Line): unknown {
  const one = objects.get(line.on ?? "");
  if (isAttached(one)) one.session.close();
  else one?.close();
  return {};
}

async function answer(line: Line): Promise<unknown> {
  switch (line.do) {
    case "connect": {
      const tls = line.tls && { ...line.tls, serverName: line.tls.server_name };
      const options = { pool: line.pool, engine: line.engine, retries: line.retries };
      put(
        line,
        connect(line.address, {
          ...options,
          timeoutMs: timing(line).timeoutMs,
          token: line.token ?? undefined,
          tls: tls ?? undefined,
        }),
      );
      return {};
    }
    case "call": {
      const call = CALLS[line.method];
      if (call === undefined) throw new Unsupported(line.method);
      return call(found(line, isClient), toStubs(line.request), timing(line));
    }
    case "attach":
      return attach(line);
    case "step": {
      const hints = line.hints == null ? undefined : pb.EngineHints.fromJSON(line.hints);
      const work = pb.EngineStep.fromJSON(line.step ?? {});
      const { session } = found(line, isAttached);
      return stepped(await session.step(work, { ...timing(line), hints }));
    }
    case "recover":
      return stepped(await found(line, isAttached).session.recover(timing(line)));
    case "renew":
      await found(line, isAttached).session.renew();
      return {};
    case "detach":
      return { freed_blocks: await found(line, isAttached).session.detach(timing(line)) };
    case "close":
      return close(line);
    case "state": {
      const { session, lost } = found(line, isAttached);
      const { attached, leaseValid, unanswered, epoch } = session;
      return { attached, lease_valid: leaseValid, unanswered, lost, epoch: String(epoch) };
    }
    case "arena": {
      const arena = found(line, isAttached).session.arena();
      put(line, arena);
      const { pieceBytes, totalBlocks, regions } = arena;
      return { piece_bytes: pieceBytes, total_blocks: totalBlocks, regions };
    }
    case "write":
      found(line, isArena)
        .block(line.block, line.region)
        .set(Buffer.from(line.bytes, "hex"), line.at);
      return {};
    case "read": {
      const piece = found(line, isArena).block(line.block, line.region);
      const at = line.at ?? 0;
      const bytes = piece.subarray(at, at + line.count);
      return { bytes: Buffer.from(bytes).toString("hex") };
    }
    default:
      throw new Unsupported(line.do);
  }
}

function kindOf(error: KVBlockError): string {
  if (error instanceof LeaseLostError) return "lease_lost";
  if (error instanceof DeadlineError) return "deadline";
  if (error instanceof UnansweredError) return "unanswered";
  if (error instanceof ClosedError) return "closed";
  return error instanceof UsageError ? "usage" : "server";
}

function failure(error: unknown): unknown {
  if (error instanceof Unsupported) return { kind: "unsupported", message: error.message };
  if (!(error instanceof KVBlockError)) throw error;
  return {
    kind: kindOf(error),
    message: error.message,
    code: error.code,
    reason: error.reason,
    metadata: error.metadata,
    violations: error.violations.map(({ field }) => field),
    retry_after: error.retryAfterMs === undefined ? undefined : error.retryAfterMs / 1000,
    then: error.then,
    fate_unknown: error.fateUnknown,
  };
}

/** Runs as a part of the trace that a line names. */
function traced<T>(traceparent: string | undefined, run: () => Promise<T>): Promise<T> {
  const [, traceId, spanId, flags] = traceparent?.split("-") ?? [];
  if (traceId === undefined || spanId === undefined || flags === undefined) return run();
  const span = { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true };
  return context.with(trace.setSpanContext(ROOT_CONTEXT, span), run);
}

context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
for await (const text of createInterface({ input: process.stdin })) {
  const line = JSON.parse(text) as Line;
  let told: unknown;
  try {
    told = { ok: fromStubs(await traced(line.traceparent, () => answer(line))) };
  } catch (error) {
    told = { error: failure(error) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
for (const one of objects.values()) {
  if (one instanceof Client) one.close();
}
