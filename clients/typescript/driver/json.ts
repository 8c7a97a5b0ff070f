/** Between protobuf's JSON form and that of the stubs, which differ in names and durations. */

type Json = Record<string, unknown>;

/** Duration fields of the proto, by name. */
const DURATIONS = [
  "max_wait",
  "ttl",
  "renew_after",
  "expires_in",
  "retry_after",
  "lease_expires_in",
];

/** A JSON value with the names of the proto and each duration replaced. */
function replaced(value: unknown, one: (duration: unknown) => unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => replaced(item, one));
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).map(([name, item]) => {
    const key = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    return [key, DURATIONS.includes(key) ? one(item) : replaced(item, one)];
  });
  return Object.fromEntries(entries);
}

/** Durations as `{seconds, nanos}`. */
export function toStubs(value: unknown): Json {
  return replaced(value ?? {}, (text) => {
    const match = /^(-?)([0-9]+)(?:\.([0-9]{1,9}))?s$/.exec(String(text));
    if (match === null) throw new Error(`no duration: ${String(text)}`);
    const sign = match[1] ?? "";
    const nanos = Number((match[3] ?? "").padEnd(9, "0"));
    return { seconds: `${sign}${match[2]}`, nanos: sign === "" ? nanos : -nanos };
  }) as Json;
}

/** Durations as text. */
export function fromStubs(value: unknown): Json {
  return replaced(value, (duration) => {
    const { seconds = "0", nanos = 0 } = duration as { seconds?: string; nanos?: number };
    const sign = nanos < 0 || seconds.startsWith("-") ? "-" : "";
    const part = nanos === 0 ? "" : `.${String(Math.abs(nanos)).padStart(9, "0")}`;
    return `${sign}${seconds.replace("-", "")}${part}s`;
  }) as Json;
}
