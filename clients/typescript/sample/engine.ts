/** An engine with continuous batching on a pool that it shares with others, and stamps to prove it. */
import { parseArgs } from "node:util";
import {
  type Arena,
  type Client,
  connect,
  KVBlockError,
  LeaseLostError,
  type Session,
  StepPolicy,
} from "../src/index.js";

const STAMP_BYTES = 32;
const SEQUENCES_MAX = 24;
const BLOCKS_MAX = 12;
const CHECKS = 8;
const PAUSE_MS = 1;

interface Counts {
  iterations: number;
  granted: number;
  refused: number;
  checked: number;
  overwritten: number;
  leases_lost: number;
}

/** Numbers from 0 to 1 that follow from a seed (a 32-bit linear congruential generator). */
function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

class Engine {
  readonly counts: Counts = {
    iterations: 0,
    granted: 0,
    refused: 0,
    checked: 0,
    overwritten: 0,
    leases_lost: 0,
  };
  readonly #client: Client;
  readonly #name: string;
  readonly #random: () => number;
  #tables = new Map<bigint, number[]>();
  #nextId = 1n;
  #session: Session | undefined;
  #arena: Arena | undefined;

  constructor(client: Client, name: string, seed: number) {
    this.#client = client;
    this.#name = name;
    this.#random = randomOf(seed);
  }

  async iterate(): Promise<void> {
    try {
      await this.#iterate();
      this.counts.iterations += 1;
    } catch (error) {
      if (!(error instanceof LeaseLostError)) throw error;
      this.counts.leases_lost += 1;
      this.#drop();
    }
  }

  async end(): Promise<void> {
    try {
      for (const [id, table] of this.#tables) this.#check(id, table);
      await this.#session?.detach();
    } catch (error) {
      if (!(error instanceof LeaseLostError)) throw error;
      this.counts.leases_lost += 1;
    }
    this.#drop();
  }

  /** No block is the engine's any more. */
  #drop(): void {
    this.#arena?.close();
    this.#session?.close();
    this.#session = undefined;
    this.#tables = new Map();
  }

  async #iterate(): Promise<void> {
    if (this.#session === undefined) {
      this.#session = await this.#attach();
      this.#arena = this.#session.arena();
    }
    const ended = [...this.#tables].filter(
      ([, table]) => table.length >= BLOCKS_MAX || this.#random() < 0.05,
    );
    for (const [id, table] of ended) this.#check(id, table);
    const free = ended.map(([id]) => id);
    const grow = [...this.#tables.keys()].filter(
      (id) => !free.includes(id) && this.#random() < 0.5,
    );
    while (this.#tables.size - free.length + grow.length < SEQUENCES_MAX && this.#random() < 0.3) {
      grow.push(this.#nextId);
      this.#nextId += 1n;
    }
    const { result } = await this.#step(this.#session, {
      freeSequenceIds: free,
      allocateSequenceIds: grow,
      policy: StepPolicy.IN_ORDER_UNTIL_REFUSED,
    });
    for (const id of free) this.#tables.delete(id);
    grow.slice(0, result.granted).forEach((id, row) => {
      const block = result.blockNumbers[row] as number;
      const table = this.#tables.get(id) ?? [];
      table.push(block);
      this.#tables.set(id, table);
      this.#stamp(id, table.length - 1, block);
    });
    this.counts.granted += result.blockNumbers.length;
    if (result.refusal !== undefined) this.counts.refused += 1;
    this.#checkSome();
  }

  /** Another client may have the name, until its lease has ended. */
  async #attach(): Promise<Session> {
    while (true) {
      try {
        return await this.#client.attach({ engine: this.#name });
      } catch (error) {
        if (!(error instanceof KVBlockError) || error.retryAfterMs === undefined) throw error;
        await new Promise((resolve) => setTimeout(resolve, error.retryAfterMs));
      }
    }
  }

  async #step(session: Session, work: Parameters<Session["step"]>[0]) {
    try {
      return await session.step(work);
    } catch (error) {
      if (!(error instanceof KVBlockError) || !session.unanswered) throw error;
      return await session.recover();
    }
  }

  #checkSome(): void {
    const tables = [...this.#tables];
    for (let count = 0; count < CHECKS && tables.length > 0; count += 1) {
      const [id, table] = tables[Math.floor(this.#random() * tables.length)] as [bigint, number[]];
      const place = Math.floor(this.#random() * table.length);
      this.#checkOne(id, place, table[place] as number);
    }
  }

  #check(id: bigint, table: number[]): void {
    table.forEach((block, place) => {
      this.#checkOne(id, place, block);
    });
  }

  #pieces(block: number): Uint8Array[] {
    const arena = this.#arena as Arena;
    return Array.from({ length: arena.regions }, (_, region) => arena.block(block, region));
  }

  #stampOf(id: bigint, place: number): Buffer {
    const stamp = Buffer.alloc(STAMP_BYTES);
    stamp.write(this.#name.slice(-12));
    stamp.writeBigUInt64LE(this.#session?.epoch ?? 0n, 12);
    stamp.writeBigUInt64LE(id, 20);
    stamp.writeUInt32LE(place, 28);
    return stamp;
  }

  #mustBeValid(): void {
    if (!this.#session?.leaseValid) throw new LeaseLostError("the lease has ended");
  }

  #stamp(id: bigint, place: number, block: number): void {
    const stamp = this.#stampOf(id, place);
    for (const piece of this.#pieces(block)) {
      const size = Math.min(STAMP_BYTES, piece.length);
      this.#mustBeValid();
      piece.set(stamp.subarray(0, size), 0);
      piece.set(stamp.subarray(0, size), piece.length - size);
    }
  }

  #checkOne(id: bigint, place: number, block: number): void {
    const stamp = this.#stampOf(id, place);
    const same = this.#pieces(block).every((piece) => {
      const size = Math.min(STAMP_BYTES, piece.length);
      return [piece.subarray(0, size), piece.subarray(piece.length - size)].every(
        (part) => Buffer.compare(part, stamp.subarray(0, size)) === 0,
      );
    });
    // What was read when the lease had ended may be a successor's, rightly.
    this.#mustBeValid();
    this.counts.checked += 1;
    if (!same) this.counts.overwritten += 1;
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      address: { type: "string" },
      engine: { type: "string" },
      seed: { type: "string", default: "1" },
      iterations: { type: "string", default: "Infinity" },
    },
  });
  const { address, engine: name } = values;
  if (address === undefined || name === undefined) {
    throw new Error("--address and --engine are needed");
  }
  let stopped = false;
  process.once("SIGTERM", () => {
    stopped = true;
  });
  await using client = connect(address);
  const engine = new Engine(client, name, Number(values.seed));
  const print = (ended: boolean) =>
    console.log(JSON.stringify({ language: "typescript", engine: name, ...engine.counts, ended }));
  const timer = setInterval(print, 1000, false);
  try {
    while (!stopped && engine.counts.iterations < Number(values.iterations)) {
      await engine.iterate();
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    await engine.end();
  } finally {
    clearInterval(timer);
  }
  print(true);
  return engine.counts.overwritten > 0 ? 1 : 0;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
