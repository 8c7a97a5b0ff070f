"""An engine's lease without a stream, for the asyncio client.

Rules of use, which hold for the synchronous class too:
- It is renewed in the background until it is left, detached, closed or collected.
- Leaving detaches, and that frees all blocks of the engine. A detach that fails while leaving is
  logged, not raised; call `detach` to be told.
- `close` leaves the lease to run out; an attach with its epoch before that goes on with it.
- A lost lease is final: `on_lease_lost` is called once, from the renewal's thread or in the event
  loop, and every call under it raises LeaseLostError until it is closed or another one is attached.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from time import monotonic
from types import TracebackType

from kvblock.async_connection import AsyncConnection
from kvblock.engine_lease_state import EngineLeaseState, renew_at_once
from kvblock.errors import KVBlockError, LeaseLostError
from kvblock.lease import OnLeaseLost, Terms
from kvblock.renewal import Renewal
from kvblock.retry import Tries
from kvblock.v1 import kvblock_pb2 as pb

_log = logging.getLogger(__name__)


class AsyncEngineLease(EngineLeaseState):
    """An engine's lease; made by the client's `attach_engine`."""

    def __init__(
        self,
        connection: AsyncConnection,
        request: pb.AttachEngineRequest,
        answer: pb.AttachEngineResponse,
        sent: float,
        terms: Terms,
    ) -> None:
        super().__init__(connection.settings, request, answer, sent)
        self._connection = connection
        on_lost = _in_loop(terms.on_lost)
        self._renewal = Renewal(self._lease, connection.settings, request.pool, on_lost)
        self._settings.owner.finalize(self, self._renewal.stop)

    async def __aenter__(self) -> AsyncEngineLease:
        self._settings.owner.check()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._settings.owner.is_here:
            return
        try:
            if self.lease_valid:
                await self.detach()
        except KVBlockError as failure:
            _log.warning("engine %r could not detach: %s", self.engine, failure)
        finally:
            await self.close()

    async def detach(self, *, timeout: float | None = None) -> int:
        """End the lease and free all of the engine's blocks; answers how many these were.

        Raises:
            DeadlineExceededError, UnavailableError: no answer until the timeout, or for as long as
                the lease can last, since it is not renewed any more; detach again to learn of its
                end.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: it was detached or closed before.

        """
        deadline = self._settings.deadline(timeout)
        self._connection.check_caller()
        request, deadline = self._make_detach(deadline)
        self._renewal.stop()
        method = self._connection.stubs.service.DetachEngine
        try:
            answer = await self._connection.call(method, request, deadline)
        except LeaseLostError:
            self._over()
            raise
        self._over()
        return answer.freed_blocks

    async def close(self) -> None:
        """Stop renewing: the lease runs out, then its blocks are taken."""
        if self._settings.owner.is_here:
            self._over()
            self._renewal.stop()


async def attach_engine(
    connection: AsyncConnection,
    request: pb.AttachEngineRequest,
    timeout: float | None,
    terms: Terms,
) -> AsyncEngineLease:
    """Attach an engine."""
    tries = Tries(monotonic(), timeout)
    sent = monotonic()
    answer = await connection.call(connection.stubs.service.AttachEngine, request, timeout)
    renew = renew_at_once(request, answer, sent)
    if renew is not None:
        sent = monotonic()
        await connection.call(connection.stubs.service.RenewLease, renew, tries.remaining())
    return AsyncEngineLease(connection, request, answer, sent, terms)


def _in_loop(on_lost: OnLeaseLost | None) -> OnLeaseLost:
    """What calls `on_lost` in the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def tell(error: LeaseLostError) -> None:
        # A loop that is closed has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            if on_lost is not None:
                loop.call_soon_threadsafe(on_lost, error)

    return tell
