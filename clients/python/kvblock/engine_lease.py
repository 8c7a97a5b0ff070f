"""An engine's lease without a stream, for the synchronous client.

Its rules of use are those of `kvblock.async_engine_lease`, which is the same for asyncio.
"""

from __future__ import annotations

import logging
from time import monotonic
from types import TracebackType

from kvblock.engine_lease_state import EngineLeaseState, renew_at_once
from kvblock.errors import KVBlockError, LeaseLostError
from kvblock.lease import Terms
from kvblock.renewal import Renewal
from kvblock.retry import Tries
from kvblock.sync_connection import SyncConnection
from kvblock.v1 import kvblock_pb2 as pb

_log = logging.getLogger(__name__)


class EngineLease(EngineLeaseState):
    """An engine's lease; made by the client's `attach_engine`."""

    def __init__(
        self,
        connection: SyncConnection,
        request: pb.AttachEngineRequest,
        answer: pb.AttachEngineResponse,
        sent: float,
        terms: Terms,
    ) -> None:
        super().__init__(connection.settings, request, answer, sent)
        self._connection = connection
        on_lost = terms.on_lost or _nobody
        self._renewal = Renewal(self._lease, connection.settings, request.pool, on_lost)
        self._settings.owner.finalize(self, self._renewal.stop)

    def __enter__(self) -> EngineLease:
        self._settings.owner.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._settings.owner.is_here:
            return
        try:
            if self.lease_valid:
                self.detach()
        except KVBlockError as failure:
            _log.warning("engine %r could not detach: %s", self.engine, failure)
        finally:
            self.close()

    def detach(self, *, timeout: float | None = None) -> int:
        """End the lease and free all of the engine's blocks; answers how many these were.

        Raises:
            DeadlineExceededError, UnavailableError: no answer until the timeout, or for as long as
                the lease can last, since it is not renewed any more; detach again to learn of its
                end.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: it was detached or closed before.

        """
        deadline = self._settings.deadline(timeout)
        self._settings.owner.check()
        request, deadline = self._make_detach(deadline)
        self._renewal.stop()
        method = self._connection.service.DetachEngine
        try:
            answer = self._connection.call(method, request, deadline)
        except LeaseLostError:
            self._over()
            raise
        self._over()
        return answer.freed_blocks

    def close(self) -> None:
        """Stop renewing: the lease runs out, then its blocks are taken."""
        if self._settings.owner.is_here:
            self._over()
            self._renewal.stop()


def attach_engine(
    connection: SyncConnection,
    request: pb.AttachEngineRequest,
    timeout: float | None,
    terms: Terms,
) -> EngineLease:
    """Attach an engine."""
    tries = Tries(monotonic(), timeout)
    sent = monotonic()
    answer = connection.call(connection.service.AttachEngine, request, timeout)
    renew = renew_at_once(request, answer, sent)
    if renew is not None:
        sent = monotonic()
        connection.call(connection.service.RenewLease, renew, tries.remaining())
    return EngineLease(connection, request, answer, sent, terms)


def _nobody(_: LeaseLostError) -> None:
    """Nobody asked to be told."""
