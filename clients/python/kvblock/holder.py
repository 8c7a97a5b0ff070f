"""What a session and an engine's lease have in common: a lease, and what its attach answered.

Rules:
- What was learned stays readable when the lease is over; before the attach there is nothing to
  read.
- A client knows what it has made for as long as somebody else does, and no longer.
"""

from __future__ import annotations

import weakref
from typing import Generic, TypeVar

from kvblock.errors import ClosedError
from kvblock.lease import Lease
from kvblock.owner import NotCopied
from kvblock.results import Attachment
from kvblock.settings import Settings

NO_LEASE = Lease("", 0, 0.0, 0.0)

HolderT = TypeVar("HolderT", bound="LeaseHolder")


class LeaseHolder(NotCopied):
    """The facts of an attach, and the state of its lease."""

    _settings: Settings
    _attachment: Attachment | None = None
    _lease: Lease = NO_LEASE

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
        """Seconds for which the lease is valid unless it is renewed; 0 when it is over."""
        self._settings.owner.check()
        return self._lease.remaining

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
    def held_blocks(self) -> int:
        """Blocks that the engine held already at the attach."""
        return self._learned.held_blocks

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


class Holders(Generic[HolderT]):
    """The sessions and leases that a client has made, which it closes with itself.

    Threads may share it: each of its changes is a single operation of a set. One that is added
    while the others are closed is either among them or refused.
    """

    def __init__(self) -> None:
        self._known: set[weakref.ref[HolderT]] = set()
        self._closed = False

    def add(self, holder: HolderT) -> bool:
        """Remember one; False when the client was closed meanwhile, and will not close it."""
        self._known.add(weakref.ref(holder, self._known.discard))
        return not self._closed

    def close(self) -> list[HolderT]:
        """Those to close: all that are still in use."""
        self._closed = True
        known = self._known.copy()
        return [holder for holder in (one() for one in known) if holder is not None]
