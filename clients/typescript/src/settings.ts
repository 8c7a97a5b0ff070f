import { readFileSync } from "node:fs";
import { staysHere, targetOf } from "./address.js";
import { UsageError } from "./errors.js";

/** TLS to the server; each file is PEM, and is read when the client is made. */
export interface TlsOptions {
  /** File with the authorities of the server's certificate; unset: those of Node. */
  ca?: string;
  /** File with the client's certificate; it goes with `key`. */
  cert?: string;
  /** File with the key of `cert`. */
  key?: string;
  /** The name in the server's certificate, where it is not that of the address. */
  serverName?: string;
}

/** How a client is made. */
export interface ConnectOptions {
  /** The pool that is meant where a call names none; unset: the server's default pool. */
  pool?: string;
  /** The engine that is meant where a call names none; unset: `default`. */
  engine?: string;
  /** Milliseconds for a call with all its tries; unset: 30000. */
  timeoutMs?: number;
  /** Whether calls are tried again when that can help; unset: true. */
  retries?: boolean;
  /** Sent with each call as `Bearer`; needs TLS unless the server is on this machine. */
  token?: string;
  /** TLS; `true`: with the authorities of Node. Not with a Unix socket. */
  tls?: TlsOptions | boolean;
}

/** How one call is made. */
export interface CallOptions {
  /** Milliseconds for the call with all its tries; unset: the client's. */
  timeoutMs?: number;
  /** Ends the call; it then rejects with the signal's reason. What was sent may be carried out. */
  signal?: AbortSignal;
}

/** What a channel is made of; it can be sent to another thread. */
export interface ChannelSettings {
  address: string;
  target: string;
  token: string | undefined;
  tls:
    | {
        ca: string | undefined;
        cert: string | undefined;
        key: string | undefined;
        serverName: string | undefined;
      }
    | undefined;
}

/** A client's settings, checked. */
export interface Settings {
  pool: string;
  engine: string;
  timeoutMs: number;
  retries: boolean;
  channel: ChannelSettings;
}

/** Checks what a client was given; what is wrong is a UsageError. */
export function settingsOf(address: string, options: ConnectOptions): Settings {
  const target = targetOf(address);
  const tls = options.tls === true ? {} : options.tls || undefined;
  if (tls !== undefined && target.startsWith("unix:")) {
    throw new UsageError("tls goes with HOST:PORT; a Unix socket is plain");
  }
  const { token } = options;
  if (token !== undefined) {
    if (typeof token !== "string" || !/^[!-~]+$/.test(token)) {
      throw new UsageError("token must be printable ASCII characters without blanks");
    }
    if (tls === undefined && !staysHere(address)) {
      throw new UsageError(
        `token would go to ${address} readable for everyone on the way; use TLS (tls)`,
      );
    }
  }
  if (tls !== undefined && (tls.cert === undefined) !== (tls.key === undefined)) {
    throw new UsageError("tls.cert and tls.key must be given together");
  }
  return {
    pool: options.pool ?? "",
    engine: options.engine ?? "",
    timeoutMs: timeoutOf(options.timeoutMs, 30_000),
    retries: options.retries ?? true,
    channel: {
      address,
      target,
      token,
      tls: tls && {
        ca: pem("tls.ca", tls.ca, "CERTIFICATE"),
        cert: pem("tls.cert", tls.cert, "CERTIFICATE"),
        key: pem("tls.key", tls.key, "PRIVATE KEY"),
        serverName: tls.serverName,
      },
    },
  };
}

/** A timeout in milliseconds, or another one where none was given. */
export function timeoutOf(given: number | undefined, otherwise: number): number {
  const ms = given ?? otherwise;
  if (typeof ms !== "number" || !(ms > 0) || !Number.isFinite(ms)) {
    throw new UsageError(`timeoutMs must be a number of milliseconds above 0, not ${ms}`);
  }
  return ms;
}

function pem(field: string, path: string | undefined, kind: string): string | undefined {
  if (path === undefined) return undefined;
  let content: string;
  try {
    content = readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`${field}: ${path} cannot be read: ${(error as Error).message}`, {
      cause: error,
    });
  }
  // TLS would take any text, and only ever fail to connect.
  if (!content.includes(kind)) throw new UsageError(`${field}: ${path} must be PEM with a ${kind}`);
  return content;
}
