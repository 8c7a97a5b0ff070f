"""The four kinds of gRPC methods, and how a handler's behaviour is put into another one.

Rules:
- A handler stays of its kind; its serializers are left alone.
- Behaviours are asynchronous: coroutine functions, or async generators where the answer is a
  stream. What is put around one has the same form.
- An interceptor wraps a handler once, at the first call of its method.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
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


class WrappingInterceptor(grpc.aio.ServerInterceptor, ABC):
    """An interceptor that replaces the handlers of methods by what `wrap` makes of them."""

    def __init__(self) -> None:
        self._wrapped: dict[str, Handler] = {}

    @abstractmethod
    def wrap(self, method: str, handler: Handler) -> Handler:
        """What serves a method, `/PACKAGE.SERVICE/NAME`, in place of its handler."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Handler | None]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """The handler of a method, wrapped; None for a method that is unknown."""
        method = handler_call_details.method
        handler = self._wrapped.get(method)
        if handler is None:
            handler = await continuation(handler_call_details)
            if handler is not None:
                handler = self._wrapped[method] = self.wrap(method, handler)
        return handler
