import { randomUUID } from "node:crypto";
import { durationNs, pause, toMs } from "./clock.js";
import * as pb from "./generated/kvblock/v1/kvblock.js";
import { Retries } from "./retry.js";
import { Session, type SessionOptions } from "./session.js";
import {
  type CallOptions,
  type ConnectOptions,
  type Settings,
  settingsOf,
  timeoutOf,
} from "./settings.js";
import { checkOpen, Transport, type Unary } from "./transport.js";

/** What an allocation came to; a refusal took nothing. */
export type Allocation = ({ kind: "granted" } & pb.Grant) | ({ kind: "refused" } & pb.Refusal);

/** The fields of a request; what is left out has its default. */
export type Request<T> = pb.DeepPartial<T>;

/** Makes a client of the server at `unix:PATH`, `unix:///PATH` or `HOST:PORT`; waits for nothing. */
export function connect(address: string, options: ConnectOptions = {}): Client {
  return new Client(settingsOf(address, options));
}

/**
 * A client of one server. Any number of calls may be under way.
 *
 * Each call takes the fields of its request. `pool` and `engine` may be left out where the client
 * has them; a call that changes something gets a fresh `requestId` if none is given, and keeps it
 * for all its tries. Ids and epochs are bigints.
 */
export class Client {
  readonly #settings: Settings;
  readonly #transport: Transport;
  readonly #closed = new AbortController();
  readonly #sessions = new Set<Session>();

  /** Made by `connect`. */
  constructor(settings: Settings) {
    this.#settings = settings;
    this.#transport = new Transport(settings.channel);
  }

  /** Appends blocks to a sequence's table: all that were asked for, or none. */
  async allocate(
    request: Request<pb.AllocateRequest>,
    options: CallOptions = {},
  ): Promise<Allocation> {
    const message = this.#changing(pb.AllocateRequest.fromPartial(request));
    const wait = durationNs(message.maxWait);
    const more = wait > 0n ? toMs(wait) : 0;
    const { result } = await this.#call(this.#transport.stub.allocate, message, options, more);
    if (result?.$case === "granted") return { kind: "granted", ...result.value };
    return { kind: "refused", ...pb.Refusal.fromPartial(result?.value ?? {}) };
  }

  /** Frees a sequence; one that is not there is no error. */
  async free(request: Request<pb.FreeRequest>, options: CallOptions = {}): Promise<void> {
    const message = this.#changing(pb.FreeRequest.fromPartial(request));
    await this.#call(this.#transport.stub.free, message, options);
  }

  /** Frees a sequence; answers how many blocks went back. */
  async freeReturningCount(
    request: Request<pb.FreeReturningCountRequest>,
    options: CallOptions = {},
  ): Promise<number> {
    const message = this.#changing(pb.FreeReturningCountRequest.fromPartial(request));
    const { stub } = this.#transport;
    return (await this.#call(stub.freeReturningCount, message, options)).freedBlocks;
  }

  /** The blocks of a sequence, in table order. */
  getBlockTable(
    request: Request<pb.GetBlockTableRequest>,
    options: CallOptions = {},
  ): Promise<pb.GetBlockTableResponse> {
    const message = this.#named(pb.GetBlockTableRequest.fromPartial(request));
    return this.#call(this.#transport.stub.getBlockTable, message, options);
  }

  /** Whether so many blocks could be allocated at this moment; reserves nothing. */
  canAllocate(
    request: Request<pb.CanAllocateRequest> = {},
    options: CallOptions = {},
  ): Promise<pb.CanAllocateResponse> {
    const message = this.#named(pb.CanAllocateRequest.fromPartial(request));
    return this.#call(this.#transport.stub.canAllocate, message, options);
  }

  /** State and counters of pools and engines: of those that the request names, or of all. */
  stats(
    request: Request<pb.StatsRequest> = {},
    options: CallOptions = {},
  ): Promise<pb.StatsResponse> {
    return this.#call(this.#transport.stub.stats, pb.StatsRequest.fromPartial(request), options);
  }

  /** One iteration of an engine: what it gives back, then what it takes. */
  step(request: Request<pb.StepRequest>, options: CallOptions = {}): Promise<pb.StepResponse> {
    const message = this.#changing(pb.StepRequest.fromPartial(request));
    return this.#call(this.#transport.stub.step, message, options);
  }

  /** Gives an engine a lease that its user renews by himself; a Session does that for him. */
  attachEngine(
    request: Request<pb.AttachEngineRequest> = {},
    options: CallOptions = {},
  ): Promise<pb.AttachEngineResponse> {
    const message = this.#changing(pb.AttachEngineRequest.fromPartial(request));
    return this.#call(this.#transport.stub.attachEngine, message, options);
  }

  /** Lets a lease last for a full TTL from now. */
  renewLease(
    request: Request<pb.RenewLeaseRequest>,
    options: CallOptions = {},
  ): Promise<pb.RenewLeaseResponse> {
    const message = this.#named(pb.RenewLeaseRequest.fromPartial(request));
    return this.#call(this.#transport.stub.renewLease, message, options);
  }

  /** Ends a lease and frees all of the engine's blocks. */
  detachEngine(
    request: Request<pb.DetachEngineRequest>,
    options: CallOptions = {},
  ): Promise<pb.DetachEngineResponse> {
    const message = this.#changing(pb.DetachEngineRequest.fromPartial(request));
    return this.#call(this.#transport.stub.detachEngine, message, options);
  }

  /** A session that is not attached yet. */
  session(options: SessionOptions = {}): Session {
    checkOpen(this.#closed.signal, undefined);
    const session: Session = new Session(
      {
        transport: this.#transport,
        settings: this.#settings,
        detachEngine: (request, how) => this.detachEngine(request, how),
        left: () => this.#sessions.delete(session),
      },
      options,
    );
    this.#sessions.add(session);
    return session;
  }

  /** A session that is attached. */
  async attach(options: SessionOptions & CallOptions = {}): Promise<Session> {
    const { timeoutMs, signal, ...wanted } = options;
    const session = this.session(wanted);
    try {
      await session.attach({ timeoutMs, signal });
    } catch (error) {
      session.close();
      throw error;
    }
    return session;
  }

  /** Ends all calls and closes all sessions, whose leases run out by themselves. Safe to repeat. */
  close(): void {
    this.#closed.abort();
    for (const session of this.#sessions) session.close();
    this.#transport.close();
  }

  /** As `close`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }

  #named<T extends { pool: string; engine: string }>(message: T): T {
    message.pool ||= this.#settings.pool;
    message.engine ||= this.#settings.engine;
    return message;
  }

  #changing<T extends { pool: string; engine: string; requestId: string }>(message: T): T {
    message.requestId ||= randomUUID();
    return this.#named(message);
  }

  async #call<Q, A>(method: Unary<Q, A>, request: Q, options: CallOptions, moreMs = 0): Promise<A> {
    const { timeoutMs, retries: enabled } = this.#settings;
    const retries = new Retries(timeoutOf(options.timeoutMs, timeoutMs) + moreMs, enabled);
    const closed = this.#closed.signal;
    const signals = [options.signal, closed];
    for (;;) {
      checkOpen(closed, options.signal);
      try {
        return await this.#transport.unary(method, request, retries.remainingMs, signals);
      } catch (error) {
        checkOpen(closed, options.signal);
        await pause(retries.delayMs(error), signals);
      }
    }
  }
}
