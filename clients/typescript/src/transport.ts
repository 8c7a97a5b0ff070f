import {
  type ClientDuplexStream,
  type ClientUnaryCall,
  credentials,
  type CallOptions as GrpcCallOptions,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { ClosedError, type KVBlockError } from "./errors.js";
import { errorOf } from "./failures.js";
import {
  KVBlockServiceClient,
  type SessionRequest,
  type SessionResponse,
} from "./generated/kvblock/v1/kvblock.js";
import type { ChannelSettings } from "./settings.js";
import { addTrace } from "./trace.js";

const MESSAGE_BYTES_MAX = 16 * 1024 * 1024;

/** A unary method of the stubs. */
export type Unary<Q, A> = (
  request: Q,
  metadata: Metadata,
  options: Partial<GrpcCallOptions>,
  callback: (error: ServiceError | null, answer: A) => void,
) => ClientUnaryCall;

/** One channel to a server. Each call is tried once. */
export class Transport {
  readonly stub: KVBlockServiceClient;
  readonly address: string;
  readonly #token: string | undefined;
  readonly #target: string;

  constructor(settings: ChannelSettings) {
    const { tls } = settings;
    this.address = settings.address;
    this.#token = settings.token;
    const name = tls?.serverName;
    this.stub = new KVBlockServiceClient(
      settings.target,
      tls === undefined
        ? credentials.createInsecure()
        : credentials.createSsl(bytes(tls.ca), bytes(tls.key), bytes(tls.cert)),
      {
        "grpc.enable_http_proxy": 0,
        "grpc.enable_retries": 0,
        "grpc.service_config_disable_resolution": 1,
        "grpc.use_local_subchannel_pool": 1,
        "grpc.initial_reconnect_backoff_ms": 100,
        "grpc.max_reconnect_backoff_ms": 1000,
        "grpc.max_receive_message_length": MESSAGE_BYTES_MAX,
        "grpc.max_send_message_length": MESSAGE_BYTES_MAX,
        ...(name === undefined
          ? {}
          : { "grpc.ssl_target_name_override": name, "grpc.default_authority": name }),
      },
    );
    this.#target = this.stub.getChannel().getTarget();
  }

  /** One try of a unary call; `signals` end it, and what came then is for the caller to see. */
  unary<Q, A>(
    method: Unary<Q, A>,
    request: Q,
    timeoutMs: number,
    signals: (AbortSignal | undefined)[] = [],
  ): Promise<A> {
    return new Promise((resolve, reject) => {
      const deadline = Date.now() + Math.max(timeoutMs, 1);
      const call = method.call(
        this.stub,
        request,
        this.#metadata(),
        { deadline },
        (error, answer) => {
          for (const signal of signals) signal?.removeEventListener("abort", cancel);
          if (error === null) resolve(answer);
          else reject(this.failure(error, call));
        },
      );
      const cancel = () => call.cancel();
      for (const signal of signals) signal?.addEventListener("abort", cancel);
    });
  }

  /** A new stream of a session. */
  open(): ClientDuplexStream<SessionRequest, SessionResponse> {
    return this.stub.session(this.#metadata());
  }

  /** The error of a call that failed. */
  failure(failed: ServiceError, call: { getPeer(): string }): KVBlockError {
    // A call that was given to no connection has the channel's own name as its peer.
    const peer = call.getPeer();
    return errorOf(failed, this.address, peer !== this.#target && peer !== "unknown");
  }

  close(): void {
    this.stub.close();
  }

  #metadata(): Metadata {
    const metadata = new Metadata();
    if (this.#token !== undefined) metadata.set("authorization", `Bearer ${this.#token}`);
    addTrace(metadata);
    return metadata;
  }
}

/** Throws for a call that may not go on. */
export function checkOpen(closed: AbortSignal, signal: AbortSignal | undefined): void {
  if (closed.aborted) throw new ClosedError("this client was closed");
  signal?.throwIfAborted();
}

function bytes(text: string | undefined): Buffer | null {
  return text === undefined ? null : Buffer.from(text);
}
