import { fromMs, now, toMs } from "./clock.js";
import { type KVBlockError, mayRepeat } from "./errors.js";

const FIRST_DELAY_MAX_MS = 20;
const DELAY_MAX_MS = 250;

/** Milliseconds to wait after so many tries in a row that failed: a random part of a growing limit. */
export function backoff(tries: number): number {
  return Math.random() * Math.min(DELAY_MAX_MS, FIRST_DELAY_MAX_MS * 2 ** Math.min(tries - 1, 30));
}

/** The tries of one call, which begins now. */
export class Retries {
  readonly #ends: bigint;
  readonly #enabled: boolean;
  #count = 0;
  #failure: KVBlockError | undefined;

  constructor(timeoutMs: number, enabled: boolean) {
    this.#ends = now() + fromMs(timeoutMs);
    this.#enabled = enabled;
  }

  /** Milliseconds that are left; 0 or less: none. */
  get remainingMs(): number {
    return toMs(this.#ends - now());
  }

  /** Milliseconds to wait after a try that failed; throws what the call fails with otherwise. */
  delayMs(failure: unknown): number {
    if (!mayRepeat(failure)) throw failure;
    this.#count += 1;
    // A failure that leaves open whether the call was carried out is the one to tell of.
    if (!this.#failure?.fateUnknown) this.#failure = failure;
    const delay = (failure.retryAfterMs ?? 0) + backoff(this.#count);
    if (!this.#enabled || delay >= this.remainingMs) throw this.#failure;
    return delay;
  }
}
