"""The Session method: one engine's attach, steps, renewals and detach on one stream.

Rules:
- Each message is answered by one message, in order, when what it changed is in the journal; an
  error ends the stream with its status. How many blocks the engine owes comes unasked, in
  between, where the attach asked for it.
- The core remembers the last step of a lease: sent again, here or on another stream, it is answered
  by the same result and changes nothing.
- A detach frees the engine's blocks; a stream that ends in any other way leaves the lease as it is.
- A stream ends when its lease does, and when the lease goes on in another stream: once what ended
  it is in the journal.
- A message that was read is answered, also while the server drains; then the stream ends with
  DRAINING.
- A client that leaves its answers unread for too long is cut off; its lease is as it was. So is one
  that does not attach for as long: `sessions_max` does not count it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

import grpc
from opentelemetry.trace import format_trace_id

from kvblock.v1 import kvblock_pb2 as pb
from kvblock_service.call_error import CallError
from kvblock_service.core.commands import Detach, Step, Stepped
from kvblock_service.errors import InvalidField, SessionState, SlowReader
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import calls, convert, step_wire, validate
from kvblock_service.rpc.call_slots import first_message_arrived
from kvblock_service.rpc.calls import Context
from kvblock_service.rpc.gate import Gate, SessionPass
from kvblock_service.rpc.recall_push import RecallPush
from kvblock_service.rpc.service import KVBlockService
from kvblock_service.rpc.slow_readers import SlowReaders, Writes
from kvblock_service.rpc.traceparent import parent_of

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
        self._ended: CallError | None = None
        self._trace_id = service.trace_id()
        # The core remembers the last step. The one before it goes when its successor is answered:
        # to free lists of thousands is work, too, which no engine has to wait for.
        self._last_step: Step | None = None
        self._push: RecallPush | None = None
        self._send: Callable[[bytes, int], Awaitable[None]] = self._write
        self.key = ("", "")
        self.epoch = 0

    async def run(self) -> None:
        """Answer messages until the engine detaches or its stream ends."""
        self._host.streams[self] = self._interrupt
        if self._gate:
            self._pass = self._gate.session(self._context)
        data = await self._first()
        first_message_arrived()
        if data is None:
            return
        pool = await self._attach(self._parse(data))
        key = (self.key[1], self.epoch, "")
        bytes_max = self._service.limits.message_bytes_max
        while (data := await self._read()) is not None:
            if self._pass:
                await self._pass.step()
            columns = step_wire.read_step(data) if len(data) <= bytes_max else None
            if columns is None:
                request = self._parse(data)
                kind = _kind(request)
                if kind != "step":
                    if await self._renew_or_detach(pool, key, request):
                        return
                    continue
                sent = request.step
                columns = convert.session_step(sent)
            before = self._last_step
            answer, owed = self._step(pool, key, columns)
            # Each step comes by here: what `_answer` does, without another coroutine.
            if not pool.is_settled:
                await pool.settled()
            await self._send(answer, owed)
            del before

    async def _renew_or_detach(
        self, pool: PoolHost, key: convert.CommandKey, request: pb.SessionRequest
    ) -> bool:
        """Answer what is not a step; whether it ends the session."""
        kind = _kind(request)
        if kind == "renew":
            # It is not journaled, so there is nothing to wait for.
            lease = self._service.renew(pool, *key[:2])
            owed = pool.recall.answer(key[0], convert.hints(request.renew), None)
            answer = pb.SessionRenewed(lease=lease, owed_blocks=owed)
            renewed = pb.SessionResponse(renewed=answer)
            await self._answer(renewed.SerializeToString(), owed)
            return False
        if kind != "detach":
            raise SessionState(kind, "this session is attached already")
        freed = self._service.detach(pool, Detach(*key), self._trace_id)
        detached = pb.SessionResponse(detached=pb.SessionDetached(freed_blocks=freed.num_blocks))
        if self._push is not None:
            self._push.is_over = True
        await self._answer(detached.SerializeToString(), 0, pool)
        return True

    def end(self) -> None:
        """The stream has ended."""
        if self._push is not None:
            self._push.end()
        self._host.streams.pop(self, None)
        self._host.leave(self)

    def end_with(self, error: CallError) -> None:
        """End the stream with an error, once the message that is being served is answered."""
        self._ended = error
        self._interrupt()

    async def _first(self) -> bytes | None:
        """The first message, which has to come in time."""
        problem = f"it did not come within slow_reader_seconds = {self._slow.seconds:g}"
        late = SessionState.late("attach", problem)
        alarm = asyncio.get_running_loop().call_later(self._slow.seconds, self.end_with, late)
        try:
            return await self._read()
        finally:
            alarm.cancel()

    async def _read(self) -> bytes | None:
        """The next message, or None when the engine has closed its side."""
        if self._ended is not None or self._host.draining:
            self._refuse_when_ended()
        self._reading = True
        try:
            data = await self._context.read()
        except asyncio.CancelledError:
            self._refuse_when_ended()
            raise
        finally:
            self._reading = False
        return data if isinstance(data, bytes) else None

    def _refuse_when_ended(self) -> None:
        if self._ended is not None:
            raise self._ended
        self._host.refuse_when_draining()

    def _interrupt(self) -> None:
        if self._reading and self._task is not None:
            self._task.cancel()

    async def _answer(self, answer: bytes, owed: int, pool: PoolHost | None = None) -> None:
        """Send an answer that tells what is owed, when what it follows from is in the journal.

        That is the journal of `pool`. Whoever does not read the answers before it holds this up.
        """
        if pool is not None and not pool.is_settled:
            await pool.settled()
        await self._send(answer, owed)

    async def _write(self, answer: bytes, _: int = 0) -> None:
        self.writes.begun += 1
        await self._context.write(answer)
        self.writes.ended += 1

    def _cut_off(self) -> None:
        peer, engine = self._context.peer(), self.key[1]
        told = {"peer": peer, "engine": engine, "slow_reader_seconds": self._slow.seconds}
        _log.warning("a session is cut off: its answers are not read", extra=told)
        if self._task is not None:
            self._task.cancel()

    def _parse(self, data: bytes) -> pb.SessionRequest:
        return calls.parse(pb.SessionRequest, data, self._service.limits.message_bytes_max)

    async def _attach(self, request: pb.SessionRequest) -> PoolHost:
        kind = _kind(request)
        if kind != "attach":
            raise SessionState(kind, "the first message of a session must be attach")
        if self._pass:
            self._pass.attach(request.attach.pool, request.attach.engine)
        pool = self._service.pool(request.attach.pool)
        geometry = pool.geometry
        self.key = (geometry.name, validate.engine_name(request.attach.engine))
        self._host.refuse_more_sessions(self.key)
        attached = self._service.attach(pool, self.key[1], request.attach)
        self.epoch = attached.epoch
        self._host.enter(self)
        uri = self._host.memory_uri(geometry)
        # The answer says how long the lease still lasts.
        await pool.settled()
        answer = pb.SessionAttached(
            pool=geometry.name,
            engine=self.key[1],
            last_step_id=attached.last_step_id,
            **convert.attached(attached, pool, self.key[1], self._host.server_epoch, uri),
        )
        await self._answer(pb.SessionResponse(attached=answer).SerializeToString(), 0)
        if request.attach.recall:
            self._push = RecallPush(pool.recall, self.key[1], self._write)
            self._send = self._push.answer
            await self._push.push()
        return pool

    def _step(
        self, pool: PoolHost, key: convert.CommandKey, step: step_wire.StepColumns
    ) -> tuple[bytes, int]:
        """Carry out a step; gives its answer and what that says is owed."""
        service = self._service
        started = time.time_ns() if service.observer else 0
        if not step.step_id:
            raise InvalidField("step.step_id", step.step_id, "must be at least 1")
        command = self._last_step = convert.step_command(key, step, pool.geometry, service.limits)
        parent = parent_of(step.traceparent) if step.traceparent else None
        trace_id = self._trace_id if parent is None else format_trace_id(parent.trace_id)
        outcome, _ = pool.apply(command, trace_id)
        assert isinstance(outcome, Stepped)
        if service.observer:
            service.observe(pool, command, outcome, started, parent)
        owed = pool.recall.answer(key[0], step.hints, outcome)
        return convert.stepped(step.step_id, outcome, service.retry_after, owed), owed


def _kind(request: pb.SessionRequest) -> str:
    kind = request.WhichOneof("message")
    if kind is None:
        raise InvalidField("message", "nothing", "must be attach, step, renew or detach")
    return kind


def handler(
    service: KVBlockService, activity: calls.Activity, gate: Gate | None, slow: SlowReaders
) -> "grpc.RpcMethodHandler[bytes, bytes]":
    """The gRPC handler of the Session method, over bytes."""

    async def serve(context: Context) -> None:
        calls.current.set(context)
        session = _Session(service, context, gate, slow)
        slow.watch(session.writes)
        try:
            try:
                await session.run()
            except CallError as error:
                if error.of_state:
                    await service.host.settled()
                raise
        except asyncio.CancelledError:
            if session.writes.is_cut_off:
                raise SlowReader(f"{slow.seconds:g}") from None
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
