"""grpc.health.v1: SERVING until the drain or a breakdown, then NOT_SERVING for good.

Rules:
- Every Watch gets NOT_SERVING, and ends with UNAVAILABLE then; one that was left to be cut off
  would end with CANCELLED.
- Watchers do not know of one another. (The servicer of grpcio-health-checking forgets all watchers
  of a service when one of them leaves.)
- Health asks nobody who is calling, so watchers have a limit of their own: they cannot use up the
  calls that a server serves at once.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, TypeAlias

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthServicer

from kvblock_service.call_error import Then
from kvblock_service.rpc import calls

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class Health(HealthServicer):
    """The health of a server and of the services it names."""

    def __init__(self, services: Sequence[str], watches_max: int) -> None:
        self._watches_max = watches_max
        self._watches = 0
        self._services = ("", *services)
        self._down = asyncio.Event()
        self._why = ""

    def go_down(self, why: str) -> None:
        """Say NOT_SERVING from now on; `why` is what watches end with."""
        self._why = self._why or why
        self._down.set()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        """The health now."""
        if request.service not in self._services:
            problem = f"no service {request.service!r} is watched here"
            await calls.end(context, grpc.StatusCode.NOT_FOUND, problem, Then.GIVE_UP)
        return self._answer(request)

    async def Watch(self, request: HealthCheckRequest, context: Context) -> None:
        """The health now and when it changes."""
        if self._watches >= self._watches_max:
            problem = f"health_watches_max = {self._watches_max} is reached"
            text = f"{problem}; Check has no such limit"
            code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await calls.end(context, code, text, Then.REPEAT)
        self._watches += 1
        try:
            if not self._down.is_set():
                await context.write(self._answer(request))
                await self._down.wait()
            await context.write(self._answer(request))
            await calls.end(context, grpc.StatusCode.UNAVAILABLE, self._why, Then.REPEAT)
        finally:
            self._watches -= 1

    def _answer(self, request: HealthCheckRequest) -> HealthCheckResponse:
        is_known, is_down = request.service in self._services, self._down.is_set()
        status = HealthCheckResponse.NOT_SERVING if is_down else HealthCheckResponse.SERVING
        return HealthCheckResponse(
            status=status if is_known else HealthCheckResponse.SERVICE_UNKNOWN
        )
