"""The block pool of an engine's scheduler, over an asyncio session.

Rules of use:
- `acquire` and `release` answer from the stash, without a call, as long as that has what it takes;
  `flush` ends an iteration and has the stash settled with the server meanwhile, in one step. So an
  iteration makes at most one call, unless it needs more than the stash and its refill had.
- While no iteration comes, the stash goes back to the server by and by; what others lack goes back
  at once.
- No block is handed out that the lease does not cover: every use raises LeaseLostError from then
  on, and every block that was handed out is lost with it.
- A step that was not answered stays open, and is settled by the next call or in the background: no
  block is lost by it, and none is there twice.
- It alone makes the session's steps. Tasks may share it.
- Leaving gives the stash back. Blocks that are handed out stay the engine's, until they are
  released or the session is detached.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import SupportsIndex

from kvblock import arguments
from kvblock._async.session import AsyncSession
from kvblock._async.worker import Lock, Worker
from kvblock.errors import ClosedError, DeadlineExceededError, KVBlockError, UnavailableError
from kvblock.hints import EngineHints
from kvblock.lease_user import NO_LEASE
from kvblock.owner import NotCopied
from kvblock.results import Refused, StepPolicy, StepResult
from kvblock.retry import backoff
from kvblock.stash import Exchange, NotHandedOut, Stash

REST_SECONDS = 1.0
"""While no iteration comes, half of the demand is forgotten each time that so many have passed."""
READY_MAX = 8192
"""Blocks that are fetched ahead at most, or an eighth of the pool where that is less."""

_log = logging.getLogger(__name__)


class AsyncBlockPool(NotCopied):
    """Hands out the blocks of one session, from a stash."""

    def __init__(self, session: AsyncSession, *, ready_max: SupportsIndex | None = None) -> None:
        """Begin with an empty stash; the session is attached.

        `ready_max`: how many blocks are fetched ahead at most; None: READY_MAX or an eighth of the
        pool, whichever is less. 0: none are, and each acquire that the engine's own releases do not
        cover is a call. A session that was made with `recall` learns at once what others lack.

        Raises:
            InvalidArgumentError: `ready_max` is no whole number of 32 bits.
            ClosedError, LeaseLostError: the session is not attached.

        """
        session.check_lease()
        self._session = session
        self._lease, self._recall = session._lease, session._recall
        self._issuable = session.total_blocks - session.reserved_blocks
        if ready_max is None:
            ready_max = min(READY_MAX, self._issuable // 8)
        ahead_max = arguments.whole_number("ready_max", ready_max, arguments.UINT32_MAX)
        self._stash = Stash(ahead_max, self._issuable)
        self._calls = Lock()
        self._cached = 0
        self._free_blocks = 0
        self._failures = 0
        self._last_result: StepResult | None = session.last_result
        self._closed = False
        self._worker = worker = Worker(self._work, "kvblock-block-pool")
        session.hear_recall(lambda _: worker.wake())
        session._recall.ask(self._hints)
        session._settings.owner.finalize(self, worker.stop)
        session._settings.owner.tell_of_fork(self, type(self)._disown)

    async def __aenter__(self) -> AsyncBlockPool:
        self._session.check_lease()
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._session._settings.owner.is_here:
            return
        try:
            await self.close()
        except KVBlockError as failure:
            _log.warning("the stash of %r was not given back: %s", self._session.engine, failure)

    @property
    def free_blocks(self) -> int:
        """Blocks that could be acquired now: those ready here, and those free at the last call."""
        return self._stash.ready + self._free_blocks

    @property
    def ready_blocks(self) -> int:
        """Blocks that can be acquired without a call."""
        return self._stash.ready

    @property
    def usage(self) -> float:
        """The part of the pool that is not free, from 0 to 1; by whomever it is used."""
        return 1 - self.free_blocks / self._issuable

    @property
    def owed_blocks(self) -> int:
        """Idle blocks that the engine's cache should release, since others lack them.

        What is ready goes back without being asked for.
        """
        return max(0, self._recall.owed_blocks - self._stash.ready)

    async def acquire(self, count: SupportsIndex = 1) -> list[int] | Refused:
        """Take so many blocks, all or none; a refusal is a value, too.

        Raises:
            InvalidArgumentError: `count` is not at least 1.
            LeaseLostError: the lease is lost, and with it all blocks of the engine.
            ClosedError: the pool or its session has ended.
            DeadlineExceededError, UnavailableError: more were needed than were ready, and the
                server did not answer; nothing was taken.

        """
        if count != 1 or count.__class__ is not int:
            count = arguments.whole_number("count", count, arguments.UINT32_MAX)
            if not count:
                raise arguments.invalid("count", count, "must be at least 1")
        lease = self._lease
        if monotonic() - lease.confirmed_at >= lease.ttl:
            self._check()
        blocks = self._stash.take(count)
        return await self._fetch(count) if blocks is None else blocks

    def release(self, blocks: Sequence[int]) -> None:
        """Give blocks back, in order: the last one is the first to be handed out again.

        Raises:
            InvalidArgumentError: one of them is not handed out, or is there twice; none is taken.
            LeaseLostError, ClosedError: as `acquire`.

        """
        lease = self._lease
        if monotonic() - lease.confirmed_at >= lease.ttl:
            self._check()
        if blocks.__class__ is not list:
            blocks = list(blocks)
        try:
            self._stash.give(blocks)
        except NotHandedOut as wrong:
            raise arguments.invalid(f"blocks[{wrong.row}]", wrong.block, wrong.problem) from None

    async def flush(self, *, cached_blocks: int = 0, wait: bool = False) -> None:
        """End an iteration: what the stash needs, or does not need, is settled meanwhile.

        `cached_blocks`: how many of the blocks that are handed out the engine could release without
        preempting a sequence: its prefix cache. `wait`: return when it is settled.

        Raises:
            LeaseLostError, ClosedError: as `acquire`.
            DeadlineExceededError, UnavailableError: with `wait`, the server did not answer.

        """
        lease = self._lease
        if monotonic() - lease.confirmed_at >= lease.ttl:
            self._check()
        self._cached = cached_blocks
        due = self._stash.end_iteration(self._recall.owed_blocks)
        if wait:
            async with self._calls:
                await self._settle()
        elif due:
            self._worker.wake()

    def _disown(self) -> None:
        """A forked child has this copy: every use of it finds that the lease is not the child's."""
        self._lease = NO_LEASE

    async def close(self) -> None:
        """Give the stash back. Blocks that are handed out stay the engine's.

        Raises:
            KVBlockError: it could not be given back; it is when the session ends.

        """
        if self._closed:
            return
        self._closed = True
        self._recall.ask(None)
        # From here on every use finds that its lease has ended, and asks why.
        self._lease = NO_LEASE
        self._worker.stop()
        async with self._calls:
            await self._settle_open()
            await self._exchange(self._stash.empty())

    def _check(self) -> None:
        self._session.check_lease()
        if self._closed:
            raise ClosedError("this block pool was closed")

    async def _fetch(self, count: int) -> list[int] | Refused:
        """Take more blocks than are ready."""
        async with self._calls:
            refused: Refused | None = None
            while refused is None:
                # It may have been closed while this waited for its turn.
                self._check()
                await self._settle_open()
                # What was on its way may have been enough.
                blocks = self._stash.take(count)
                if blocks is not None:
                    return blocks
                exchange = self._stash.begin(self._recall.owed_blocks, count)
                refused = await self._exchange(exchange, count)
            # Blocks that were to be fetched ahead may be what was refused; and those that were
            # fetched for this request may have been taken by another one.
            blocks = self._stash.take(count)
        return replace(refused, needed=count) if blocks is None else blocks

    async def _work(self, woken: bool) -> float | None:
        """Settle what is due, or let the stash become smaller as no iteration comes."""
        try:
            async with self._calls:
                if self._closed:
                    return None
                await self._settle_open()
                if woken or self._stash.rest():
                    await self._settle()
        except (DeadlineExceededError, UnavailableError):
            self._failures += 1
            return backoff(self._failures)
        except KVBlockError:
            # Whoever uses the pool next finds the same.
            return None
        self._failures = 0
        return REST_SECONDS

    async def _settle(self) -> None:
        await self._settle_open()
        while True:
            exchange = self._stash.begin(self._recall.owed_blocks)
            if self._stash.is_open:
                await self._exchange(exchange)
            # The answer may say that others lack what was idle before, too.
            if not exchange.release or not (self._recall.owed_blocks and self._stash.ready):
                return

    async def _settle_open(self) -> None:
        """Settle an exchange that was not answered, or whose answer was cut off by a signal."""
        if not self._stash.is_open:
            return
        session, last_result = self._session, self._session.last_result
        if session.unanswered:
            self._settled(await session.recover(), 0)
        elif last_result is not None and last_result is not self._last_result:
            self._settled(last_result, 0)
        else:
            self._stash.undo()

    async def _exchange(self, exchange: Exchange, need: int = 0) -> Refused | None:
        hints = self._hints(exchange.acquire, need)
        result = await self._session.step(
            release=exchange.release,
            acquire=exchange.acquire,
            policy=StepPolicy.IN_ORDER_UNTIL_REFUSED,
            hints=hints,
        )
        self._settled(result, need)
        return result.refusal

    def _hints(self, acquire: int = 0, need: int = 0) -> EngineHints:
        """What the engine lacks, and what is idle once so many were acquired and `need` taken."""
        ready = self._stash.ready
        want = max(0, (need or self._stash.lacked) - ready)
        return EngineHints(want, max(0, ready + acquire - need) + self._cached)

    def _settled(self, result: StepResult, need: int) -> None:
        self._last_result = result
        self._stash.settle(result.acquired_block_numbers, need, result.free_blocks)
        self._free_blocks = result.free_blocks
