"""What the unary methods of both services share.

Rules:
- A method takes a request and gives its answer: it converts, calls, converts back.
- The observer, if there is one, gets each command after it was carried out.
- A `persisted` method is answered when all that was carried out so far is in the journal.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from opentelemetry.trace import SpanContext

from kvblock_service.core.commands import Answer, Command
from kvblock_service.host import Host
from kvblock_service.pool_host import PoolHost
from kvblock_service.rpc import validate
from kvblock_service.rpc.observe import AppliedCommand, Observer, WaitObserver

_MethodT = TypeVar("_MethodT", bound=Callable[..., Any])


class ServiceOptions(NamedTuple):
    """How the methods behave: limits, leases, the hint in a refusal (seconds), and who watches.

    `trace_id` tells the trace of the call that runs in this task, empty when there is none.
    `waited` gets the allocations that have waited.
    """

    limits: validate.RequestLimits
    leases: validate.LeaseTerms
    retry_after: float
    observer: Observer | None = None
    trace_id: Callable[[], str] = str
    waited: WaitObserver | None = None


class PoolMethods:
    """Methods that serve the pools of a host."""

    def __init__(self, host: Host, options: ServiceOptions) -> None:
        self.host = host
        self.limits = options.limits
        self.leases = options.leases
        self.retry_after = options.retry_after
        self.observer = options.observer
        self.trace_id = options.trace_id
        self.waited = options.waited

    def pool(self, name: str) -> PoolHost:
        """The pool that a request names."""
        return self.host.pool(validate.pool_name(name))

    def pools(self, name: str) -> Iterable[PoolHost]:
        """The pool that a request names, or all of them."""
        return [self.pool(name)] if name else self.host.pools.values()

    # Its outcome is Any: which one belongs to which command is the core's to say.
    def apply(self, pool: PoolHost, command: Command) -> Any:
        """Carry out the command of a unary call; gives its outcome."""
        outcome, _ = pool.apply(command, self.trace_id())
        if self.observer:
            self.observe(pool, command, outcome)
        return outcome

    def observe(
        self,
        pool: PoolHost,
        command: Command,
        outcome: Answer,
        started_ns: int = 0,
        parent: SpanContext | None = None,
    ) -> None:
        """Tell the observer, if there is one, of the command that was carried out last."""
        if self.observer:
            name, wait = pool.geometry.name, pool.lock_wait_ns
            self.observer(AppliedCommand(name, command, outcome, wait, started_ns, parent))


def persisted(method: _MethodT) -> _MethodT:
    """Answer a method's calls when what they follow from is in the journal; see `calls.unary`.

    The call fails with JournalUnwritable where that cannot be.
    """
    method.is_persisted = True  # type: ignore[attr-defined]
    return method
