"""The Session method: one engine's attach, steps and detach on one stream.

Rules:
- Each message is answered by one message, in order; an error ends the stream with its status.
- step_id starts at 1 and grows by one; the last one once more, with the same bytes, is answered by
  the same bytes and changes nothing.
- A detach frees the engine's blocks; a stream that ends in any other way leaves them held.
- A message that was read is answered, also while the server drains; then the stream ends with
  DRAINING.
- A client that leaves its answers unread for too long is cut off; its engine's name is free at
  once.
"""

import asyncio
import logging

import grpc

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.core.commands import Freed, Release
from kvblock_service.errors import CallError, InvalidField, SessionState, SlowReader, StepId
from kvblock_service.host import LiveSession
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import calls, convert, validate
from kvblock_service.rpc.calls import Context
from kvblock_service.rpc.gate import Gate, SessionPass
from kvblock_service.rpc.observe import Applied
from kvblock_service.rpc.service import KVBlockService
from kvblock_service.rpc.slow_readers import SlowReaders, Writes

_log = logging.getLogger(__name__)


class _Session:
    """The state of one stream."""

    def __init__(
        self, service: KVBlockService, context: Context, gate: Gate | None, slow: SlowReaders
    ) -> None:
        self._service = service
        self._gate = gate
        self._pass: SessionPass | None = None
        self._slow = slow
        self.writes = Writes(self._cut_off)
        self._host = service.host
        self._context = context
        self._task = asyncio.current_task()
        self._reading = False
        self._live: LiveSession | None = None
        self._step_id = 0
        self._last_request = b""
        self._last_answer = b""

    async def run(self) -> None:
        """Answer messages until the engine detaches or its stream ends."""
        self._host.streams[self] = self._interrupt
        if self._gate:
            self._pass = self._gate.session(self._context)
        data = await self._read()
        if data is None:
            return
        pool, engine = await self._attach(self._parse(data))
        while (data := await self._read()) is not None:
            if self._pass:
                await self._pass.step()
            request = self._parse(data)
            kind = request.WhichOneof("message")
            if kind == "step":
                await self._write(self._step(pool, engine, request.step, data))
            elif kind == "detach":
                answer = self._detach(pool, engine)
                self.end()
                await self._write(answer)
                return
            else:
                raise SessionState(_kind(request), "this session is attached already")

    def end(self) -> None:
        """The stream is over; the engine's name is free for another session."""
        self._host.streams.pop(self, None)
        if self._live is not None:
            self._host.leave(self._live)
            self._live = None

    async def _read(self) -> bytes | None:
        """The next message, or None when the engine has closed its side."""
        self._host.refuse_when_draining()
        self._reading = True
        try:
            data = await self._context.read()
        except asyncio.CancelledError:
            self._host.refuse_when_draining()
            raise
        finally:
            self._reading = False
        return data if isinstance(data, bytes) else None

    def _interrupt(self) -> None:
        if self._reading and self._task is not None:
            self._task.cancel()

    async def _write(self, answer: bytes) -> None:
        """Send an answer; whoever does not read the ones before it holds this up."""
        self.writes.begun += 1
        await self._context.write(answer)
        self.writes.ended += 1

    def _cut_off(self) -> None:
        _log.warning(
            "a session is cut off: its answers are not read",
            extra={
                "peer": self._context.peer(),
                "engine": self._live.key[1] if self._live else "",
                "slow_reader_seconds": self._slow.seconds,
            },
        )
        if self._task is not None:
            self._task.cancel()

    def _parse(self, data: bytes) -> pb.SessionRequest:
        return calls.parse(pb.SessionRequest, data, self._service.limits.message_bytes_max)

    async def _attach(self, request: pb.SessionRequest) -> tuple[PoolHost, str]:
        kind = _kind(request)
        if kind != "attach":
            raise SessionState(kind, "the first message of a session must be attach")
        if self._pass:
            self._pass.attach(request.attach.pool, request.attach.engine)
        pool = self._service.pool(request.attach.pool)
        engine = validate.engine_name(request.attach.engine)
        geometry = pool.geometry
        live = LiveSession(geometry.name, engine)
        await self._host.attach(live)
        self._live = live
        state = pool.engine(engine)
        attached = pb.SessionAttached(
            pool=geometry.name,
            engine=engine,
            total_blocks=geometry.total_blocks,
            block_size=geometry.block_size,
            device_id=geometry.device_id,
            held_blocks=state.held_blocks,
            sequences=state.sequences,
            server_epoch=self._host.server_epoch,
        )
        await self._write(pb.SessionResponse(attached=attached).SerializeToString())
        return pool, engine

    def _step(self, pool: PoolHost, engine: str, request: pb.SessionStep, data: bytes) -> bytes:
        started = self._service.now()
        step_id = request.step_id
        if step_id != self._step_id + 1:
            if step_id != self._step_id or not step_id:
                raise StepId(step_id, self._step_id + 1)
            if data != self._last_request:
                raise InvalidField("step.step_id", step_id, "was sent before with other content")
            return self._last_answer
        command = convert.step_command(engine, request.step, self._service.limits)
        response = pb.SessionResponse()
        response.stepped.step_id = step_id
        self._service.run_step(pool, command, response.stepped.result, started, step_id)
        self._step_id = step_id
        self._last_request = data
        self._last_answer = response.SerializeToString()
        return self._last_answer

    def _detach(self, pool: PoolHost, engine: str) -> bytes:
        started = self._service.now()
        freed = pool.apply(Release(engine))
        assert isinstance(freed, Freed)
        observer = self._service.observer
        if observer:
            name, wait = pool.geometry.name, pool.lock_wait_ns
            observer(Applied("Session", name, engine, started, wait, freed_blocks=freed.num_blocks))
        detached = pb.SessionDetached(freed_blocks=freed.num_blocks)
        return pb.SessionResponse(detached=detached).SerializeToString()


def _kind(request: pb.SessionRequest) -> str:
    kind = request.WhichOneof("message")
    if kind is None:
        raise InvalidField("message", "nothing", "must be attach, step or detach")
    return kind


def handler(
    service: KVBlockService, activity: calls.Activity, gate: Gate | None, slow: SlowReaders
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """The gRPC handler of the Session method, over bytes."""

    async def serve(context: Context) -> None:
        session = _Session(service, context, gate, slow)
        slow.watch(session.writes)
        try:
            await session.run()
        except asyncio.CancelledError:
            if session.writes.is_cut_off:
                raise SlowReader(slow.seconds) from None
            raise
        except CallError as error:
            await calls.refuse(context, error)
        except Exception:  # noqa: BLE001 - break_off logs it
            await calls.break_off(context, "Session")
        finally:
            session.end()
            slow.leave(session.writes)

    async def behaviour(_: object, context: Context) -> None:
        try:
            with activity:
                await serve(context)
        except SlowReader as error:
            # This lasts until the client reads, or goes away: no drain waits for it.
            await calls.refuse(context, error)

    return grpc.stream_stream_rpc_method_handler(behaviour)
