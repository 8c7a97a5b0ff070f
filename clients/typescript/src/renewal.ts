import {
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
} from "node:worker_threads";
import { type ErrorFacts, KVBlockError, LeaseLostError } from "./errors.js";
import type { EngineHints, RenewLeaseRequest } from "./generated/kvblock/v1/kvblock.js";
import type { SharedLease } from "./lease.js";
import type { ChannelSettings } from "./settings.js";

/** What a renewal's thread begins with. */
export interface RenewalStart {
  buffer: SharedArrayBuffer;
  channel: ChannelSettings;
  port: MessagePort;
}

interface SentError {
  message: string;
  facts: ErrorFacts;
}

export type ToRenewal =
  | { kind: "start"; request: RenewLeaseRequest }
  | { kind: "hints"; hints: EngineHints }
  | { kind: "renew"; id: number }
  | { kind: "stop" };

export type FromRenewal =
  | { kind: "lost"; error: SentError | undefined }
  | { kind: "renewed"; id: number }
  | { kind: "failed"; id: number; error: SentError };

/** The engine's side of the thread that renews a lease. */
export class Renewal {
  readonly #port: MessagePort;
  readonly #lost: (error: LeaseLostError | undefined) => void;
  readonly #waiting = new Map<
    number,
    { resolve: () => void; reject: (error: KVBlockError) => void }
  >();
  #asked = 0;
  #stopped = false;

  /** `lost` is called with why, where the server said it. */
  constructor(
    lease: SharedLease,
    channel: ChannelSettings,
    lost: (error: LeaseLostError | undefined) => void,
  ) {
    this.#lost = lost;
    const { port1, port2 } = new MessageChannel();
    this.#port = port1;
    const workerData: RenewalStart = { buffer: lease.buffer, channel, port: port2 };
    const worker = new Worker(new URL("./renewal-worker.js", import.meta.url), {
      workerData,
      transferList: [port2],
      execArgv: [],
      name: "kvblock-renewal",
    });
    worker.on("error", (error) => {
      // Nobody renews it any more: an engine that went on would find out too late.
      lost(new LeaseLostError(`the lease cannot be renewed: ${error.message}`, { cause: error }));
    });
    worker.unref();
    port1.on("message", (message: FromRenewal) => this.#take(message));
    port1.unref();
  }

  /** Renew the lease from now on. */
  start(request: RenewLeaseRequest): void {
    this.#send({ kind: "start", request });
  }

  /** What the next renewals say that the engine lacks and could give back. */
  hints(hints: EngineHints): void {
    this.#send({ kind: "hints", hints });
  }

  /** Renews it now; resolves when that is answered. */
  renew(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#asked += 1;
      this.#waiting.set(this.#asked, { resolve, reject });
      this.#port.ref();
      this.#send({ kind: "renew", id: this.#asked });
    });
  }

  /** Takes what the thread has said while this one was busy. */
  drain(): void {
    for (let got = receiveMessageOnPort(this.#port); got; got = receiveMessageOnPort(this.#port)) {
      this.#take(got.message as FromRenewal);
    }
  }

  /** Ends the thread; whoever waits for a renewal fails with `why`. */
  stop(why: KVBlockError): void {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#send({ kind: "stop" });
    this.#port.unref();
    for (const { reject } of this.#waiting.values()) reject(why);
    this.#waiting.clear();
  }

  #send(message: ToRenewal): void {
    this.#port.postMessage(message);
  }

  #take(message: FromRenewal): void {
    if (message.kind === "lost") {
      const { error } = message;
      this.#lost(error && new LeaseLostError(error.message, error.facts));
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if (this.#waiting.size === 0) this.#port.unref();
    if (message.kind === "renewed") waiting?.resolve();
    else waiting?.reject(new KVBlockError(message.error.message, message.error.facts));
  }
}
