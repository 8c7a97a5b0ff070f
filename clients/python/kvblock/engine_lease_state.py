"""What both classes of engine leases have in common, without any I/O.

Rules:
- The lease goes from held to detached, closed or lost, never back.
- A detach that was not answered may be made again, with the same request_id.
"""

from __future__ import annotations

from time import monotonic

from kvblock import answers
from kvblock.errors import ClosedError
from kvblock.fencing import new_request_id
from kvblock.holder import LeaseHolder
from kvblock.lease import DEFAULT_ENGINE, Lease
from kvblock.settings import Settings
from kvblock.v1 import kvblock_pb2 as pb


class EngineLeaseState(LeaseHolder):
    """An engine's lease, and what its attach answered."""

    def __init__(
        self,
        settings: Settings,
        request: pb.AttachEngineRequest,
        answer: pb.AttachEngineResponse,
        sent: float,
    ) -> None:
        self._settings = settings
        learned = answers.engine_attachment(request, answer, DEFAULT_ENGINE)
        self._attachment = learned
        self._lease = Lease(learned.engine, learned.lease.epoch, learned.lease.ttl, sent)
        self._detach: pb.DetachEngineRequest | None = None
        self._let_go = False
        settings.leases.add(self._lease, learned.engine, request.pool)

    def _make_detach(self, timeout: float | None) -> tuple[pb.DetachEngineRequest, float | None]:
        """The detach, the same one each time, and how long to try; nothing is renewed from now."""
        if self._let_go:
            raise ClosedError("this lease was detached or closed")
        if self._detach is None:
            self._lease.check()
            self._detach = pb.DetachEngineRequest(
                pool=self.pool,
                engine=self.engine,
                epoch=self.epoch,
                request_id=new_request_id(),
            )
        return self._detach, self._lease.farewell(timeout)

    def _over(self) -> None:
        self._let_go = True
        self._settings.leases.forget(self._lease)


def renew_at_once(
    request: pb.AttachEngineRequest, answer: pb.AttachEngineResponse, sent: float
) -> pb.RenewLeaseRequest | None:
    """A renewal, when the attach took so long that the lease may be old already.

    One that was tried more than once may have been carried out at first.
    """
    if monotonic() - sent < answers.seconds(answer.lease.renew_after):
        return None
    return pb.RenewLeaseRequest(pool=request.pool, engine=request.engine, epoch=answer.lease.epoch)
