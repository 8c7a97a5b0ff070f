"""What makes a call that changes something safe: its epoch, and an id that lets it be repeated.

Rules:
- A call is made under the lease that the client has for the pool and engine it names. One that has
  ended is not used: the call is not sent, and an answer that comes after its end is not passed on,
  since the blocks in it may have another owner by then.
- An answered call counts from when it was sent first: one that was repeated may have been carried
  out then, and its repetition renews nothing.
- A request_id is made of the operating system's randomness: the application's own may be seeded.
"""

from __future__ import annotations

import os
from typing import TypeAlias

from kvblock import arguments
from kvblock.errors import KVBlockError, LeaseLostError
from kvblock.lease import Lease, Leases
from kvblock.v1 import kvblock_pb2 as pb

Change: TypeAlias = (
    pb.AllocateRequest | pb.FreeRequest | pb.FreeReturningCountRequest | pb.StepRequest
)


def new_request_id() -> str:
    """An id that no other request has."""
    return os.urandom(16).hex()


def identify(request_id: str | None) -> str:
    """The id that the caller has given, or a new one."""
    return arguments.name("request_id", request_id) if request_id else new_request_id()


def fence(leases: Leases, request: Change | pb.GetBlockTableRequest) -> Lease | None:
    """Write the epoch into a request; answers the lease that it is made under, if there is one.

    Raises:
        LeaseLostError: the lease is lost.

    """
    lease = leases.under(request.pool, request.engine)
    if lease is None:
        request.epoch = leases.epoch(request.pool, request.engine)
    else:
        lease.check()
        request.epoch = lease.epoch
    return lease


def answered(lease: Lease | None, sent: float) -> None:
    """A call under a lease has been answered.

    Raises:
        LeaseLostError: the answer came too late to be used.

    """
    if lease is not None and not lease.answered(sent):
        raise lease.error()


def failed(lease: Lease | None, error: KVBlockError) -> None:
    """A call under a lease has ended in an error."""
    if lease is not None and isinstance(error, LeaseLostError):
        lease.lose(error)
