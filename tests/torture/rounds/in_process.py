"""A pool in this process, by the code of the server: its checks, core, journal and restart.

Rules:
- A step passes the checks of a request first, as one that came over the wire.
- What was carried out is encoded and appended before the answer counts. The process dies before
  that, in it (the record is torn) or after it; the next one has what the journal gives.
- What was rejected, or carried out before, has changed nothing at all but how long the lease of the
  engine lasts: each call is a heartbeat.
"""

from collections import Counter
from contextlib import suppress
from random import Random

from kvblock_service.core import leases
from kvblock_service.core.commands import (
    REJECTIONS,
    Command,
    CreatePool,
    EndQuarantine,
    Geometry,
    Outcome,
    Step,
)
from kvblock_service.core.pool import Bounds, Pool
from kvblock_service.core.registry import PoolEntry
from kvblock_service.errors import InvalidField
from kvblock_service.journal import codec, snapshot
from kvblock_service.journal.compact import compact
from kvblock_service.journal.records import CommandRecord, is_persisted
from kvblock_service.journal.recovery import recover
from kvblock_service.rpc import convert
from kvblock_service.rpc.step_wire import StepColumns
from kvblock_service.rpc.validate import RequestLimits
from tests.memory_journal import Crash, MemoryJournal
from tests.property.comparison import (
    apply_both,
    check_clean,
    check_next,
    check_same,
    due_of_both,
    stamp_of,
)
from tests.property.model import ModelPool
from tests.torture.rounds.drawing import Terms
from tests.torture.rounds.subject import (
    ENGINES_MAX,
    RESERVED,
    SEQUENCES_MAX,
    TOTAL,
    is_invalid,
)
from tests.unit.journal.kept import state_of, write

GEOMETRY = Geometry("main", TOTAL, 16, 0, RESERVED)
BOUNDS = Bounds(ENGINES_MAX, SEQUENCES_MAX, request_ids_max=256)
ANSWERS_MAX = 200
"""More than are asked for again, and fewer than the pool remembers."""
LIMITS = RequestLimits(2**22, 10**6, 2**16, 60.0, 10_000)
FLOOR = 1


class InProcess:
    """See `Subject`; `sequences_max`: for what has more of them than rounds need."""

    terms = Terms(ttls=(60, 150, 400), quarantines=(0, 7, 100), weights={}, restarts=0.002)

    def __init__(self, random: Random, sequences_max: int = SEQUENCES_MAX) -> None:
        self.counts: Counter[str] = Counter()
        self.model = ModelPool(TOTAL, ENGINES_MAX, sequences_max, RESERVED)
        self.model.epochs = FLOOR
        self._random = random
        self._bounds = BOUNDS._replace(sequences_per_engine_max=sequences_max)
        self._journal = MemoryJournal(FLOOR)
        write(self._journal, [codec.encode(CreatePool(GEOMETRY, FLOOR, configured=True))])
        self.pool = self._recovered()

    def carry_out(self, command: Command) -> Outcome | None:
        """See `Subject`."""
        before = state_of(self.pool, deadlines=False)
        if not self._is_valid(command):
            return None
        outcome, replayed = apply_both(self.pool, self.model, command)
        if is_persisted(command, outcome, replayed):
            write(self._journal, [self._record(command)])
        if replayed or isinstance(outcome, REJECTIONS):
            assert state_of(self.pool, deadlines=False) == before, f"{outcome}, and not unchanged"
        return outcome

    def lose_answer(self, command: Command) -> Outcome | None:
        """See `Subject`: of three kinds of death, one at random."""
        before = state_of(self.pool, deadlines=False)
        torn, written = self._random.random() < 0.5, self._random.random() < 0.5
        if not self._is_valid(command):
            return None
        first: Outcome | None = None
        if written:
            first = self.carry_out(command)
            before = state_of(self.pool, deadlines=False)
        else:
            outcome, replayed = self.pool.apply(command, stamp_of(self.model))
            if torn and is_persisted(command, outcome, replayed):
                self._journal.crash_after, self._journal.tear = 0, True
                with suppress(Crash):
                    write(self._journal, [self._record(command)])
        self.restart()
        assert state_of(self.pool, deadlines=False) == before, "what was answered is lost, or more"
        self.check(whole=False)
        outcome_again = self.carry_out(command)
        assert first is None or outcome_again == first or isinstance(first, REJECTIONS)
        return outcome_again

    def restart(self) -> None:
        """See `Subject`."""
        self.pool = self._recovered()
        leases.begin_anew(self.pool, self.model.now)
        self.model.restart()

    def snapshot(self) -> None:
        """See `Subject`: of what is on record up to some position."""
        journal = self._journal
        position = self._random.randint(journal.snapshot_position, journal.position)
        compact(journal, position, self._bounds.request_ids_max)
        journal.compact(position)

    def kill(self, engine: str) -> None:
        """See `Subject`: an engine that does nothing loses its lease by and by."""

    def pass_time(self, milliseconds: int) -> None:
        """See `Subject`."""
        self.model.now += milliseconds
        self.model.forget(ANSWERS_MAX)
        wait = self._random.choice((None, 0, 50, 100))
        for command in due_of_both(self.pool, self.model, wait):
            self.counts["quarantines" if isinstance(command, EndQuarantine) else "expired"] += 1
            self.carry_out(command)

    def end_quarantines(self) -> None:
        """See `Subject`."""
        for batch in list(self.model.batches):
            self.carry_out(EndQuarantine(batch))

    def check(self, *, whole: bool) -> None:
        """See `Subject`; the whole: a recount, the next grants, and what the journal would give."""
        check_same(self.pool, self.model)
        free_list = self.pool.blocks.free_list
        free = [*reversed(free_list.freed), *range(free_list.fresh, TOTAL)]
        assert free == self.model.free, "other blocks are free, or in another order"
        if not whole:
            return
        check_clean(self.pool, self.model)
        check_next(self.pool, self.model)
        lives = state_of(self.pool, deadlines=False)
        assert state_of(self._recovered(), deadlines=False) == lives
        state = snapshot.State(FLOOR, self.pool.last_epoch, [PoolEntry(self.pool, True)])
        (copy,) = snapshot.decode(snapshot.encode(state), self._bounds).pools
        assert state_of(copy.pool, deadlines=False) == lives

    def _is_valid(self, command: Command) -> bool:
        if not isinstance(command, Step):
            return True
        engine, epoch, request_id, step_id, free_ids, allocate_ids, counts, policy = command[:8]
        columns = StepColumns(
            step_id, free_ids, allocate_ids, counts, policy.value, "", *command[8:]
        )
        key = (engine, epoch, request_id)
        checked: Step | None = None
        with suppress(InvalidField):
            checked = convert.step_command(key, columns, GEOMETRY, LIMITS)
        assert checked == (None if is_invalid(command) else command), f"{command} becomes {checked}"
        return checked is not None

    def _record(self, command: Command) -> bytes:
        return codec.encode(CommandRecord(GEOMETRY.name, stamp_of(self.model), command))

    def _recovered(self) -> Pool:
        self._journal = self._journal.restarted()
        return recover(self._journal, self._bounds).state.pools[0].pool
