/** A real server for one test, on a socket of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const DEFAULT = ["--pool", "main:total=64,block_size=16,quarantine=0", "--ephemeral"];

export class Server {
  readonly folder = mkdtempSync(join(tmpdir(), "kvb-"));
  readonly address = `unix:${this.folder}/x.sock`;
  #process: ChildProcess | undefined;

  static async start(...args: string[]): Promise<Server> {
    const server = new Server();
    await server.run(...args);
    return server;
  }

  async run(...args: string[]): Promise<void> {
    const command = process.env.KVBLOCK;
    if (command === undefined) throw new Error("KVBLOCK names no kvblock");
    const given = args.includes("--pool") ? args : [...DEFAULT, ...args];
    const child = spawn(command, ["serve", "--listen", this.address, ...given], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.#process = child;
    for await (const line of createInterface({ input: child.stdout })) {
      if (line.startsWith("kvblock ready ")) return;
    }
    throw new Error("the server did not start");
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name);
  }

  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined) return;
    this.#process = undefined;
    child.kill("SIGKILL");
    if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** Polls until it is so. */
export async function happens(what: () => boolean): Promise<void> {
  for (let tries = 0; tries < 1000; tries += 1) {
    if (what()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("it did not happen");
}
