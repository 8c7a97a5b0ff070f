import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ClosedError,
  connect,
  DeadlineError,
  type KVBlockError,
  RefusalReason,
  UsageError,
} from "../src/index.js";
import { Server } from "./server.js";

test("calls are answered, and a refusal is a value", async () => {
  await using server = await Server.start();
  await using client = connect(server.address);
  const granted = await client.allocate({ sequenceId: 1n, numBlocks: 3 });
  assert.equal(granted.kind, "granted");
  assert.deepEqual(granted.kind === "granted" && granted.blockNumbers, [0, 1, 2]);
  const refused = await client.allocate({ sequenceId: 2n, numBlocks: 100 });
  assert.equal(refused.kind === "refused" && refused.reason, RefusalReason.EXCEEDS_POOL);
  assert.deepEqual((await client.getBlockTable({ sequenceId: 1n })).blockNumbers, [0, 1, 2]);
  assert.equal(await client.freeReturningCount({ sequenceId: 1n }), 3);
});

test("an error tells what the server said", async () => {
  await using server = await Server.start();
  await using client = connect(server.address, { pool: "nowhere" });
  await assert.rejects(client.canAllocate(), (error: KVBlockError) => {
    const { code, reason, then, fateUnknown, metadata } = error;
    assert.deepEqual(
      { code, reason, then, fateUnknown, pool: metadata.pool },
      {
        code: "NOT_FOUND",
        reason: "POOL_NOT_FOUND",
        then: "give_up",
        fateUnknown: false,
        pool: "nowhere",
      },
    );
    return true;
  });
});

test("a call without a server was never sent, and goes on when the server comes", async () => {
  await using server = new Server();
  await using client = connect(server.address);
  await assert.rejects(client.canAllocate({}, { timeoutMs: 300 }), (error: KVBlockError) => {
    assert.equal(error.code, "UNAVAILABLE");
    assert.equal(error.fateUnknown, false);
    return true;
  });
  const answer = client.allocate({ sequenceId: 1n });
  await server.run();
  assert.equal((await answer).kind, "granted");
});

test("a server that stands still is a deadline, whose fate is unknown", async () => {
  await using server = await Server.start();
  await using client = connect(server.address);
  await client.stats();
  server.signal("SIGSTOP");
  await assert.rejects(client.allocate({ sequenceId: 1n }, { timeoutMs: 200 }), (error) => {
    assert.ok(error instanceof DeadlineError && error.fateUnknown);
    return true;
  });
});

test("an abort and a close end a call", async () => {
  await using server = await Server.start();
  await using client = connect(server.address);
  await client.stats();
  const wait = { seconds: 20n };
  await client.allocate({ sequenceId: 1n, numBlocks: 64 });
  const abort = new AbortController();
  const aborted = client.allocate({ sequenceId: 2n, maxWait: wait }, { signal: abort.signal });
  const closed = client.allocate({ sequenceId: 3n, maxWait: wait });
  abort.abort();
  await assert.rejects(aborted, { name: "AbortError" });
  client.close();
  client.close();
  await assert.rejects(closed, ClosedError);
});

test("a token does not go over the network without TLS, and is in no text", () => {
  assert.throws(
    () => connect("10.0.0.1:50051", { token: "secret-token" }),
    (error) => error instanceof UsageError && !error.message.includes("secret-token"),
  );
  assert.throws(() => connect("unix:x.sock", { tls: true }), UsageError);
  assert.throws(() => connect("nonsense"), UsageError);
});
