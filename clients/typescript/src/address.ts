import { resolve } from "node:path";
import { UsageError } from "./errors.js";

const SOCKET_PATH_BYTES_MAX = 107;
const FORMS = "must be unix:PATH, unix:///PATH or HOST:PORT";
const HOST_PORT = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})$/;

/** The gRPC target of an address; a relative socket path is taken from the working directory. */
export function targetOf(address: string): string {
  if (typeof address !== "string") throw new UsageError(`address ${FORMS}`);
  if (address.startsWith("unix:")) return unixTarget(address);
  const match = HOST_PORT.exec(address);
  if (match === null) throw new UsageError(`address ${address} ${FORMS}`);
  const port = Number(match[2]);
  if (port < 1 || port > 65_535) {
    throw new UsageError(`address ${address} must have a port from 1 to 65535`);
  }
  return `dns:///${address}`;
}

/** Whether what is sent to an address stays on this machine. */
export function staysHere(address: string): boolean {
  if (address.startsWith("unix:")) return true;
  const host = address
    .slice(0, address.lastIndexOf(":"))
    .replace(/^\[|\]$/g, "")
    .toLowerCase();
  return host === "localhost" || host === "::1" || /^127(\.[0-9]{1,3}){3}$/.test(host);
}

function unixTarget(address: string): string {
  let path = address.slice("unix:".length);
  if (path.startsWith("//")) {
    path = path.slice(2);
    if (!path.startsWith("/")) {
      throw new UsageError(`address ${address} must have an absolute path after unix://`);
    }
  }
  if (path === "" || path.includes("\0")) throw new UsageError(`address ${address} ${FORMS}`);
  path = resolve(path);
  const size = Buffer.byteLength(path);
  if (size > SOCKET_PATH_BYTES_MAX) {
    throw new UsageError(
      `address ${address} has a path of ${size} bytes; a socket's path has at most ${SOCKET_PATH_BYTES_MAX}`,
    );
  }
  return `unix:${path}`;
}
