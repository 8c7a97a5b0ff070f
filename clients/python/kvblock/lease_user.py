"""What a session and an engine's lease have in common: a lease, and what its attach answered.

Rules:
- What was learned stays readable when the lease has ended; before the attach there is nothing to
  read.
- A detach that was not answered may be made again; it is the same message each time.
- A client refers to what it has made for as long as somebody else does, and no longer.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from kvblock.arena import Arena
from kvblock.errors import ClosedError, KVBlockError, LeaseLostError
from kvblock.fencing import new_request_id
from kvblock.hints import EngineHints
from kvblock.lease import Lease
from kvblock.lifecycle import OPEN, OVER, UNATTACHED, Event, Lifecycle, State
from kvblock.owner import NotCopied
from kvblock.recall import Recall, fill_hints
from kvblock.results import Attachment
from kvblock.settings import ClientSettings
from kvblock.v1 import kvblock_pb2 as pb

NO_LEASE = Lease("", 0, 0.0, 0.0)
DETACHED = "it has detached"
DETACHING = "its detach was not answered; detach again to learn of its end"
CLOSED = "it was closed"

UserT = TypeVar("UserT", bound="LeaseUser")


class LeaseUser(Lifecycle, NotCopied):
    """The facts of an attach, and the state of its lease."""

    _kind = "lease"
    _settings: ClientSettings
    _attachment: Attachment | None = None
    _lease: Lease = NO_LEASE
    _recall: Recall
    _detach: pb.DetachEngineRequest | None = None
    _busy: AbstractContextManager[object] = nullcontext()
    """Held by a call that must be the only one."""

    @property
    def epoch(self) -> int:
        """The epoch of the lease, which fences every call under it."""
        return self._learned.lease.epoch

    @property
    def ttl(self) -> float:
        """Seconds that the lease lasts without renewal, as the attach answered."""
        return self._learned.lease.ttl

    @property
    def lease_valid(self) -> bool:
        """Whether the engine's blocks are its own at this moment, as far as can be known here.

        To be asked before KV memory is written: it turns false before the server can give the
        blocks to another engine, also when this process stood still meanwhile.
        """
        return self.lease_remaining > 0

    @property
    def lease_remaining(self) -> float:
        """Seconds for which the lease is valid unless it is renewed; 0 when it has ended."""
        self._settings.owner.check()
        return self._lease.remaining

    def check_lease(self) -> None:
        """Raises LeaseLostError or ClosedError unless the engine's blocks are its own now."""
        if not self.lease_valid:
            raise self._unusable()

    @property
    def owed_blocks(self) -> int:
        """How many of the engine's idle blocks others lack, as the server said last.

        With each answer, with each renewal in the background, and where `recall` asked for it as
        soon as it changes.
        """
        return self._recall.owed_blocks

    @property
    def pool(self) -> str:
        """The pool's name, of an engine's lease as its attach named it; empty: the default pool."""
        return self._learned.pool

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._learned.engine

    @property
    def total_blocks(self) -> int:
        """Blocks in the pool."""
        return self._learned.total_blocks

    @property
    def block_size(self) -> int:
        """Token slots per block."""
        return self._learned.block_size

    @property
    def device_id(self) -> int:
        """The device whose memory the blocks number."""
        return self._learned.device_id

    @property
    def reserved_blocks(self) -> int:
        """Blocks 0 to reserved_blocks - 1 of the pool are never issued."""
        return self._learned.reserved_blocks

    @property
    def block_bytes(self) -> int:
        """Bytes of one block; 0: not told."""
        return self._learned.block_bytes

    @property
    def regions(self) -> int:
        """Arrays that the pool's memory is divided into; each has an equal part of every block."""
        return self._learned.regions

    @property
    def layout(self) -> str:
        """How the bytes of a block are arranged, in the words of the engines."""
        return self._learned.layout

    @property
    def memory_uri(self) -> str:
        """Where the pool's memory is; empty: nowhere that the server knows of."""
        return self._learned.memory_uri

    def arena(self) -> Arena:
        """Map the memory of the pool.

        Raises:
            MemoryUnusableError: the pool has none, it is none that an arena can map, or it cannot
                be opened here.
            ClosedError: not attached yet.

        """
        return Arena.open(self)

    @property
    def held_blocks(self) -> int:
        """Blocks that the engine held already at the attach, acquired ones too."""
        return self._learned.held_blocks

    @property
    def acquired_blocks(self) -> int:
        """Acquired blocks among those that the engine held already at the attach."""
        return self._learned.acquired_blocks

    @property
    def sequences(self) -> int:
        """Sequences that the engine had already at the attach."""
        return self._learned.sequences

    @property
    def server_epoch(self) -> int:
        """When it differs from that of the engine's last attach, earlier blocks are gone."""
        return self._learned.server_epoch

    @property
    def _learned(self) -> Attachment:
        if self._attachment is None:
            raise ClosedError("not attached yet; enter the session first")
        return self._attachment

    def _take_attachment(self, learned: Attachment, sent: float, *pools: str) -> Lease:
        """Use the lease of an attach that was sent at that moment, in calls to these pools too."""
        granted = learned.lease
        lease = Lease(learned.engine, granted.epoch, granted.ttl, sent, self._recall)
        self._settings.leases.add(lease, learned.engine, *pools)
        self._attachment, self._lease = learned, lease
        return lease

    def _make_renewal(self, hints: EngineHints | None) -> pb.RenewLeaseRequest:
        """A renewal of the lease, with what the engine says of itself."""
        if self._state not in OPEN or not self.lease_valid:
            raise self._unusable()
        request = pb.RenewLeaseRequest(pool=self.pool, engine=self.engine, epoch=self.epoch)
        if hints is not None:
            fill_hints(request.hints, hints)
        return request

    def _make_detach(self, timeout: float | None) -> tuple[pb.DetachEngineRequest, float | None]:
        """The detach, the same one each time, and how long to try; nothing is renewed from now."""
        if self._state in UNATTACHED or self._state is State.CLOSED:
            raise self._unusable()
        if self._detach is None:
            if not self.lease_valid:
                raise self._unusable()
            self._detach = pb.DetachEngineRequest(
                pool=self.pool, engine=self.engine, epoch=self.epoch, request_id=new_request_id()
            )
        self._end(Event.DETACH_SENT, DETACHING)
        return self._detach, self._lease.release_for_detach(timeout)

    def _close(self, event: Event, why: str) -> None:
        """The lease is not used any more."""
        self._end(event, why)
        self._settings.leases.forget(self._lease)

    def _unusable(self) -> KVBlockError:
        """Why no call can be made now."""
        lease = self._lease
        if self._state is not State.CLOSED and lease is not NO_LEASE and not self.lease_valid:
            error = lease.error()
            if isinstance(error, LeaseLostError):
                return error
        if self._state in OVER:
            return ClosedError(f"this {self._kind} has ended: {self._ended_by}")
        return ClosedError(f"this {self._kind} is not attached yet; enter it first")


class LeaseUsers(Generic[UserT]):
    """The sessions and leases that a client has made, which it closes with itself.

    Threads may share it: each of its changes is a single operation of a set. One that is added
    while the others are closed is either among them or refused.
    """

    def __init__(self) -> None:
        self._known: set[weakref.ref[UserT]] = set()
        self._closed = False

    def add(self, user: UserT) -> bool:
        """Remember one; False when the client was closed meanwhile, and will not close it."""
        self._known.add(weakref.ref(user, self._known.discard))
        return not self._closed

    def close(self) -> list[UserT]:
        """Those to close: all that are still in use."""
        self._closed = True
        known = self._known.copy()
        return [user for user in (one() for one in known) if user is not None]
