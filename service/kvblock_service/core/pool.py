"""One pool of blocks as a state machine: `apply` takes a command and answers its outcome.

Rules:
- A command takes effect whole or not at all, except that what a step gives back is free also when
  its allocations or its acquire are refused. A command with a request_id or a step_id takes effect
  once.
- What an engine is answered again is what it was answered first, while that still tells it what it
  has: under the same lease, or for a detach and a reclaim.
- Every command of an engine with a lease lets the lease last for a full TTL from then on.
- Blocks are moved by `blocks` alone, and leases by `leases`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, final

from kvblock_service.core import leases, listing
from kvblock_service.core.acquired import AcquiredBlocks, Found
from kvblock_service.core.blocks import length_after
from kvblock_service.core.commands import (
    REJECTIONS,
    Allocate,
    Answer,
    Attach,
    Attached,
    BlockNotHeld,
    Command,
    Detach,
    EndQuarantine,
    Expire,
    Fenced,
    Free,
    Freed,
    Geometry,
    Granted,
    IdReused,
    Outcome,
    Reclaim,
    Refused,
    Renew,
    Stamp,
    Step,
    StepOutOfOrder,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.engine import Engine, blocks_of
from kvblock_service.core.idempotency import Known, is_same, key_of
from kvblock_service.core.pool_data import Bounds, PoolData

__all__ = ["Bounds", "Geometry", "Pool"]


@final
class _Replayed(NamedTuple):
    """The answer of the last step, which came again."""

    answer: Stepped


class Pool(PoolData):
    """A pool, and what its commands do to it."""

    def apply(self, command: Command, stamp: Stamp) -> tuple[Outcome, bool]:
        """Carry out one command; True: it was carried out before, and nothing was changed."""
        if command.request_id:
            known = self._known(command)
            if known is not None:
                return self._again(command, known, stamp), True
        outcome = _HANDLERS[type(command)](self, command, stamp)
        if type(outcome) is _Replayed:
            return outcome.answer, True
        if command.request_id and not isinstance(outcome, REJECTIONS):
            self.cache.put(key_of(command), command, outcome)
        return outcome, False

    def knows(self, command: Command) -> bool:
        """Whether `apply` would answer a command by its request_id, and change nothing."""
        return bool(command.request_id) and self._known(command) is not None

    def _allocate(self, command: Allocate, stamp: Stamp) -> Outcome:
        name, epoch, _, sequence_id, need = command
        engine = self.engines.get(name)
        fenced = self.admit(engine, epoch, stamp)
        if fenced:
            return fenced
        available = self.blocks.available(name)
        if need > available:
            return self.refuse(engine, need, available)
        if engine is None or sequence_id not in engine.tables:
            crossed = self.crossed(engine, (), (sequence_id,))
            if crossed:
                return crossed
        engine = engine or self.enter(name)
        counts = () if need == 1 else (need,)
        blocks = self.blocks.take(engine, (sequence_id,), counts, need, stamp)
        self.revision += 1
        return Granted(blocks, len(blocks_of(engine.tables[sequence_id])))

    def _free(self, command: Free, stamp: Stamp) -> Outcome:
        engine = self.engines.get(command.engine)
        fenced = self.admit(engine, command.epoch, stamp)
        if fenced:
            return fenced
        if engine is None or command.sequence_id not in engine.tables:
            return Freed(0)
        (count,) = self.blocks.free(engine, (command.sequence_id,))
        self.leave_if_empty(engine)
        self.revision += 1
        return Freed(count)

    def _step(self, command: Step, stamp: Stamp) -> Outcome | _Replayed:
        # fmt: off
        (
            name, epoch, _, step_id, free_ids, allocate_ids, num_blocks, _,
            release, acquire, trim_ids, trim_heads, trim_tails,
        ) = command
        # fmt: on
        engine = self.engines.get(name)
        fenced = self.admit(engine, epoch, stamp)
        if fenced:
            return fenced
        if step_id and engine is not None:
            last = engine.last_step
            last_id = last[0].step_id if last else 0
            if step_id != last_id + 1:
                if last is None or step_id != last_id:
                    return StepOutOfOrder(last_id + 1)
                return _Replayed(last[1]) if last[0] == command else IdReused("step.step_id")
        found: Found | None = None
        if release:
            found = engine.acquired.find(release, self.blocks.grants) if engine else None
            if found is None:
                return self._not_held(engine, release)
        ended = free_ids + self._trimmed_away(engine, command) if trim_ids else free_ids
        crossed = self.crossed(engine, ended, allocate_ids, acquire)
        if crossed:
            return crossed
        engine = engine or self.enter(name)
        freed = self.blocks.freed_total
        freed_counts = self.blocks.free(engine, free_ids) if free_ids else []
        if found:
            self.blocks.release(engine, release, found)
        trimmed = self.blocks.trim(engine, trim_ids, trim_heads, trim_tails) if trim_ids else []
        available = self.blocks.available(name)
        granted, refused = len(allocate_ids), None
        need = sum(num_blocks) if num_blocks else granted
        if need + acquire > available:
            granted, need, acquire, refused = self._fit(engine, command, need, available)
            allocate_ids, num_blocks = allocate_ids[:granted], num_blocks[:granted]
        blocks = (
            self.blocks.take(engine, allocate_ids, num_blocks, need, stamp) if allocate_ids else []
        )
        acquired = self.blocks.acquire(engine, acquire, stamp) if acquire else []
        if blocks or acquired or self.blocks.freed_total != freed:
            self.revision += 1
        free_blocks = available - len(blocks) - len(acquired)
        stepped = Stepped(blocks, granted, refused, freed_counts, free_blocks, acquired, trimmed)
        if step_id:
            engine.last_step = (command, stepped)
        self.leave_if_empty(engine)
        return stepped

    def _not_held(self, engine: Engine | None, release: list[int]) -> BlockNotHeld:
        """Which block is the first that the engine has not acquired, and where it is instead."""
        acquired = engine.acquired if engine else AcquiredBlocks()
        grants = self.blocks.grants
        block = next(one for one in release if acquired.find([one], grants) is None)
        return BlockNotHeld(block, listing.where_is(self, block))

    def _trimmed_away(self, engine: Engine | None, command: Step) -> list[int]:
        """The sequences whose tables end when a step trims them."""
        trim_ids, heads, tails = command[-3:]
        tables = engine.tables if engine else {}
        none = [0] * len(trim_ids)
        return [
            sequence_id
            for sequence_id, head, tail in zip(trim_ids, heads or none, tails or none, strict=True)
            if sequence_id in tables and not length_after(tables[sequence_id], head, tail)
        ]

    def _fit(
        self, engine: Engine, command: Step, need: int, available: int
    ) -> tuple[int, int, int, Refused]:
        """How many entries of a step can be served that does not fit whole, and more.

        That is: the blocks that they need, how many blocks can be acquired, and why the next entry
        cannot be served, or not as many be acquired as were asked for.
        """
        num_blocks, count, acquire = command.num_blocks, len(command.allocate_ids), command.acquire
        if command.policy is StepPolicy.ALL_OR_NOTHING:
            return 0, 0, 0, self.refuse(engine, need + acquire, available)
        if need <= available:
            left = available - need
            return count, need, left, self.refuse(engine, acquire, left)
        if not num_blocks:
            return available, available, 0, self.refuse(engine, 1, 0)
        need = 0
        for served, wanted in enumerate(num_blocks):
            if need + wanted > available:
                return served, need, 0, self.refuse(engine, wanted, available - need)
            need += wanted
        raise AssertionError("a step that does not fit has an entry that does not fit")

    def _known(self, command: Command) -> Known[Command, Answer] | None:
        """What was answered under this engine, epoch and request_id, if it may not be done anew."""
        known = self.cache.results.get(key_of(command))
        if known is None:
            return None
        first, answer, stale = known
        if stale or isinstance(first, Detach | Reclaim):
            return known
        engine = self.engines.get(first.engine)
        return known if _epoch_of(first, answer) == (engine.epoch if engine else 0) else None

    def _again(self, command: Command, known: Known[Command, Answer], stamp: Stamp) -> Outcome:
        first, answer, stale = known
        engine = self.engines.get(command.engine)
        if stale:
            return Fenced(engine.epoch if engine else 0)
        # A repeat is a heartbeat, too, if it is of the lease that the engine has now.
        self.admit(engine, _epoch_of(first, answer), stamp)
        return answer if is_same(command, first) else IdReused("request_id")


_HANDLERS: dict[type, Callable[[Any, Any, Stamp], Outcome | _Replayed]] = {
    Allocate: Pool._allocate,
    Free: Pool._free,
    Step: Pool._step,
    Attach: leases.attach,
    Renew: leases.renew,
    Detach: leases.detach,
    Expire: leases.expire,
    Reclaim: leases.reclaim,
    EndQuarantine: leases.end_quarantine,
}


def _epoch_of(command: Command, answer: Answer) -> int:
    """The epoch of the lease that a command was of, or began."""
    return answer.epoch if isinstance(answer, Attached) else command.epoch
