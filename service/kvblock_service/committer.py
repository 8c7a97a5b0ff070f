"""Group commit: the records of commands that were carried out, several in one write.

Rules:
- Nothing is answered before its record is in the journal: who has added one awaits `settled`.
- Records are written in the order in which they were added, which is that of the commands.
- A record that comes alone is written at once. One that comes when the journal is busy waits for
  the event loop's next turn, and those that are added until then are written with it.
- Records that cannot be written stay pending and are tried again, since their commands have been
  carried out; meanwhile no new command is, so that they stay few. Pending callers fail with
  JournalUnwritable: their command counts once it is written, and its id finds it then.
- A write that ends in anything but a JournalError has run into a bug, and what is in the journal is
  not known any more; nor is it when a record cannot even be made. Nothing is acknowledged, carried
  out or written from then on: pending and new calls fail with JournalBroken, and `watch` raises the
  bug.
- When the outcome of a write is unknown, its records are written again after the same position, and
  those that are found there are not: each is in the journal once. Whoever else has written there
  has taken over, which ends the writing as a bug does.
- What has to follow a record's being in the journal, and not its caller, is left to `when_written`.
- A write that waits for a disk runs in a thread; any other in the event loop, where it costs less
  than the way to a thread and back. There is one write at a time, and the next begins when it has
  ended.

Threads: everything here runs in the event loop's, but for the append of `_write_aside`.
The journal is called by others meanwhile, and says itself which of its methods may be.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter_ns
from typing import TypeAlias

from kvblock_service.errors import JournalUnwritable
from kvblock_service.journal.interface import (
    Journal,
    JournalError,
    OutcomeUnknown,
    PositionTaken,
)

RETRY_SECONDS = 0.25
BUSY = 3
"""The journal is busy when its last write ended less than so many times its own length ago."""

_Waiters: TypeAlias = "list[asyncio.Future[None]]"

_log = logging.getLogger(__name__)


class JournalBroken(Exception):
    """The writing of the journal has run into a bug; only a restart helps."""

    def __init__(self) -> None:
        super().__init__("the writing of the journal has run into a bug; restart the server")


class NullCommitter:
    """In place of a committer where there is no journal: nothing is taken, and nobody waits."""

    journaled = False
    is_settled = True
    failure: str | None = None
    added = written = 0

    def refuse_when_failing(self) -> None:
        """Nothing can fail."""

    def add(self, record: bytes) -> None:
        """Let a record go."""

    def break_down(self, bug: Exception) -> None:
        """Nothing is written anyway."""

    def when_written(self, follow: Callable[[], None]) -> None:
        """Call `follow` now."""
        follow()

    async def settled(self) -> None:
        """Return at once."""


class Committer:
    """Writes records to a journal; all calls come from the event loop's thread.

    `now_ns`: a clock in nanoseconds. `failure` says why nothing can be written now; None: it can.
    Records are numbered from 1 as they come: `added` is the number of the last one, `written` that
    of the last one in the journal. `committed` is called with the seconds of each successful write.
    """

    journaled = True

    def __init__(self, journal: Journal, now_ns: Callable[[], int] = perf_counter_ns) -> None:
        self.journal = journal
        self._synced = journal.synced
        self._append: Callable[[int, list[bytes]], int] = journal.append
        # Where the journal ends, as far as is known: an append follows it.
        self._position = self._first = journal.position
        self._now_ns = now_ns
        self._busy_until = 0
        self._pending: list[bytes] = []
        # The pending callers of the next write; None: none was asked for.
        self._round: _Waiters | None = None
        self._writing: asyncio.Task[None] | None = None
        self._bug: Exception | None = None
        self._broken = asyncio.Event()
        # What waits for the record of a number, in the order of the numbers.
        self._followers: deque[tuple[int, Callable[[], None]]] = deque()
        self.added = 0
        self.written = 0
        self.failure: str | None = None
        self.committed: Callable[[float], None] | None = None

    def refuse_when_failing(self) -> None:
        """Raises JournalUnwritable or JournalBroken while the journal cannot be written."""
        if self._bug is not None:
            raise JournalBroken from self._bug
        if self.failure is not None:
            raise JournalUnwritable(self.failure, RETRY_SECONDS)

    def break_down(self, bug: Exception) -> None:
        """What is written is wrong from here, or unknown: a command has no record, for example.

        Pending callers fail with JournalBroken, as everybody does from now on. The command has a
        number, which is never written.
        """
        self.added += 1
        self._break([], bug)

    async def watch(self) -> None:
        """Go on until cancelled; raises the bug that has ended the writing."""
        await self._broken.wait()
        assert self._bug is not None
        raise self._bug

    def add(self, record: bytes) -> None:
        """Take a record; it is written at once, or with those that are added soon."""
        self.added += 1
        self._pending.append(record)
        if self._round is not None or self._writing is not None:
            return
        if self._synced:
            self._begin_round()
            return
        now = self._now_ns()
        if now < self._busy_until:
            self._begin_round()
        else:
            self._write_round(now)

    def when_written(self, follow: Callable[[], None]) -> None:
        """Call `follow` once all that was added so far is in the journal: now, if it is.

        It is called in the order of the calls of this method, and never if that is never written.
        """
        if self.written == self.added:
            follow()
        else:
            self._followers.append((self.added, follow))

    @property
    def is_settled(self) -> bool:
        """Whether all that was added is in the journal."""
        return self._bug is None and not self._pending and self._writing is None

    async def settled(self) -> None:
        """Return when all that was added is in the journal.

        Raises:
            JournalUnwritable: it could not be written yet.
            JournalBroken: whether it was written is not known.

        """
        if not self.is_settled:
            self.refuse_when_failing()
            if self._round is None:
                self._begin_round()
            assert self._round is not None
            waiter = asyncio.get_running_loop().create_future()
            self._round.append(waiter)
            await waiter

    async def close(self) -> None:
        """Write what is left, if it can be."""
        with contextlib.suppress(JournalUnwritable, JournalBroken):
            while self._pending or self._writing is not None:
                await self.settled()

    def _begin_round(self) -> None:
        self._round = []
        if self._writing is None:
            asyncio.get_running_loop().call_soon(self._write_round)

    def _write_round(self, began: int = 0) -> None:
        """Write what is pending; `began`: the time now, where the caller has just read it."""
        if self._bug is not None:
            return
        taken, waiters = self._pending, self._round or []
        self._pending, self._round = [], None
        if self._synced:
            writing = self._write_aside(taken, waiters)
            self._writing = asyncio.get_running_loop().create_task(writing)
            return
        began = began or self._now_ns()
        try:
            self._position = self._append(self._position, taken)
        except Exception as error:  # noqa: BLE001 - `watch` raises what is a bug
            self._failed(taken, waiters, error)
            return
        ended = self._now_ns()
        self._busy_until = ended + BUSY * (ended - began)
        if self.committed is not None:
            self.committed((ended - began) / 1e9)
        self._succeeded(waiters)

    async def _write_aside(self, taken: list[bytes], waiters: _Waiters) -> None:
        began = self._now_ns()
        try:
            self._position = await asyncio.to_thread(self._append, self._position, taken)
        except Exception as error:  # noqa: BLE001 - `watch` raises what is a bug
            self._writing = None
            self._failed(taken, waiters, error)
            return
        self._writing = None
        if self.committed is not None:
            self.committed((self._now_ns() - began) / 1e9)
        self._succeeded(waiters)
        if self._bug is not None:
            return
        if self._pending:
            if self._round is None:
                self._begin_round()
            else:
                self._write_round()
        elif self._round is not None:
            # Pending callers had added nothing, and all that was added before is written now.
            waiters, self._round = self._round, None
            self._succeeded(waiters)

    def _succeeded(self, waiters: _Waiters) -> None:
        self.written = written = self._position - self._first
        if self.failure is not None and self._bug is None:
            self.failure = None
            _log.info("the journal can be written again")
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        followers = self._followers
        while followers and followers[0][0] <= written:
            followers.popleft()[1]()

    def _append_or_find(self, after: int, records: list[bytes]) -> int:
        """Append after an append whose outcome is unknown: records that it has made are taken out.

        Raises:
            PositionTaken: something else is there.

        """
        try:
            reached = self.journal.append(after, records)
        except PositionTaken:
            found = [entry.record for entry in self.journal.read(after)]
            if not found or found != records[: len(found)]:
                raise
            del records[: len(found)]
            self._position = reached = after + len(found)
            if records:
                reached = self.journal.append(reached, records)
        self._append = self.journal.append
        return reached

    def _failed(self, taken: list[bytes], waiters: _Waiters, error: Exception) -> None:
        if isinstance(error, OutcomeUnknown):
            self._append = self._append_or_find
        elif not isinstance(error, JournalError):
            self._break(waiters, error)
            return
        self._pending = taken + self._pending
        if self.failure is None:
            _log.error("the journal cannot be written", extra={"problem": str(error)})
        self.failure = str(error)
        self._fail(waiters, JournalUnwritable(self.failure, RETRY_SECONDS))
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._write_round)

    def _break(self, waiters: _Waiters, bug: Exception) -> None:
        self._bug = bug
        self.failure = str(JournalBroken())
        self._broken.set()
        self._fail(waiters, JournalBroken())

    def _fail(self, waiters: _Waiters, error: Exception) -> None:
        """Let all pending callers fail, also those of the next round."""
        for waiter in waiters + (self._round or []):
            if not waiter.done():
                waiter.set_exception(error)
        self._round = None
