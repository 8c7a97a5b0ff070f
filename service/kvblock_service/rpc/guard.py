"""The way into the services that are not kvblock's own.

Rules:
- Health checks are open to all who can connect; reflection, channelz and whatever else is served
  beside kvblock's own services take an admin.
"""

import inspect
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc

from kvblock_service.errors import CallError
from kvblock_service.rpc import calls
from kvblock_service.rpc.calls import Context
from kvblock_service.rpc.gate import Gate
from kvblock_service.rpc.handlers import Behaviour, wrapped

_OWN_SERVICES = "/kvblock.v1."
_HEALTH = "/grpc.health.v1.Health/"


class Guard(grpc.aio.ServerInterceptor):
    """Keeps everybody but admins from the services that are not kvblock's own, but for health."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], "Awaitable[Any]"],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler of a method, guarded if it has to be; None for a method that is unknown."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith((_OWN_SERVICES, _HEALTH)):
            return handler
        return wrapped(handler, lambda inner: self._guarded(inner, method))

    async def _enter(self, context: Context, method: str) -> None:
        try:
            self._gate.need_admin(self._gate.caller(context), method[1:])
        except CallError as error:
            await calls.refuse(context, error)

    def _guarded(self, inner: Behaviour, method: str) -> Behaviour:
        async def call(request: Any, context: Any) -> Any:
            await self._enter(context, method)
            return await inner(request, context)

        async def generate(request: Any, context: Any) -> Any:
            await self._enter(context, method)
            async with aclosing(inner(request, context)) as answers:
                async for answer in answers:
                    yield answer

        return generate if inspect.isasyncgenfunction(inner) else call
