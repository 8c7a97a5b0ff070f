"""The simulated server: the real core, codec, snapshots and recovery over a journal in memory.

Rules:
- Nothing is answered before its record is in the journal, unless that bug is planted.
- A crash takes the pool and everything that was not written; the journal stays as it is.
- What a crash in the middle of a write leaves is a part of its records, the last one torn.
- A log that was cut between two appends is refused: where it ended is kept apart from it.
"""

from contextlib import suppress
from enum import Enum
from random import Random
from typing import NamedTuple

from kvblock_service.core import leases
from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Command, CreatePool, Outcome, Stamp
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.core.registry import PoolEntry
from kvblock_service.journal import codec, snapshot
from kvblock_service.journal.interface import JournalDamaged
from kvblock_service.journal.records import CommandRecord, is_persisted
from kvblock_service.journal.recovery import recover
from tests.memory_journal import Crash, MemoryJournal
from tests.torture.setting import RESERVED_BLOCKS
from tests.torture.simulation.model import EXPIRED_MS, QUARANTINE_MS, Answer, Message, Violation
from tests.torture.simulation.plants import Plant
from tests.torture.simulation.recalls import Recalls
from tests.unit.journal.kept import state_of, write

GEOMETRY = Geometry("p", 13, 16, 0, RESERVED_BLOCKS)
BOUNDS = Bounds(engines_max=16, sequences_per_engine_max=16, request_ids_max=64)
CREATED = codec.encode(CreatePool(GEOMETRY, 1, configured=True))


class CrashPoint(Enum):
    """Where the process dies."""

    BEFORE_WRITE = "before the write"
    IN_WRITE = "in the write"
    AFTER_WRITE = "after the write, before the answers"
    AFTER_ANSWERS = "after the answers"
    IN_COMPACTION = "between snapshot and truncation"
    LOST_END = "after the answers, and the log was cut between two appends"


class Running(NamedTuple):
    """A process that serves."""

    pool: Pool
    pending: list[bytes]
    waiting: list[Answer]
    recalls: Recalls


class Server:
    """A journal, and the process over it while there is one."""

    def __init__(self, plant: Plant, hints: Random) -> None:
        self.plant = plant
        self._hints = hints
        self.quarantine_ms = 0 if plant.no_quarantine else QUARANTINE_MS
        self.expired_ms = 0 if plant.no_quarantine else EXPIRED_MS
        self.journal = MemoryJournal()
        write(self.journal, [CREATED])
        self.running: Running | None = None

    @property
    def pool(self) -> Pool:
        """The live pool."""
        assert self.running is not None
        return self.running.pool

    def start(self, now_ms: int) -> None:
        """Recover, and give every lease its full time."""
        self.journal = self.journal.restarted()
        pool = self.recovered()
        leases.begin_anew(pool, now_ms)
        self.running = Running(pool, [], [], Recalls(pool, self._hints))
        wrong = audit(pool).violations
        if wrong:
            raise Violation(f"after a restart: {wrong[0]}")

    def carry_out(self, command: Command, now_ms: int, message: Message | None) -> Outcome:
        """Apply one command; its answer waits for `write`."""
        pool, pending, waiting, recalls = self.running or self._not_running()
        stamp = Stamp(now_ms, now_ms, "")
        outcome, replayed = pool.apply(command, stamp)
        recalls.carried_out(command, outcome, now_ms, replayed=replayed)
        if is_persisted(command, outcome, replayed):
            pending.append(codec.encode(CommandRecord(GEOMETRY.name, stamp, command)))
        if message is not None:
            waiting.append(Answer(message, outcome))
        return outcome

    def write(self) -> list[Answer]:
        """Write what is pending; the answers that may go out now."""
        pending = (self.running or self._not_running()).pending
        if pending:
            write(self.journal, pending)
            pending.clear()
        return self.early_answers()

    def early_answers(self) -> list[Answer]:
        """The answers that wait, whether their records are written or not."""
        waiting = (self.running or self._not_running()).waiting
        answers = list(waiting)
        waiting.clear()
        return answers

    def crash(self, point: CrashPoint, random: Random) -> list[Answer]:
        """Die; the answers that went out before."""
        pending = (self.running or self._not_running()).pending
        answers: list[Answer] = []
        if point is CrashPoint.IN_WRITE and pending:
            count = random.randint(1, len(pending))
            self.journal.crash_after = 0
            self.journal.tear = random.randint(0, len(pending[count - 1])) > 0
            with suppress(Crash):
                write(self.journal, pending[:count])
        elif point is CrashPoint.AFTER_WRITE:
            self.write()
        elif point is CrashPoint.AFTER_ANSWERS:
            answers = self.write()
        elif point is CrashPoint.IN_COMPACTION:
            self.write()
            self.put_snapshot(random)
        elif point is CrashPoint.LOST_END:
            answers = self.write()
            self._refuse_lost_end()
        self.running = None
        return answers

    def _refuse_lost_end(self) -> None:
        """Have a start refused from a log that lacks what was acknowledged; it is whole again."""
        cut = self.journal.restarted()
        if cut.acknowledged != cut.position or cut.position == cut.snapshot_position:
            return
        cut.lose_end(1)
        with suppress(JournalDamaged):
            recover(cut, BOUNDS)
            raise Violation("the end of the log is gone, and a start takes no notice")

    def put_snapshot(self, random: Random) -> int:
        """Compact as the real one does: from what is in the journal, up to some position."""
        first = self.journal.snapshot_position
        position = random.randint(first, self.journal.position)
        if position > first:
            state = recover(self.journal, BOUNDS, up_to=position).state
            self.journal.put_snapshot(position, snapshot.encode(state))
        return position

    def due(self, now_ms: int) -> list[Command]:
        """What time has brought about."""
        return leases.due(self.pool, now_ms, self.expired_ms)

    def check_recall(self, now_ms: int) -> None:
        """Raises Violation when an engine owes what it does not; time has passed."""
        (self.running or self._not_running()).recalls.check(now_ms)

    def recovered(self) -> Pool:
        """The pool that the journal gives."""
        try:
            found = recover(self.journal, BOUNDS)
        except JournalDamaged as error:
            raise Violation(f"the journal cannot be read: {error}") from error
        pool = found.state.pools[0].pool
        if self.plant.forgetful_snapshot and found.snapshot_position:
            pool.cache.results.clear()
        return pool

    def compare(self, now_ms: int) -> None:
        """What the journal gives is what lives, but for deadlines, which a restart sets anew."""
        self.write()
        recovered, pool = self.recovered(), self.pool
        for one in (recovered, pool):
            leases.begin_anew(one, now_ms)
        if self.plant.forgetful_snapshot:
            return
        if state_of(recovered) != state_of(pool):
            raise Violation("the journal gives another pool than the one that lives")
        state = snapshot.State(1, pool.last_epoch, [PoolEntry(pool, configured=True)])
        (copy,) = snapshot.decode(snapshot.encode(state), BOUNDS).pools
        if state_of(copy.pool) != state_of(pool):
            raise Violation("a snapshot gives another pool than the one it was made of")

    @staticmethod
    def _not_running() -> Running:
        raise AssertionError("no process is running")
