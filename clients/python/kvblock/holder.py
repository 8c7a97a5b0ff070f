"""What a session and an engine's lease have in common: a lease, and what its attach answered.

Rules:
- What was learned stays readable when the lease is over; before the attach there is nothing to
  read.
"""

from __future__ import annotations

from kvblock.errors import ClosedError
from kvblock.lease import Lease
from kvblock.results import Attachment

NO_LEASE = Lease("", 0, 0.0, 0.0)


class LeaseHolder:
    """The facts of an attach, and the state of its lease."""

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
        return self._lease.remaining > 0

    @property
    def lease_remaining(self) -> float:
        """Seconds for which the lease is valid unless it is renewed; 0 when it is over."""
        return self._lease.remaining

    @property
    def pool(self) -> str:
        """The pool's name."""
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
            raise ClosedError("this session is not attached yet; enter it first")
        return self._attachment
