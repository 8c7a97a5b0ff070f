import type { Duration } from "./generated/google/protobuf/duration.js";

/** Nanoseconds of the monotonic clock, which all threads of the process share. */
export const now = process.hrtime.bigint;

const NANOSECONDS = 1_000_000n;
const TIMER_MAX_MS = 2 ** 31 - 1;

/** Nanoseconds of so many milliseconds. */
export function fromMs(ms: number): bigint {
  return BigInt(Math.round(ms * 1e6));
}

/** Milliseconds of so many nanoseconds, rounded up. */
export function toMs(ns: bigint): number {
  return Number((ns + NANOSECONDS - 1n) / NANOSECONDS);
}

/** Nanoseconds of a message's duration; unset: 0. */
export function durationNs(value: Duration | undefined): bigint {
  return value === undefined ? 0n : value.seconds * 1_000_000_000n + BigInt(value.nanos);
}

/** The duration of so many milliseconds, for the fields of requests that are one. */
export function duration(ms: number): Duration {
  const ns = fromMs(ms);
  return { seconds: ns / 1_000_000_000n, nanos: Number(ns % 1_000_000_000n) };
}

/** Waits; an abort of one of the signals ends it, and what came then is for the caller to see. */
export function pause(ms: number, signals: (AbortSignal | undefined)[]): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.min(ms, TIMER_MAX_MS));
    for (const signal of signals) {
      if (signal?.aborted) return end();
      signal?.addEventListener("abort", end);
    }
  });
}
