import { closeSync, constants, fstatSync, openSync, type Stats } from "node:fs";
import koffi from "koffi";
import { ClosedError, KVBlockError, UsageError } from "./errors.js";
import type { SessionAttached } from "./generated/kvblock/v1/kvblock.js";

const SCHEME = "shm://";
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
/** A typed array of Node 20 has at most 4 GiB; a pool may have more. */
const WINDOW_BYTES = 2 ** 30;

const libc = koffi.load(null);
const mmap = libc.func("uintptr_t mmap(void *, size_t, int, int, int, int64_t)");
const munmap = libc.func("int munmap(uintptr_t, size_t)");

/** A mapping, which is unmapped when it is closed and nothing can see its bytes any more. */
interface Mapping {
  address: bigint;
  size: number;
  /** The arena, and the buffers that were made of the mapping. */
  users: number;
}

const unmapping = new FinalizationRegistry<Mapping>(leave);

function leave(mapping: Mapping): void {
  mapping.users -= 1;
  if (mapping.users === 0) munmap(mapping.address, mapping.size);
}

/**
 * The pool's memory, shared with the server's other engines.
 *
 * A mapping outlives its session. Ask `leaseValid` right before a write. It is unmapped when it was
 * closed, or is not used any more, and the last array of it has been collected.
 */
export class Arena {
  /** The file that is mapped. */
  readonly path: string;
  readonly totalBlocks: number;
  readonly reservedBlocks: number;
  readonly regions: number;
  /** Bytes of one block in one region. */
  readonly pieceBytes: number;
  readonly #mapping: Mapping;
  readonly #blocksOfWindow: number;
  readonly #windows = new Map<number, WeakRef<ArrayBuffer>>();
  #closed = false;

  /** Made by `Session.arena`. */
  constructor(pool: SessionAttached) {
    this.path = pathOf(pool.memoryUri);
    this.totalBlocks = pool.totalBlocks;
    this.reservedBlocks = pool.reservedBlocks;
    this.regions = pool.regions;
    this.pieceBytes = Number(pool.blockBytes) / pool.regions;
    this.#blocksOfWindow = Math.max(1, Math.floor(WINDOW_BYTES / this.pieceBytes));
    this.#mapping = mapped(this.path, pool.totalBlocks * Number(pool.blockBytes));
    unmapping.register(this, this.#mapping, this);
  }

  /** The bytes of a block in a region: no copy. */
  block(number: number, region = 0): Uint8Array {
    if (this.#closed) throw new ClosedError(`the arena ${this.path} was closed`);
    if (!Number.isInteger(number) || number < this.reservedBlocks || number >= this.totalBlocks) {
      throw new UsageError(
        `block ${number} is none of ${this.reservedBlocks} to ${this.totalBlocks - 1}`,
      );
    }
    if (!Number.isInteger(region) || region < 0 || region >= this.regions) {
      throw new UsageError(`region ${region} is none of 0 to ${this.regions - 1}`);
    }
    const row = Math.floor(number / this.#blocksOfWindow);
    const first = row * this.#blocksOfWindow;
    const buffer = this.#window(row * this.regions + region, region, first);
    return new Uint8Array(buffer, (number - first) * this.pieceBytes, this.pieceBytes);
  }

  /** Hands out no more arrays; those that are there stay usable. Safe to repeat. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    unmapping.unregister(this);
    leave(this.#mapping);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #window(key: number, region: number, first: number): ArrayBuffer {
    const known = this.#windows.get(key)?.deref();
    if (known !== undefined) return known;
    const count = Math.min(this.#blocksOfWindow, this.totalBlocks - first);
    const at = (region * this.totalBlocks + first) * this.pieceBytes;
    const made = koffi.view(this.#mapping.address + BigInt(at), count * this.pieceBytes);
    this.#mapping.users += 1;
    unmapping.register(made, this.#mapping);
    this.#windows.set(key, new WeakRef(made));
    return made;
  }
}

function pathOf(uri: string): string {
  if (uri === "") {
    throw new UsageError("the pool has no memory that kvblock knows of: it has memory=none");
  }
  let path = "";
  try {
    path = uri.startsWith(SCHEME) ? decodeURIComponent(uri.slice(SCHEME.length)) : "";
  } catch (error) {
    throw new UsageError(`the pool's memory is ${uri}, which is no URI of a file`, {
      cause: error,
    });
  }
  if (!path.startsWith("/")) {
    throw new UsageError(`the pool's memory is ${uri}, and an arena maps shm:///PATH only`);
  }
  return path;
}

function mapped(path: string, size: number): Mapping {
  const { O_RDWR, O_NOFOLLOW, O_NONBLOCK } = constants;
  let file: number;
  try {
    file = openSync(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    throw new UsageError(
      `${path}, the pool's memory, cannot be opened: ${(error as Error).message}`,
      { cause: error },
    );
  }
  try {
    const found: Stats = fstatSync(file);
    if (!found.isFile() || found.size !== size) {
      throw new UsageError(
        `${path} has ${found.size} bytes, and the pool's memory has ${size}: it is not the file` +
          " that the server made",
      );
    }
    const address = BigInt(mmap(null, size, PROT_READ_WRITE, MAP_SHARED, file, 0));
    if (address === MAP_FAILED) {
      throw new KVBlockError(`${path} cannot be mapped: errno ${koffi.errno()}`);
    }
    return { address, size, users: 1 };
  } finally {
    closeSync(file);
  }
}
