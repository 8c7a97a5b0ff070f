"""The gRPC server: both services, the standard ones, and its end.

Rules:
- One event loop, one thread. Every method is behind the admission; what else is around its handler
  is inside of that. There is no interceptor.
- An address is bound by one server only (no SO_REUSEPORT).
- Messages up to four times `message_bytes_max` are read, so that an over-long one can be answered
  with an ErrorInfo; beyond that gRPC itself answers RESOURCE_EXHAUSTED.
- A drain says NOT_SERVING first, then ends idle sessions, waits for the calls that are being
  served, refuses those that are still coming in, and stops; what has not ended within the grace
  time is cut off.
"""

import asyncio
import contextlib
import re
from collections.abc import Sequence
from functools import partial
from typing import cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_channelz.v1.channelz_pb2_grpc import add_ChannelzServicer_to_server
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server

from kvblock.v1 import admin_pb2, kvblock_pb2
from kvblock_service.access import RejectedCalls
from kvblock_service.host import Host
from kvblock_service.rpc import calls, reflection, session
from kvblock_service.rpc.admin import KVBlockAdmin
from kvblock_service.rpc.admission import Admission
from kvblock_service.rpc.call_slots import CallSlots
from kvblock_service.rpc.edge import Edge, server_credentials
from kvblock_service.rpc.gate import Gate
from kvblock_service.rpc.handlers import Handler, Methods, Wrap
from kvblock_service.rpc.health import Health
from kvblock_service.rpc.listeners import Listeners
from kvblock_service.rpc.methods import PoolMethods, ServiceOptions
from kvblock_service.rpc.service import KVBlockService
from kvblock_service.rpc.slow_readers import SlowReaders

SERVICE = kvblock_pb2.DESCRIPTOR.services_by_name["KVBlockService"]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["KVBlockAdmin"]
_CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name

_TRANSPORT_HEADROOM = 4
_LAST_WORDS_SECONDS = 0.25
_QUIET_SECONDS = 0.05


class KVBlockServer:
    """Serves a host on the addresses that are bound to it."""

    def __init__(
        self,
        host: Host,
        options: ServiceOptions,
        wrappers: Sequence[Wrap] = (),
        edge: Edge | None = None,
    ) -> None:
        self._host = host
        edge = edge or Edge(RejectedCalls())
        self._gate = Gate(host, edge.access, edge.rejected) if edge.access else None
        self._watched = [files for files in (edge.access, edge.tls) if files is not None]
        self._slow = SlowReaders(edge.slow_reader_seconds)
        self._activity = calls.Activity()
        self._health = Health((SERVICE.full_name, ADMIN.full_name), edge.health_watches_max)
        credentials = partial(server_credentials, edge.tls) if edge.tls else None
        self._listeners = Listeners(credentials, edge.socket_file)
        self.bound = self._listeners.bound
        """The addresses as they were bound, with the ports that were chosen."""
        slots = CallSlots(edge.concurrent_calls_max, edge.request_seconds)
        admission = Admission(slots, self._gate, edge.rejected.limits)
        bytes_max = options.limits.message_bytes_max
        self._server = grpc.aio.server(
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", _TRANSPORT_HEADROOM * bytes_max),
                ("grpc.max_send_message_length", -1),
                ("grpc.enable_channelz", 1),
                *edge.options(),
            ]
        )
        self._add_services(options, [admission.wrap, *wrappers])

    def bind(self, address: str) -> None:
        """Listen on an address, too; raises ListenError where it is taken, or not local."""
        self._listeners.bind(self._server, address)

    async def start(self) -> None:
        """Begin to serve."""
        for files in self._watched:
            files.watch()
        await self._server.start()

    async def drain(self, grace: float) -> None:
        """Take no new work, let what is being served end, and stop within `grace` seconds."""
        deadline = asyncio.get_running_loop().time() + grace
        self._health.go_down("the server is shutting down")
        self._host.begin_drain()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._activity.wait_idle(), grace)
        await self._answer_late_calls(deadline)
        left = deadline - asyncio.get_running_loop().time()
        await self._server.stop(max(0.0, min(left, _LAST_WORDS_SECONDS)))
        # gRPC logs a traceback for each task of a call it has cut off that outlives the event loop.
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            await asyncio.wait(rest, timeout=_LAST_WORDS_SECONDS)

    def break_down(self, why: str) -> None:
        """Say NOT_SERVING: a part of the server has failed, and `why`."""
        self._health.go_down(why)

    def release(self) -> None:
        """Give up the addresses; to be called when the server has stopped or never started."""
        for files in self._watched:
            files.stop()
        self._listeners.release()

    async def _answer_late_calls(self, deadline: float) -> None:
        """Go on until no call comes for a moment: gRPC's stop would end one with CANCELLED."""
        loop = asyncio.get_running_loop()
        deadline = min(deadline, loop.time() + _LAST_WORDS_SECONDS)
        begun = -1
        while begun != self._activity.begun and loop.time() + _QUIET_SECONDS < deadline:
            begun = self._activity.begun
            await asyncio.sleep(_QUIET_SECONDS)

    def _add_services(self, options: ServiceOptions, wrappers: Sequence[Wrap]) -> None:
        service, admin = KVBlockService(self._host, options), KVBlockAdmin(self._host, options)
        methods = self._unary(SERVICE, service)
        methods["Session"] = session.handler(service, self._activity, self._gate, self._slow)
        served = Methods(wrappers)
        served.add_registered_method_handlers(SERVICE.full_name, methods)
        served.add_registered_method_handlers(ADMIN.full_name, self._unary(ADMIN, admin))
        # The generated functions take whatever handlers can be added to; their types say servers.
        add_HealthServicer_to_server(self._health, cast("grpc.aio.Server", served))
        channelz_servicer = channelz.aio.ChannelzServicer()
        add_ChannelzServicer_to_server(channelz_servicer, cast("grpc.aio.Server", served))
        reflection.enable((SERVICE.full_name, ADMIN.full_name, HEALTH_SERVICE, _CHANNELZ), served)
        self._server.add_generic_rpc_handlers((served,))

    def _unary(self, service: ServiceDescriptor, methods: PoolMethods) -> dict[str, Handler]:
        """The handlers of a service's unary methods, which have its names in snake case."""
        return {
            method.name: calls.unary(
                self._host,
                self._activity,
                GetMessageClass(method.input_type),
                methods.limits.message_bytes_max,
                getattr(methods, re.sub(r"\B(?=[A-Z])", "_", method.name).lower()),
            )
            for method in service.methods
            if not method.client_streaming
        }
