import { randomUUID } from "node:crypto";
import { Arena } from "./arena.js";
import { durationNs, now, pause } from "./clock.js";
import {
  ClosedError,
  DeadlineError,
  KVBlockError,
  LeaseLostError,
  mayRepeat,
  UnansweredError,
  UsageError,
} from "./errors.js";
import { tooLate } from "./failures.js";
import {
  type DeepPartial,
  type DetachEngineRequest,
  type DetachEngineResponse,
  EngineHints,
  EngineStep,
  RenewLeaseRequest,
  SessionAttach,
  type SessionAttached,
  type SessionRequest,
  SessionStep,
  type StepResult,
} from "./generated/kvblock/v1/kvblock.js";
import { SharedLease } from "./lease.js";
import { Renewal } from "./renewal.js";
import { Retries } from "./retry.js";
import { type CallOptions, type Settings, timeoutOf } from "./settings.js";
import { Stream } from "./stream.js";
import { traceparent } from "./trace.js";
import type { Transport } from "./transport.js";

const LEAVE_MS = 2000;

/** What an attach asks for: the fields of the proto's SessionAttach, and who hears of a loss. */
export interface SessionOptions extends Omit<DeepPartial<SessionAttach>, "recall"> {
  /** Called once when the lease is lost: no block may be written any more. */
  onLost?: (error: LeaseLostError) => void;
}

/** How a step is made. */
export interface StepOptions extends CallOptions {
  /** What the engine lacks and could give back; unset: as it said last. */
  hints?: DeepPartial<EngineHints>;
}

/** What a step is answered. */
export interface StepAnswer {
  result: StepResult;
  /** How many of the engine's idle blocks others lack now. */
  owedBlocks: number;
}

/** What a session needs of its client. */
export interface SessionHost {
  transport: Transport;
  settings: Settings;
  detachEngine(
    request: DeepPartial<DetachEngineRequest>,
    options: CallOptions,
  ): Promise<DetachEngineResponse>;
  left(session: Session): void;
}

/**
 * One engine's lease, and its steps on one stream.
 *
 * It can be used with `await using`: leaving the scope detaches.
 */
export class Session {
  readonly #host: SessionHost;
  readonly #attach: SessionAttach;
  readonly #onLost: ((error: LeaseLostError) => void) | undefined;
  readonly #lease = new SharedLease();
  readonly #interrupt = new AbortController();
  #renewal: Renewal | undefined;
  #stream: Stream | undefined;
  #attached: SessionAttached | undefined;
  /** The step that was sent and not answered. */
  #inFlight: SessionStep | undefined;
  #lastStepId = 0n;
  /** Why no step can be made any more. */
  #ended: string | undefined;
  #over = false;
  #lost: LeaseLostError | undefined;
  #strayAttaches = 0;
  #detachId = "";
  #turn: Promise<unknown> = Promise.resolve();

  /** Made by `Client.session`. */
  constructor(host: SessionHost, options: SessionOptions) {
    const { onLost, ...attach } = options;
    this.#host = host;
    this.#onLost = onLost;
    this.#attach = SessionAttach.fromPartial({
      ...attach,
      pool: attach.pool || host.settings.pool,
      engine: attach.engine || host.settings.engine,
      requestId: attach.requestId || randomUUID(),
    });
  }

  /** What the attach was answered; undefined before it. */
  get attachment(): SessionAttached | undefined {
    return this.#attached;
  }

  /** Fences all calls under this lease; 0 before the attach. */
  get epoch(): bigint {
    return this.#attached?.lease?.epoch ?? 0n;
  }

  /** Whether steps can be made, once the one in flight is answered. */
  get attached(): boolean {
    return this.leaseValid && this.#ended === undefined;
  }

  /** Whether the blocks are the engine's at this moment: to be asked before KV memory is written. */
  get leaseValid(): boolean {
    if (this.#lease.valid) return true;
    if (this.#attached !== undefined && (this.#lease.open || this.#lease.lost)) this.#expired();
    return false;
  }

  /** Whether a step was sent and not answered: `recover` answers it. */
  get unanswered(): boolean {
    return this.#inFlight !== undefined && this.attached;
  }

  /** How many of the engine's idle blocks others lack, by the last step or renewal. */
  get owedBlocks(): number {
    return this.#lease.owedBlocks;
  }

  /** Opens the session. One that failed may be tried again. */
  attach(options: CallOptions = {}): Promise<SessionAttached> {
    return this.#exclusive(options, async (retries) => {
      if (this.#ended !== undefined || this.#attached !== undefined) {
        throw new ClosedError(this.#ended ?? "a session attaches once; make a new one");
      }
      this.#renewal ??= new Renewal(this.#lease, this.#host.settings.channel, (why) =>
        this.#lose(why),
      );
      for (;;) {
        try {
          const { answer, sent } = await this.#open(this.#attach, retries, options.signal);
          this.#take(answer, sent);
          return answer;
        } catch (error) {
          await this.#wait(retries.delayMs(error), options.signal);
        }
      }
    });
  }

  /**
   * One iteration: what the engine gives back, then what it takes. What was refused is a value.
   *
   * An error whose cause is not a matter of time ends the session's steps; the step had no effect.
   */
  step(work: DeepPartial<EngineStep>, options: StepOptions = {}): Promise<StepAnswer> {
    return this.#exclusive(options, async (retries) => {
      this.#check();
      if (this.#inFlight !== undefined) {
        throw new UnansweredError("the step before this one was not answered; recover answers it");
      }
      const hints = options.hints && EngineHints.fromPartial(options.hints);
      const step = SessionStep.create({
        stepId: this.#lastStepId + 1n,
        traceparent: traceparent(),
      });
      step.step = EngineStep.fromPartial(work);
      step.hints = hints;
      if (hints !== undefined) this.#renewal?.hints(hints);
      this.#inFlight = step;
      return this.#deliver(step, retries, options.signal);
    });
  }

  /** Answers the step that was not answered. It is sent again and takes effect once. */
  recover(options: CallOptions = {}): Promise<StepAnswer> {
    return this.#exclusive(options, (retries) => {
      this.#check();
      if (this.#inFlight === undefined) {
        throw new UsageError("every step of this session was answered");
      }
      return this.#deliver(this.#inFlight, retries, options.signal);
    });
  }

  /** Renews the lease now, as the background does by itself; resolves when that is answered. */
  async renew(): Promise<void> {
    this.#checkLease();
    await this.#renewal?.renew();
  }

  /** Ends the lease and frees all of the engine's blocks; answers how many these were. */
  detach(options: CallOptions = {}): Promise<number> {
    return this.#exclusive(options, async (retries) => {
      this.#checkLease();
      this.#ended ??= "this session was detached";
      await this.#stream?.finish(retries.remainingMs);
      this.#stream = undefined;
      this.#detachId ||= randomUUID();
      try {
        const { freedBlocks } = await this.#host.detachEngine(
          {
            pool: this.#attached?.pool ?? "",
            engine: this.#attached?.engine ?? "",
            epoch: this.epoch,
            requestId: this.#detachId,
          },
          { timeoutMs: Math.max(1, retries.remainingMs), signal: options.signal },
        );
        this.#end("this session was detached");
        return freedBlocks;
      } catch (error) {
        if (error instanceof LeaseLostError) this.#lose(error);
        throw error;
      }
    });
  }

  /** Keeps the lease no longer, without a detach: it runs out by itself. Safe to repeat. */
  close(): void {
    this.#end("this session was closed");
  }

  /** Detaches, for at most 2 s, and closes. It never throws. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.leaseValid && !this.#over) {
      this.#ended ??= "it was left";
      this.#stream?.cancel();
      // A lease that could not be given back in time runs out by itself.
      await this.detach({ timeoutMs: LEAVE_MS }).catch((error: unknown) => {
        if (!(error instanceof KVBlockError)) throw error;
      });
    }
    this.close();
  }

  /** Maps the pool's memory, which has to be behind `shm://`. */
  arena(): Arena {
    this.#checkLease();
    return new Arena(this.#attached as SessionAttached);
  }

  async #exclusive<T>(options: CallOptions, call: (retries: Retries) => Promise<T>): Promise<T> {
    const { timeoutMs, retries: enabled } = this.#host.settings;
    const retries = new Retries(timeoutOf(options.timeoutMs, timeoutMs), enabled);
    const before = this.#turn;
    const mine = before.then(async () => {
      options.signal?.throwIfAborted();
      if (retries.remainingMs <= 0) throw tooLate(this.#host.transport.address, false);
      return call(retries);
    });
    // The next one's turn comes however this one ends.
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  async #deliver(
    step: SessionStep,
    retries: Retries,
    signal: AbortSignal | undefined,
  ): Promise<StepAnswer> {
    for (;;) {
      let resumed = false;
      try {
        if (this.#stream === undefined) {
          const { answer, sent } = await this.#open(this.#resume(), retries, signal);
          if (answer.lease?.epoch !== this.epoch) throw this.#unexpected();
          this.#confirm(sent);
        }
        resumed = true;
        const sent = now();
        const answer = await this.#exchange(
          { message: { $case: "step", value: step } },
          retries.remainingMs,
          signal,
        );
        this.#confirm(sent);
        if (answer.message?.$case !== "stepped" || answer.message.value.stepId !== step.stepId) {
          throw this.#unexpected();
        }
        const { result, owedBlocks } = answer.message.value;
        if (result === undefined) throw this.#unexpected();
        this.#lastStepId = step.stepId;
        this.#inFlight = undefined;
        this.#lease.owedBlocks = owedBlocks;
        return { result, owedBlocks };
      } catch (error) {
        if (error instanceof LeaseLostError) this.#lose(error);
        this.#check();
        signal?.throwIfAborted();
        if (!mayRepeat(error)) {
          if (resumed && error instanceof KVBlockError && !this.#mayBeAnswered(error)) {
            this.#inFlight = undefined;
            this.#ended = `an error has ended its steps: ${error.message}`;
          }
          throw error;
        }
        await this.#wait(retries.delayMs(error), signal);
        this.#check();
      }
    }
  }

  #mayBeAnswered(error: KVBlockError): boolean {
    return error instanceof DeadlineError || error.fateUnknown;
  }

  /** Attaches on a new stream; answers also from when on the lease is sure to last. */
  async #open(
    attach: SessionAttach,
    retries: Retries,
    signal: AbortSignal | undefined,
  ): Promise<{ answer: SessionAttached; sent: bigint }> {
    this.#stream?.cancel();
    this.#stream = new Stream(this.#host.transport);
    const sent = now();
    let stray = 1;
    try {
      const answer = await this.#exchange(
        { message: { $case: "attach", value: attach } },
        retries.remainingMs,
        signal,
      );
      stray = 0;
      if (answer.message?.$case !== "attached") throw this.#unexpected();
      return { answer: answer.message.value, sent };
    } catch (error) {
      if (error instanceof KVBlockError && error.reason !== undefined) stray = 0;
      throw error;
    } finally {
      // One whose answer did not come may yet end the stream after it.
      this.#strayAttaches += stray;
    }
  }

  async #exchange(message: SessionRequest, timeoutMs: number, signal: AbortSignal | undefined) {
    const stream = this.#stream;
    if (stream === undefined) throw this.#unexpected();
    try {
      return await stream.exchange(message, timeoutMs, [signal, this.#interrupt.signal]);
    } catch (error) {
      this.#stream = undefined;
      this.#checkOver();
      signal?.throwIfAborted();
      const replaced = error instanceof KVBlockError && error.reason === "SESSION_REPLACED";
      if (replaced && this.#attached !== undefined && this.#strayAttaches > 0) {
        // The lease goes on in another stream, of an attach of our own that was late.
        this.#strayAttaches -= 1;
        throw new KVBlockError(error.message, { code: error.code, then: "resume" });
      }
      throw error;
    }
  }

  #resume(): SessionAttach {
    return SessionAttach.fromPartial({
      pool: this.#attached?.pool,
      engine: this.#attached?.engine,
      epoch: this.epoch,
      expect: this.#attach.expect,
    });
  }

  #take(answer: SessionAttached, sent: bigint): void {
    this.#attached = answer;
    this.#lastStepId = answer.lastStepId;
    this.#lease.told(durationNs(answer.lease?.ttl), durationNs(answer.lease?.renewAfter));
    this.#lease.extend(sent);
    this.#checkLease();
    this.#renewal?.start(
      RenewLeaseRequest.fromPartial({
        pool: answer.pool,
        engine: answer.engine,
        epoch: this.epoch,
      }),
    );
  }

  #confirm(sent: bigint): void {
    if (!this.#lease.answered(sent)) this.#checkLease();
  }

  async #wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
    await pause(ms, [signal, this.#interrupt.signal]);
    this.#checkOver();
    signal?.throwIfAborted();
  }

  /** Throws unless the lease is there; a lost lease comes before everything else. */
  #checkLease(): void {
    if (this.leaseValid) return;
    if (this.#lost !== undefined) throw new LeaseLostError(this.#lost.message, { ...this.#lost });
    throw new ClosedError(this.#ended ?? "this session is not attached");
  }

  #check(): void {
    this.#checkLease();
    if (this.#ended !== undefined) throw new ClosedError(`this session has ended: ${this.#ended}`);
  }

  #checkOver(): void {
    if (this.#attached !== undefined) this.#checkLease();
    else if (this.#over) throw new ClosedError(this.#ended ?? "this session was closed");
  }

  #expired(): void {
    this.#renewal?.drain();
    this.#lose(undefined);
  }

  #lose(why: LeaseLostError | undefined): void {
    this.#lease.lose();
    if (this.#lost !== undefined || !this.#lease.lost) return;
    this.#lost =
      why ??
      new LeaseLostError(
        `the lease of engine ${this.#attached?.engine} was not renewed within its TTL; its blocks` +
          " may have new owners, attach again",
      );
    this.#end("its lease was lost");
    if (this.#onLost === undefined) return;
    try {
      this.#onLost(this.#lost);
    } catch (error) {
      // It is the user's own: it must not look like a failure of the call that found the loss.
      queueMicrotask(() => {
        throw error;
      });
    }
  }

  #end(why: string): void {
    if (this.#over) return;
    this.#over = true;
    this.#ended = why;
    this.#lease.release();
    this.#renewal?.stop(this.#lost ?? new ClosedError(why));
    this.#interrupt.abort();
    this.#stream?.cancel();
    this.#stream = undefined;
    this.#host.left(this);
  }

  #unexpected(): KVBlockError {
    return new KVBlockError("the server answered something else than was asked");
  }
}
