"""An engine's lease without a stream, for the asyncio client.

Rules of use:
- It is renewed in the background until it is left, detached, closed or collected.
- Leaving detaches, and that frees all blocks of the engine. A detach that fails while leaving is
  logged, not raised; call `detach` to have it raised.
- `close` leaves the lease to expire; an attach with its epoch before that goes on with it.
- A lost lease is final: `on_lease_lost` is called once, in the event loop, and every call
  under the lease raises LeaseLostError until it is closed or another one is attached.
"""

from __future__ import annotations

from time import monotonic

from kvblock import answers
from kvblock._async.detachable import Detachable
from kvblock._async.transport import Transport
from kvblock.errors import ClosedError, KVBlockError
from kvblock.lease import DEFAULT_ENGINE, AttachOptions
from kvblock.lifecycle import State
from kvblock.recall import Recall
from kvblock.retry import Retries
from kvblock.settings import CLOSED
from kvblock.v1 import kvblock_pb2 as pb


class AsyncEngineLease(Detachable):
    """An engine's lease; made by the client's `attach_engine`."""

    _state = State.ATTACHED

    def __init__(
        self,
        connection: Transport,
        request: pb.AttachEngineRequest,
        answer: pb.AttachEngineResponse,
        sent: float,
        options: AttachOptions,
    ) -> None:
        self._settings = connection.settings
        self._recall = Recall()
        super().__init__(connection, options)
        self._listen()
        engine = request.engine or DEFAULT_ENGINE
        learned = answers.attachment(answer, pool=request.pool, engine=engine, last_step_id=0)
        self._renew(self._take_attachment(learned, sent, request.pool))

    async def __aenter__(self) -> AsyncEngineLease:
        self._settings.owner.check()
        return self


async def attach_engine(
    connection: Transport,
    request: pb.AttachEngineRequest,
    timeout: float | None,
    options: AttachOptions,
) -> AsyncEngineLease:
    """Attach an engine. A try after one that may have been carried out renews the lease."""
    retries = Retries(monotonic(), timeout, enabled=connection.settings.retries)
    while True:
        sent = monotonic()
        try:
            method = connection.stubs.service.AttachEngine
            answer = await connection.once(method, request, retries.remaining())
            return AsyncEngineLease(connection, request, answer, sent, options)
        except KVBlockError as failure:
            delay = retries.delay(failure)
        await connection.pause(connection.closed, delay)
        if connection.closed.is_set():
            raise ClosedError(CLOSED)
