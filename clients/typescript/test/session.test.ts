import assert from "node:assert/strict";
import { closeSync, openSync, readSync } from "node:fs";
import { test } from "node:test";
import {
  connect,
  DeadlineError,
  type KVBlockError,
  LeaseLostError,
  UnansweredError,
  UsageError,
} from "../src/index.js";
import { happens, Server } from "./server.js";

const SHORT = ["--lease-ttl", "1", "--lease-ttl-min", "0.5"];

test("steps are answered, and leaving the scope frees the blocks", async () => {
  await using server = await Server.start();
  await using client = connect(server.address, { engine: "e" });
  {
    await using session = await client.attach();
    assert.ok(session.leaseValid);
    const [first, second] = await Promise.all([
      session.step({ allocateSequenceIds: [1n, 2n] }),
      session.step({ freeSequenceIds: [1n], acquireNumBlocks: 1 }),
    ]);
    assert.deepEqual(first.result.blockNumbers, [0, 1]);
    assert.deepEqual(second.result.freedCounts, [1]);
  }
  const stats = await client.stats();
  assert.equal(stats.pools[0]?.heldBlocks, 0);
  assert.equal(stats.pools[0]?.reclaimedBlocksTotal, 0n);
});

test("the lease lasts while the engine's thread computes for three TTLs", async () => {
  await using server = await Server.start(...SHORT);
  await using client = connect(server.address, { engine: "e" });
  await using session = await client.attach();
  await session.step({ allocateSequenceIds: [1n] });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 3000);
  assert.ok(session.leaseValid);
  assert.deepEqual((await session.step({ allocateSequenceIds: [1n] })).result.blockNumbers, [1]);
});

test("a step goes on over a restart of the server, and takes effect once", async () => {
  await using server = await Server.start();
  await server.kill();
  const state = ["--pool", "main:total=64", "--state-dir", `${server.folder}/state`];
  await server.run(...state);
  await using client = connect(server.address, { engine: "e" });
  await using session = await client.attach();
  await session.step({ allocateSequenceIds: [1n] });
  await server.kill();
  const step = session.step({ allocateSequenceIds: [1n] });
  await server.run(...state);
  assert.deepEqual((await step).result.blockNumbers, [1]);
  assert.equal(await session.detach(), 2);
});

test("a step without an answer is recovered", async () => {
  await using server = await Server.start();
  await using client = connect(server.address, { engine: "e" });
  await using session = await client.attach();
  server.signal("SIGSTOP");
  const late = session.step({ allocateSequenceIds: [1n] }, { timeoutMs: 200 });
  await assert.rejects(late, DeadlineError);
  assert.ok(session.unanswered);
  await assert.rejects(session.step({}), UnansweredError);
  server.signal("SIGCONT");
  assert.deepEqual((await session.recover()).result.blockNumbers, [0]);
  await assert.rejects(session.recover(), UsageError);
  assert.deepEqual((await session.step({ allocateSequenceIds: [1n] })).result.blockNumbers, [1]);
});

test("a lease that another one takes over is lost, once", async () => {
  await using server = await Server.start(...SHORT);
  await using client = connect(server.address, { engine: "e" });
  const lost: KVBlockError[] = [];
  await using session = await client.attach({ onLost: (error) => lost.push(error) });
  await using successor = await client.attach({ takeover: true });
  await happens(() => lost.length > 0);
  assert.equal(lost[0]?.reason, "STALE_EPOCH");
  await assert.rejects(session.step({}), LeaseLostError);
  await assert.rejects(session.detach(), LeaseLostError);
  assert.equal(lost.length, 1);
  assert.ok(successor.leaseValid && !session.leaseValid);
});

test("a lease ends by its own time when the server stands still, before the step's deadline", async () => {
  await using server = await Server.start(...SHORT);
  await using client = connect(server.address, { engine: "e" });
  let lost = 0;
  await using session = await client.attach({
    onLost: () => {
      lost += 1;
    },
  });
  server.signal("SIGSTOP");
  await assert.rejects(session.step({}, { timeoutMs: 30_000 }), LeaseLostError);
  assert.equal(lost, 1);
});

test("an error ends the steps, and keeps the lease and the blocks", async () => {
  await using server = await Server.start();
  await using client = connect(server.address, { engine: "e" });
  await using session = await client.attach();
  await session.step({ allocateSequenceIds: [1n] });
  await assert.rejects(session.step({ releaseBlockNumbers: [9] }), { reason: "BLOCK_NOT_HELD" });
  await assert.rejects(session.step({}), { name: "ClosedError" });
  assert.ok(session.leaseValid);
  await session.renew();
  assert.equal(await session.detach(), 1);
});

test("an arena is the memory that others see", async () => {
  await using server = new Server();
  const pool = "main:total=8,reserved=1,block_bytes=4096,regions=2,memory=shm";
  await server.run("--pool", pool, "--memory-dir", server.folder, "--ephemeral");
  await using client = connect(server.address, { engine: "e" });
  await using session = await client.attach();
  const arena = session.arena();
  const piece = arena.block(3, 1);
  assert.equal(piece.length, 2048);
  piece.set([1, 2, 3]);
  const read = Buffer.alloc(3);
  const file = openSync(arena.path, "r");
  readSync(file, read, 0, 3, 8 * 2048 + 3 * 2048);
  closeSync(file);
  assert.deepEqual([...read], [1, 2, 3]);
  for (const [block, region] of [
    [0, 0],
    [8, 0],
    [1, 2],
    [-1, 0],
    [1.5, 0],
  ] as const) {
    assert.throws(() => arena.block(block, region), UsageError);
  }
  arena.close();
  assert.equal(piece[2], 3);
  assert.throws(() => arena.block(3), { name: "ClosedError" });
});
