"""A bare grpc.aio server that answers with bytes it was given before: what gRPC alone costs.

Rules:
- No serializers, no options, no checks: bytes in, bytes out, one loop, one thread.
- As one gets it: asyncio's own event loop, and gRPC as it is set up by default. Tuned: with the
  event loop and the set-up of gRPC that `kvblock serve` has.
- `/remember/NAME` keeps its request; `/answer/NAME`, another unary method, answers it to whatever
  it is asked. On a `/stream/...` call the first message is kept, and answers each later one.
- Any other unary method answers with nothing, which every OTLP collector method takes for success:
  so this is also a collector that throws everything away.

`python -m benchmarks.echo ADDRESS [tuned]` serves until SIGTERM or SIGINT; `echo ready ADDRESS`
on stdout says that it does, with the port that was chosen for port 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import grpc
import uvloop

READY = "echo ready "


class _Echo(grpc.GenericRpcHandler):
    """Serves any method of any name."""

    def __init__(self) -> None:
        self._answers: dict[str, bytes] = {}
        self._stream: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(
            _answer_stream
        )
        self._unary: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}

    def service(
        self, details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a method."""
        method = details.method
        if method not in self._unary:
            if method.startswith("/stream/"):
                return self._stream
            self._unary[method] = self._handler(method)
        return self._unary[method]

    def _handler(self, method: str) -> grpc.RpcMethodHandler[bytes, bytes]:
        _, verb, name = method.split("/", 2)

        async def remember(data: bytes, _: object) -> bytes:
            self._answers[name] = data
            return b""

        async def answer(data: bytes, _: object) -> bytes:
            return self._answers[name]

        async def discard(data: bytes, _: object) -> bytes:
            return b""

        behaviour = {"remember": remember, "answer": answer}.get(verb, discard)
        return grpc.unary_unary_rpc_method_handler(behaviour)


async def _answer_stream(_: object, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
    answer = await context.read()
    if not isinstance(answer, bytes):
        return
    while isinstance(await context.read(), bytes):
        await context.write(answer)


async def serve(address: str) -> None:
    """Serve at `unix:PATH` or `HOST:PORT` until a signal comes."""
    server = grpc.aio.server(handlers=[_Echo()])
    port = server.add_insecure_port(address)
    await server.start()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if not address.startswith("unix:"):
        address = f"{address.rpartition(':')[0]}:{port}"
    sys.stdout.write(f"{READY}{address}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        (uvloop if "tuned" in sys.argv[2:] else asyncio).run(serve(sys.argv[1]))
