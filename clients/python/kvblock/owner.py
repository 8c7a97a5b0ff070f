"""The process that owns a client: the one that made it. There is one of each.

A forked child inherits its parent's clients, sessions and leases, whose connections and threads are
the parent's. A copy shares all of them, too.

Rules:
- What belongs to another process is inert. Leaving it, closing it, collecting it and the end of the
  process send nothing and wait for nothing; every other use raises UsageError. What was learned
  before the fork (addresses, names, epochs) stays readable.
- What is used too often to ask for the process each time learns of a fork, in the child.
- The process is checked before any lock is taken, which may have been held at the fork by a thread
  that the child does not have.
- Nothing that holds a connection is copied or pickled.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from kvblock.errors import UsageError

OwnedT = TypeVar("OwnedT")

_learn_of_forks: weakref.WeakKeyDictionary[Any, Callable[[Any], None]] = weakref.WeakKeyDictionary()


def _tell_of_fork() -> None:
    for what, learn in list(_learn_of_forks.items()):
        learn(what)


os.register_at_fork(after_in_child=_tell_of_fork)


class OwnerProcess:
    """The process that made something: the one that runs when this is made."""

    __slots__ = ("_pid",)

    def __init__(self) -> None:
        self._pid = os.getpid()

    @property
    def is_here(self) -> bool:
        """Whether it is the running process."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """Raises UsageError unless it is the running process."""
        if os.getpid() != self._pid:
            raise UsageError(
                f"this belongs to process {self._pid} and cannot be used in process {os.getpid()},"
                " which was forked from it; connect anew in the forked process"
            )

    def finalize(self, what: object, end: Callable[[], object]) -> weakref.finalize[..., object]:
        """Call `end` when `what` is collected, in this process only."""
        return weakref.finalize(what, self._end, end)

    def tell_of_fork(self, what: OwnedT, learn: Callable[[OwnedT], None]) -> None:
        """Call `learn` with it after each fork, in the child, as long as it exists."""
        _learn_of_forks[what] = learn

    def _end(self, end: Callable[[], object]) -> None:
        # A fork copies finalizers, too.
        if self.is_here:
            end()


class NotCopied:
    """What holds a connection, or something else that there is one of."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        # What copy.copy, copy.deepcopy and pickle ask first.
        kind = type(self).__name__
        raise TypeError(
            f"{kind} cannot be copied or pickled: it belongs to the process that made it; where"
            " another one is needed, connect anew with its address"
        )
