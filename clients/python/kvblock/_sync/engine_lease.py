# Generated from kvblock/_async/engine_lease.py by scripts/gen_sync.py: change that one.
"""An engine's lease without a stream, for the synchronous client.

Rules of use:
- It is renewed in the background until it is left, detached, closed or collected.
- Leaving detaches, and that frees all blocks of the engine. A detach that fails while leaving is
  logged, not raised; call `detach` to have it raised.
- `close` leaves the lease to expire; an attach with its epoch before that goes on with it.
- A lost lease is final: `on_lease_lost` is called once, in the renewal's thread, and every call
  under the lease raises LeaseLostError until it is closed or another one is attached.
"""

from __future__ import annotations

from time import monotonic

from kvblock import answers
from kvblock._sync.detachable import Detachable
from kvblock._sync.transport import Transport
from kvblock.errors import ClosedError, KVBlockError
from kvblock.lease import DEFAULT_ENGINE, AttachOptions
from kvblock.lifecycle import State
from kvblock.recall import Recall
from kvblock.retry import Retries
from kvblock.settings import CLOSED
from kvblock.v1 import kvblock_pb2 as pb


class EngineLease(Detachable):
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

    def __enter__(self) -> EngineLease:
        self._settings.owner.check()
        return self


def attach_engine(
    connection: Transport,
    request: pb.AttachEngineRequest,
    timeout: float | None,
    options: AttachOptions,
) -> EngineLease:
    """Attach an engine. A try after one that may have been carried out renews the lease."""
    retries = Retries(monotonic(), timeout, enabled=connection.settings.retries)
    while True:
        sent = monotonic()
        try:
            method = connection.stubs.service.AttachEngine
            answer = connection.once(method, request, retries.remaining())
            return EngineLease(connection, request, answer, sent, options)
        except KVBlockError as failure:
            delay = retries.delay(failure)
        connection.pause(connection.closed, delay)
        if connection.closed.is_set():
            raise ClosedError(CLOSED)
