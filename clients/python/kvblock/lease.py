"""A lease as far as this process can tell, and the leases of a client.

Rules:
- A lease is valid for one TTL from the moment at which the last call was sent that the server
  answered under its epoch. The server counts from when it carried the call out, which is later: so
  here it ends before the server can end it, and before any of its blocks can have another owner.
- An answered call proves that the lease has not ended, whenever it was sent: `confirmed_at` never
  goes back. An ended lease has a `ttl` of 0 and stays ended.
- A lease ends by being lost or by being released; only the loss of one is reported.
- Threads may share a table of leases, and a signal handler may release one at any point.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, SupportsIndex, TypeAlias

from kvblock import arguments
from kvblock.errors import ClosedError, KVBlockError, LeaseLostError
from kvblock.recall import OnRecall, Recall

if TYPE_CHECKING:
    from kvblock.expect import Expect

DEFAULT_ENGINE = "default"

OnLeaseLost: TypeAlias = Callable[[LeaseLostError], None]


class AttachOptions(NamedTuple):
    """What an attach asks for: see the clients' `session`."""

    epoch: int
    ttl: float | None
    takeover: bool
    on_lost: OnLeaseLost | None
    expect: Expect | None = None
    on_recall: OnRecall | None = None
    recall: bool = False

    @classmethod
    def of(
        cls,
        epoch: SupportsIndex,
        ttl: float | None,
        takeover: bool,
        on_lost: OnLeaseLost | None,
        expect: Expect | None = None,
        on_recall: OnRecall | None = None,
        recall: bool = False,
    ) -> AttachOptions:
        """Check the arguments of an attach.

        Raises:
            InvalidArgumentError: one of them can never be right.

        """
        return cls(
            arguments.whole_number("epoch", epoch, arguments.UINT64_MAX),
            None if ttl is None else arguments.seconds("ttl", ttl),
            bool(takeover),
            arguments.callback("on_lease_lost", on_lost),
            expect,
            arguments.callback("on_recall", on_recall),
            bool(recall),
        )


class Lease:
    """One lease; `changed` guards and announces its end, `names` is kept by `Leases`."""

    def __init__(
        self, engine: str, epoch: int, ttl: float, sent: float, recall: Recall | None = None
    ) -> None:
        self.recall = recall or Recall()
        self.engine = engine
        self.epoch = epoch
        self.ttl = ttl
        self.confirmed_at = sent
        self.changed = threading.Condition()
        self.names: tuple[tuple[str, str], ...] = ()
        self.ended = False
        self.lost: LeaseLostError | None = None

    @property
    def remaining(self) -> float:
        """Seconds for which it is valid unless it is renewed; 0 when it has ended."""
        return max(0.0, self.confirmed_at + self.ttl - monotonic())

    def check(self) -> None:
        """Raises LeaseLostError or ClosedError unless it is valid."""
        if monotonic() - self.confirmed_at >= self.ttl:
            raise self.error()

    def expire(self) -> None:
        """Its time has passed: it is lost by this, unless it has ended before."""
        with self.changed:
            if not self.ended:
                self.lose(
                    LeaseLostError(
                        f"the lease of engine {self.engine!r} was not renewed within its"
                        f" {self.ttl:g} s; its blocks may have new owners, attach again"
                    )
                )

    def error(self) -> KVBlockError:
        """Why it is not valid."""
        self.expire()
        if self.lost is None:
            return ClosedError(f"the lease of engine {self.engine!r} was released")
        # A new one each time: an exception that is raised again collects tracebacks.
        error = type(self.lost)(
            str(self.lost),
            reason=self.lost.reason,
            code=self.lost.code,
            metadata=self.lost.metadata,
            then=self.lost.then,
        )
        error.__cause__ = self.lost.__cause__
        return error

    def confirm(self, sent: float, ttl: float) -> None:
        """The server has answered a call that was sent at that moment: the lease lasts on."""
        with self.changed:
            if not self.ended:
                self.ttl = ttl
                self.confirmed_at = max(sent, self.confirmed_at)

    def answered(self, sent: float) -> bool:
        """A call under it that was sent at that moment has been answered.

        False: the lease has ended meanwhile, and what was answered cannot be used.
        """
        with self.changed:
            self.confirmed_at = max(sent, self.confirmed_at)
        return monotonic() - self.confirmed_at < self.ttl

    def lose(self, error: LeaseLostError) -> None:
        """It has ended, and not by us."""
        self._end(error)

    def release(self) -> None:
        """It is detached, or left to expire: `on_lease_lost` is not called."""
        self._end(None)

    def release_for_detach(self, timeout: float | None) -> float | None:
        """No longer renew it; answers for how long a detach makes sense within a timeout."""
        remaining = self.remaining
        self.release()
        if not remaining:
            return timeout
        return remaining if timeout is None else min(timeout, remaining)

    def _end(self, error: LeaseLostError | None) -> None:
        with self.changed:
            if not self.ended:
                self.ended = True
                self.lost = error
                self.ttl = 0.0
                self.changed.notify_all()


class Leases:
    """The leases that a client's calls are made under, by pool and engine as calls name them.

    `epoch` is the one that the client was made with, for its own pool and engine.
    """

    def __init__(self, pool: str, engine: str, epoch: int) -> None:
        self._made_with = {(pool, engine or DEFAULT_ENGINE): epoch}
        self._leases: dict[tuple[str, str], Lease] = {}
        # Guards changes: finding the lease of a name and removing it is one step. Reentrant, since
        # a signal handler that closes things may interrupt the thread that has it.
        self._changing = threading.RLock()

    def add(self, lease: Lease, engine: str, *pools: str) -> None:
        """Make calls under a lease that name the engine and one of the pools (two names of one)."""
        names = tuple((pool, engine or DEFAULT_ENGINE) for pool in pools)
        with self._changing:
            lease.names = names
            self._leases.update(dict.fromkeys(names, lease))

    def under(self, pool: str, engine: str) -> Lease | None:
        """The lease that a call is made under. One that was lost stays until it is forgotten."""
        lease = self._leases.get((pool, engine or DEFAULT_ENGINE))
        if lease is None or (lease.ended and lease.lost is None):
            return None
        return lease

    def epoch(self, pool: str, engine: str) -> int:
        """The epoch that a call without a lease of this process names, 0 for none."""
        return self._made_with.get((pool, engine or DEFAULT_ENGINE), 0)

    def forget(self, lease: Lease) -> None:
        """A lease was released; its names may be those of a newer one by now. Safe to repeat."""
        with self._changing:
            for name in lease.names:
                if self._leases.get(name) is lease:
                    self._leases.pop(name, None)
