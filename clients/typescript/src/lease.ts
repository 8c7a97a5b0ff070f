const VALID_UNTIL = 0;
const TTL = 1;
const RENEW_AFTER = 2;
const STATE = 3;
const OWED = 4;
const CELLS = 5;

const OPEN = 0n;
const RELEASED = 1n;
const LOST = 2n;

/**
 * A lease in memory that the engine's thread and the renewal's share.
 *
 * Times are nanoseconds of the monotonic clock. The lease is valid for one TTL from the moment at
 * which the last message was sent that was answered. Its end is final.
 */
export class SharedLease {
  readonly buffer: SharedArrayBuffer;
  readonly #cells: BigInt64Array;

  constructor(buffer = new SharedArrayBuffer(CELLS * 8)) {
    this.buffer = buffer;
    this.#cells = new BigInt64Array(buffer);
  }

  /** Until when it is valid. */
  get validUntil(): bigint {
    return Atomics.load(this.#cells, VALID_UNTIL);
  }

  /** When it is to be renewed. */
  get renewAt(): bigint {
    const cells = this.#cells;
    return this.validUntil - Atomics.load(cells, TTL) + Atomics.load(cells, RENEW_AFTER);
  }

  /** Whether it was neither lost nor released so far; its time may have passed. */
  get open(): boolean {
    return Atomics.load(this.#cells, STATE) === OPEN;
  }

  /** Whether it was lost. */
  get lost(): boolean {
    return Atomics.load(this.#cells, STATE) === LOST;
  }

  /** Whether it is valid now. */
  get valid(): boolean {
    return this.open && process.hrtime.bigint() < this.validUntil;
  }

  /** How many of the engine's idle blocks others lack, by the last answer. */
  get owedBlocks(): number {
    return Number(Atomics.load(this.#cells, OWED));
  }

  set owedBlocks(count: number) {
    Atomics.store(this.#cells, OWED, BigInt(count));
  }

  /** What an attach or a renewal has told of it. */
  told(ttl: bigint, renewAfter: bigint): void {
    Atomics.store(this.#cells, TTL, ttl);
    Atomics.store(this.#cells, RENEW_AFTER, renewAfter);
  }

  /** A message that was sent at that moment was answered; false: the lease had ended meanwhile. */
  answered(sent: bigint): boolean {
    if (!this.valid) return false;
    this.extend(sent);
    return this.open;
  }

  /** Lets it last for a TTL from a moment; it never becomes shorter by that. */
  extend(sent: bigint): void {
    const until = sent + Atomics.load(this.#cells, TTL);
    let seen = this.validUntil;
    while (seen < until) {
      const found = Atomics.compareExchange(this.#cells, VALID_UNTIL, seen, until);
      if (found === seen) return;
      seen = found;
    }
  }

  /** It is lost; true: by this. */
  lose(): boolean {
    return Atomics.compareExchange(this.#cells, STATE, OPEN, LOST) === OPEN;
  }

  /** It is kept no longer. */
  release(): void {
    Atomics.compareExchange(this.#cells, STATE, OPEN, RELEASED);
  }
}
