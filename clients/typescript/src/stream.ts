import type { ClientDuplexStream, ServiceError } from "@grpc/grpc-js";
import { KVBlockError } from "./errors.js";
import { tooLate } from "./failures.js";
import type { SessionRequest, SessionResponse } from "./generated/kvblock/v1/kvblock.js";
import type { Transport } from "./transport.js";

const TIMER_MAX_MS = 2 ** 31 - 1;

interface Pending {
  resolve: (answer: SessionResponse) => void;
  reject: (error: unknown) => void;
}

/** One stream of a session. One message at a time; its failure is told to the next who asks. */
export class Stream {
  readonly #call: ClientDuplexStream<SessionRequest, SessionResponse>;
  readonly #address: string;
  readonly #over: Promise<void>;
  #pending: Pending | undefined;
  #failure: KVBlockError | undefined;

  constructor(transport: Transport) {
    this.#address = transport.address;
    const call = transport.open();
    this.#call = call;
    call.on("data", (answer: SessionResponse) => {
      this.#pending?.resolve(answer);
    });
    call.on("error", (error: ServiceError) => {
      this.#fail(transport.failure(error, call));
    });
    this.#over = new Promise((resolve) => {
      call.on("status", () => {
        this.#fail(this.#broken());
        resolve();
      });
    });
  }

  /** Sends a message and waits for the next one that comes. A failure ends the stream. */
  async exchange(
    message: SessionRequest,
    timeoutMs: number,
    signals: (AbortSignal | undefined)[],
  ): Promise<SessionResponse> {
    if (this.#failure !== undefined) throw this.#failure;
    const answer = new Promise<SessionResponse>((resolve, reject) => {
      this.#pending = { resolve, reject };
    });
    const abort = () => this.#pending?.reject(this.#broken());
    for (const signal of signals) signal?.addEventListener("abort", abort);
    const timer = setTimeout(
      () => this.#pending?.reject(tooLate(this.#address)),
      Math.min(Math.max(timeoutMs, 1), TIMER_MAX_MS),
    );
    try {
      this.#call.write(message);
      return await answer;
    } catch (error) {
      this.cancel();
      throw error;
    } finally {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener("abort", abort);
      this.#pending = undefined;
    }
  }

  /** Ends it in order: waits for the server's end of it. */
  async finish(timeoutMs: number): Promise<void> {
    const timer = setTimeout(() => this.cancel(), Math.min(Math.max(timeoutMs, 1), TIMER_MAX_MS));
    this.#call.end();
    await this.#over;
    clearTimeout(timer);
  }

  /** Ends it at once. */
  cancel(): void {
    this.#fail(this.#broken());
    this.#call.cancel();
  }

  #fail(failure: KVBlockError): void {
    this.#failure ??= failure;
    this.#pending?.reject(this.#failure);
  }

  #broken(): KVBlockError {
    return new KVBlockError(`${this.#address} ended the session's stream without an answer`, {
      code: "UNAVAILABLE",
      then: "resume",
      fateUnknown: true,
    });
  }
}
