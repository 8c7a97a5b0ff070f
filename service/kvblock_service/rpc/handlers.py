"""The four kinds of gRPC methods, and how a handler's behaviour is put into another one.

Rules:
- A handler stays of its kind; its serializers are left alone.
- Behaviours are asynchronous: coroutine functions, or async generators where the answer is a
  stream. What is put around one has the same form.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")

Behaviour: TypeAlias = Callable[[Any, "grpc.aio.ServicerContext[Any, Any]"], Any]
"""Takes the request, or an iterator of requests, and the call's context."""


def wrapped(handler: Any, wrap: Callable[[Behaviour], Behaviour]) -> Any:
    """The same handler with its behaviour replaced by what `wrap` makes of it."""
    kind = next(kind for kind in KINDS if getattr(handler, kind) is not None)
    return handler._replace(**{kind: wrap(getattr(handler, kind))})
