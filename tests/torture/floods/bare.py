"""A server of grpc.aio with one method and no option, to tell what is gRPC's own.

`python -m tests.torture.floods.bare` prints its address and serves until it is killed.
"""

import asyncio
from typing import Any

import grpc

from tests.torture.floods.shapes import ALLOCATE


async def serve() -> None:
    """Answer each request with itself."""

    async def echo(request: bytes, _: object) -> bytes:
        return request

    server = grpc.aio.server()
    service, _, method = ALLOCATE.decode()[1:].rpartition("/")
    # The types of handlers know synchronous behaviours only.
    behaviour: Any = echo
    handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(behaviour)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve())
