"""The four kinds of gRPC methods, and how a handler's behaviour is put into another one.

Rules:
- A handler stays of its kind; its serializers are left alone.
- Behaviours are asynchronous: coroutine functions, or async generators where the answer is a
  stream. What is put around one has the same form.
- Handlers are wrapped when a server is made. An interceptor would do the same anew at each call,
  which takes a unary call several microseconds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Behaviour: TypeAlias = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Any]
"""Takes the request, or an iterator of requests, and the call's context."""
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def wrapped(handler: Any, wrap: Callable[[Behaviour], Behaviour]) -> Any:
    """The same handler with its behaviour replaced by what `wrap` makes of it."""
    kind = next(kind for kind in KINDS if getattr(handler, kind) is not None)
    return handler._replace(**{kind: wrap(getattr(handler, kind))})


class HandlerWrapper(ABC):
    """What is put around the handlers of methods."""

    @abstractmethod
    def wrap(self, method: str, handler: Handler) -> Handler:
        """What serves a method, `/PACKAGE.SERVICE/NAME`, in place of its handler."""


class Methods(grpc.GenericRpcHandler):
    """All methods of a server, by name; of `wrappers` the first one is the outermost.

    The generated functions that add a service to a server take this in place of one.
    """

    def __init__(self, wrappers: Sequence[HandlerWrapper]) -> None:
        self._wrappers = wrappers
        self._handlers: dict[str, Handler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Serve the methods of a service."""
        for name, handler in handlers.items():
            method = f"/{service}/{name}"
            for wrapper in reversed(self._wrappers):
                handler = wrapper.wrap(method, handler)
            self._handlers[method] = handler

    def add_generic_rpc_handlers(self, _: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: the generated functions give the same handlers in the other form, too."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        """The handler of a method; None when there is none."""
        return self._handlers.get(handler_call_details.method)
