"""What an engine does under one lease: calls, stamps, and checks of both.

Rules:
- `tables` is what was answered, and nothing else; acquired blocks are there under BATCHES. A call
  without an answer is made again, with the id that it had, until it is answered or the lease is
  lost.
- Every answer is held against the tables: a count, a length or a block that does not fit is a
  violation, which is written into the history.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import kvblock
from kvblock.errors import DeadlineExceededError, LeaseLostError, NotFoundError, UnavailableError
from tests.torture.arena import Stamp, Stamps
from tests.torture.device import Ask
from tests.torture.setting import BATCHES, RESERVED_BLOCKS, now_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.torture.engine import Engine

HELD_MAX = 40
FREES, GROWS = range(3), range(3)


class Holding(ABC):
    """One lease of one life."""

    SEQUENCES = 8
    HAS_STASH = False
    """Whether the server has more acquired blocks than are in `tables`."""

    def __init__(self, engine: Engine, kv: kvblock.Client) -> None:
        self.engine = engine
        self.kv = kv
        self.random = engine.random
        self.history = engine.history
        self.epoch = 0
        self.memory: Stamps
        self.valid_until_ns = 0
        self.tables: dict[int, list[int]] = {}
        self.stamps: dict[int, Stamp] = {}
        self.calls = 0
        self.unsettled: set[int] = set()
        self._ask = Ask(engine.setting)

    @abstractmethod
    def attach(self, *, takeover: bool) -> None:
        """Begin the lease."""

    @abstractmethod
    def step(self, call_id: int, work: dict[str, Any]) -> kvblock.StepResult:
        """One step, answered in the end."""

    @property
    @abstractmethod
    def holder(self) -> Any:
        """The client's session or lease."""

    def end(self) -> int:
        """Detach, and answer how many blocks that has freed."""
        freed: int = self.holder.detach(timeout=2.0)
        return freed

    def act(self) -> None:
        """One thing at random."""
        roll = self.random.random()
        if roll < 0.5:
            self._step()
        elif roll < 0.6:
            self._unary()
        elif roll < 0.9:
            self._write()
        elif roll < 0.95:
            self._verify(list(self.tables))
        else:
            self._look()

    def attached(self, since_ns: int) -> None:
        """The lease has begun."""
        self.epoch = self.holder.epoch
        self.memory = Stamps(self.holder.arena())
        self.history.add(
            "attached", life=self.engine.life, engine=self.engine.name, epoch=self.epoch,
            held=self.holder.held_blocks, sent=since_ns, stash=self.HAS_STASH,
        )  # fmt: skip
        if self.holder.held_blocks:
            self._violation("a new lease begins with blocks", blocks=self.holder.held_blocks)

    def detach(self) -> None:
        """End in order."""
        count = sum(map(len, self.tables.values()))
        self._let_go(list(self.tables), "detach")
        try:
            freed = self.end()
        except (UnavailableError, DeadlineExceededError):
            return
        self.history.add("detached", life=self.engine.life, freed=freed)
        if freed != count:
            self._violation("a detach freed another count", freed=freed, had=count)

    def leave(self) -> None:
        """End by falling silent."""
        self.history.add("call", life=self.engine.life, op="leave", frees=list(self.tables))

    def close(self) -> None:
        """Renew no longer."""
        if self.epoch:
            self.holder.close()
            self.memory.close()
        self._ask.close()

    def _step(self) -> None:
        ids = range(self.SEQUENCES)
        held = sum(map(len, self.tables.values()))
        free = self.random.sample(ids, self.random.choice(FREES))
        allocate = self.random.sample(ids, self.random.choice(GROWS) if held < HELD_MAX else 0)
        counts = [self.random.randint(1, 4) for _ in allocate]
        policy = self.random.choice(list(kvblock.StepPolicy))
        work = {"free": free, "allocate": allocate, "num_blocks": counts, "policy": policy}
        batch = self.random.choice(BATCHES)
        released, acquire = self._by_number(batch, held)
        if released:
            work["release"] = self.random.sample(self.tables[batch], len(self.tables[batch]))
        work["acquire"] = acquire
        leaving = [*free, batch] if released else free
        growing = [*allocate, batch] if acquire else allocate
        freed = self._let_go(leaving, "step", growing)[: len(free)]
        result = self.step(self.calls, work)
        if result.freed_counts != freed:
            self._violation("a step freed other counts", freed=result.freed_counts, had=freed)
        blocks, granted = iter(result.block_numbers), {}
        for sequence_id, count in list(zip(allocate, counts, strict=True))[: result.granted]:
            granted[sequence_id] = [next(blocks) for _ in range(count)]
        if len(result.acquired_block_numbers) > acquire:
            self._violation("more acquired than asked for", acquired=result.acquired_block_numbers)
        if result.acquired_block_numbers:
            granted[batch] = result.acquired_block_numbers
        self._granted(granted)

    def _by_number(self, batch: int, held: int) -> tuple[bool, int]:
        """Whether to release a batch of acquired blocks, and how many to acquire into it."""
        has = batch in self.tables
        release = has and self.random.random() < 0.3
        acquire = (release or not has) and held < HELD_MAX and self.random.random() < 0.3
        return release, self.random.randint(1, 6) if acquire else 0

    def _unary(self) -> None:
        sequence_id = self.random.randrange(self.SEQUENCES)
        call_id = f"{self.engine.life}-{self.epoch}-u{self.calls + 1}"
        if self.random.random() < 0.5:
            (had,) = self._let_go([sequence_id], "free")
            freed = self.again(
                lambda: self.kv.free_returning_count(sequence_id, request_id=call_id)
            )
            if freed != had:
                self._violation("a free freed another count", freed=freed, had=had)
            self._granted({})
        elif sum(map(len, self.tables.values())) < HELD_MAX:
            self._let_go([], "allocate", [sequence_id])
            count = self.random.randint(1, 6)
            answer = self.again(
                lambda: self.kv.allocate(sequence_id, count, request_id=call_id, max_wait=0.05)
            )
            blocks = answer.block_numbers if isinstance(answer, kvblock.Granted) else []
            self._granted({sequence_id: blocks} if blocks else {})
            if blocks and answer.table_length != len(self.tables[sequence_id]):
                self._violation("a table has another length", length=answer.table_length)

    def again(self, call: Callable[[], Any]) -> Any:
        """Make a call until it is answered, or the lease is lost."""
        while True:
            try:
                return call()
            except (UnavailableError, DeadlineExceededError):
                if not self.holder.lease_valid:
                    raise LeaseLostError("the lease is over") from None
                self.history.add("again", life=self.engine.life, id=self.calls)

    def _granted(self, granted: dict[int, list[int]], *, local: bool = False) -> None:
        """An answer is here: what it granted is in use from now on, if the lease still holds.

        `local`: it may have come without a call.
        """
        t = now_ns()
        remaining = self.holder.lease_remaining
        if remaining <= 0:
            raise LeaseLostError("the lease is over")
        self.valid_until_ns = t + int(remaining * 1e9)
        for sequence_id, blocks in granted.items():
            if min(blocks) < RESERVED_BLOCKS:
                self._violation("a granted block is reserved", blocks=blocks)
            self.tables.setdefault(sequence_id, []).extend(blocks)
        self.history.add(
            "answered", t, life=self.engine.life, id=self.calls, grants=granted, local=local
        )

    def _let_go(self, ids: list[int], op: str, grows: list[int] | None = None) -> list[int]:
        """A call is about to be sent: the blocks of these sequences are not ours from here on."""
        ids_held = [one for one in ids if one in self.tables]
        if ids_held:
            self._wait_for_writes()
            self._verify(ids_held)
        self.calls += 1
        self.history.add(
            "call", life=self.engine.life, id=self.calls, op=op, frees=ids, grows=grows or []
        )
        counts = []
        for sequence_id in ids:
            blocks = self.tables.pop(sequence_id, [])
            counts.append(len(blocks))
            for block in blocks:
                self.stamps.pop(block, None)
        return counts

    def _write(self) -> None:
        """Stamp the blocks of a sequence; the device does it, later."""
        if not self.tables:
            return
        if self.engine.settled.count(self.engine.life) == self.engine.issued:
            self.unsettled.clear()
        sequence_id = self.random.choice(list(self.tables))
        if sequence_id in self.unsettled:
            # The device keeps no order: the later write could land first.
            return
        self.unsettled.add(sequence_id)
        blocks = [block for block in self.tables[sequence_id] if block >= RESERVED_BLOCKS]
        setting = self.engine.setting
        late = self.random.random() < setting.late_share
        delay = self.random.uniform(0.0, setting.late if late else 0.002)
        self.engine.issued += 1
        stamp = Stamp(self.engine.life, self.epoch, sequence_id, self.engine.issued)
        remaining = self.holder.lease_remaining
        self._ask.write(stamp, blocks, now_ns() + int(remaining * 1e9), int(delay * 1e9))
        self.stamps.update(dict.fromkeys(blocks, stamp))

    def _wait_for_writes(self) -> None:
        while self.engine.settled.count(self.engine.life) < self.engine.issued:
            if not self.holder.lease_valid:
                raise LeaseLostError("the lease is over")
            time.sleep(0.001)

    def _verify(self, ids: list[int]) -> None:
        """Look at the stamps of some sequences."""
        self._wait_for_writes()
        found = [
            (block, self.stamps[block], self.memory.read(block))
            for one in ids
            for block in self.tables[one]
            if block in self.stamps
        ]
        t = now_ns()
        if not self.holder.lease_valid:
            raise LeaseLostError("the lease is over")
        self.history.add("verified", t, life=self.engine.life, blocks=len(found))
        for block, wrote, reads in found:
            if wrote != reads:
                self._violation("a stamp was overwritten", block=block, wrote=wrote, reads=reads)

    def _look(self) -> None:
        """Hold the server's tables against the answered ones."""
        for sequence_id, blocks in self.tables.items():
            if sequence_id in BATCHES:
                continue
            try:
                table = self.again(partial(self.kv.get_block_table, sequence_id))
            except NotFoundError:
                self._lost(sequence_id, blocks, [])
                continue
            if table.block_numbers != blocks:
                self._lost(sequence_id, blocks, table.block_numbers)
        self.history.add("looked", life=self.engine.life, tables=len(self.tables))

    def _lost(self, sequence_id: int, told: list[int], has: list[int]) -> None:
        if self.holder.lease_valid:
            self._violation(
                "an acknowledged grant is lost", sequence=sequence_id, told=told, has=has
            )

    def _violation(self, what: str, **facts: Any) -> None:
        engine = self.engine
        self.history.add(
            "violation", life=engine.life, what=what, engine=engine.name, epoch=self.epoch, **facts
        )


class UnaryHolding(Holding):
    """A lease without a stream."""

    def attach(self, *, takeover: bool) -> None:
        since = now_ns()
        setting = self.engine.setting
        self._lease = self.kv.attach_engine(ttl=setting.ttl, takeover=takeover)
        self.attached(since)

    def step(self, call_id: int, work: dict[str, Any]) -> kvblock.StepResult:
        request_id = f"{self.engine.life}-{self.epoch}-s{call_id}"
        result: kvblock.StepResult = self.again(lambda: self.kv.step(**work, request_id=request_id))
        return result

    @property
    def holder(self) -> Any:
        return self._lease


class SessionHolding(Holding):
    """A session."""

    def attach(self, *, takeover: bool) -> None:
        since = now_ns()
        setting = self.engine.setting
        self._session = self.kv.session(ttl=setting.ttl, takeover=takeover)
        self._session.attach()
        self.attached(since)

    def step(self, call_id: int, work: dict[str, Any]) -> kvblock.StepResult:
        try:
            return self._session.step(**work)
        except (UnavailableError, DeadlineExceededError):
            self.history.add("again", life=self.engine.life, id=call_id)
        result: kvblock.StepResult = self.again(self._session.recover)
        return result

    @property
    def holder(self) -> Any:
        return self._session
