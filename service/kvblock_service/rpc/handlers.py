"""Handlers of gRPC methods, and what is put around them.

Rules:
- What is put around a handler leaves its serializers alone.
- Behaviours are asynchronous: coroutine functions, or async generators where the answer is a
  stream.
- Handlers are wrapped when a server is made. An interceptor would do the same anew at each call,
  which takes a unary call several microseconds.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

Behaviour: TypeAlias = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Any]
"""Takes the request, or an iterator of requests, and the call's context."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Wrap: TypeAlias = Callable[[str, Handler], Handler]
"""Gives what serves a method, `/PACKAGE.SERVICE/NAME`, in place of its handler."""


class Methods(grpc.GenericRpcHandler):
    """All methods of a server, by name; of `wraps` the first one is the outermost.

    The generated functions that add a service to a server take this in place of one.
    """

    def __init__(self, wraps: Sequence[Wrap]) -> None:
        self._wraps = wraps
        self._handlers: dict[str, Handler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of a service."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            for wrap in reversed(self._wraps):
                handler = wrap(method, handler)
            self._handlers[method] = handler

    def add_generic_rpc_handlers(self, _: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the generated functions give the same handlers in the other form, too."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        """The handler of a method; None when there is none."""
        return self._handlers.get(handler_call_details.method)
