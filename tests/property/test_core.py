"""Any sequence of commands: the pool answers as the naive model does, and stays sound.

A failure prints the commands that lead to it, and a `@reproduce_failure` line that replays it.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.property.model import ModelPool

from kvblock_service.core import leases
from kvblock_service.core.audit import audit
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Command,
    Detach,
    EndQuarantine,
    Expire,
    Free,
    Reclaim,
    Renew,
    Stamp,
    Step,
    StepPolicy,
)
from kvblock_service.core.engine import blocks_of
from kvblock_service.core.pool import Bounds, Geometry, Pool

engines = st.sampled_from(["a", "b", "c", "d"])
sequences = st.sampled_from([0, 1, 2, 3, 4, 2**64 - 1])
columns = st.lists(sequences, unique=True, max_size=5)
policies = st.sampled_from(StepPolicy)
# Often fits, often does not, sometimes exceeds every pool below.
amounts = st.integers(1, 5) | st.integers(1, 20)
# Few, so that they meet again; most calls have none.
request_ids = st.sampled_from(["", "", "", "r1", "r2"])
spans = st.sampled_from([0, 1, 10, 50])
# How far off the right epoch: mostly not at all.
slips = st.sampled_from([0, 0, 0, 0, -1, 1])


class PoolMachine(RuleBasedStateMachine):
    """Gives each command to the pool and to the model."""

    @initialize(
        total=st.integers(1, 16), engines_max=st.integers(1, 4), sequences_max=st.integers(1, 5)
    )
    def begin(self, total: int, engines_max: int, sequences_max: int) -> None:
        bounds = Bounds(engines_max, sequences_max, request_ids_max=10_000)
        self.pool = Pool(Geometry("main", total, 16, 0), bounds)
        self.model = ModelPool(total, engines_max, sequences_max)

    def both(self, command: Command) -> None:
        # The wall clock is for those who ask, and may say anything.
        stamp = Stamp(self.model.now, -self.model.now * 86_400_000, "")
        assert self.pool.apply(command, stamp) == self.model.apply(command)

    def epoch(self, engine: str, slip: int) -> int:
        return max(0, self.model.epoch(engine) + slip)

    @rule(engine=engines, slip=slips, request_id=request_ids, sequence_id=sequences, count=amounts)
    def allocate(
        self, engine: str, slip: int, request_id: str, sequence_id: int, count: int
    ) -> None:
        self.both(Allocate(engine, self.epoch(engine, slip), request_id, sequence_id, count))

    @rule(engine=engines, slip=slips, request_id=request_ids, sequence_id=sequences)
    def free(self, engine: str, slip: int, request_id: str, sequence_id: int) -> None:
        self.both(Free(engine, self.epoch(engine, slip), request_id, sequence_id))

    @rule(
        engine=engines,
        slip=slips,
        request_id=request_ids,
        takeover=st.booleans(),
        ttl=st.sampled_from([5, 20]),
        span=spans,
        resume=st.booleans(),
    )
    def attach(
        self,
        engine: str,
        slip: int,
        request_id: str,
        takeover: bool,
        ttl: int,
        span: int,
        resume: bool,
    ) -> None:
        epoch = self.epoch(engine, slip) if resume else 0
        self.both(Attach(engine, epoch, request_id, takeover, ttl, span))

    @rule(engine=engines, slip=slips)
    def renew(self, engine: str, slip: int) -> None:
        self.both(Renew(engine, self.epoch(engine, slip)))

    @rule(engine=engines, slip=slips, request_id=request_ids)
    def detach(self, engine: str, slip: int, request_id: str) -> None:
        self.both(Detach(engine, self.epoch(engine, slip), request_id))

    @rule(engine=engines, slip=slips, request_id=request_ids, span=spans, any_epoch=st.booleans())
    def reclaim(self, engine: str, slip: int, request_id: str, span: int, any_epoch: bool) -> None:
        epoch = 0 if any_epoch else self.epoch(engine, slip)
        self.both(Reclaim(engine, epoch, request_id, span))

    @rule(span=spans, wait=st.sampled_from([0, 7]) | st.none())
    def let_time_pass(self, span: int, wait: int | None) -> None:
        """Whatever has ended by then is ended, in the order that the pool says."""
        self.model.now += span
        now = self.model.now
        ended = [EndQuarantine(n) for n, (ends, _) in self.model.batches.items() if ends <= now]
        expired = [
            (name, lease.epoch, lease.ttl if wait is None else wait)
            for name, lease in self.model.leases.items()
            if lease.ends <= now
        ]
        due = leases.due(self.pool, now, wait)
        assert [one for one in due if isinstance(one, EndQuarantine)] == ended
        found = [one[:3] for one in due if isinstance(one, Expire)]
        assert sorted(found) == sorted(expired)
        for command in due:
            self.both(command)

    @precondition(lambda self: self.model.batches)
    @rule()
    def end_the_oldest_quarantine(self) -> None:
        """As a restarted reaper may find it due between any two commands."""
        self.both(EndQuarantine(next(iter(self.model.batches))))

    @rule(engine=engines, slip=slips, free_ids=columns, allocate_ids=columns, policy=policies)
    def step_of_single_blocks(
        self,
        engine: str,
        slip: int,
        free_ids: list[int],
        allocate_ids: list[int],
        policy: StepPolicy,
    ) -> None:
        epoch = self.epoch(engine, slip)
        self.both(Step(engine, epoch, "", 0, free_ids, allocate_ids, [], policy))

    @rule(
        engine=engines,
        request_id=request_ids,
        free_ids=columns,
        allocate_ids=columns,
        policy=policies,
        data=st.data(),
    )
    def step_of_runs(
        self,
        engine: str,
        request_id: str,
        free_ids: list[int],
        allocate_ids: list[int],
        policy: StepPolicy,
        data: st.DataObject,
    ) -> None:
        size = len(allocate_ids)
        counts = data.draw(st.lists(amounts, min_size=size, max_size=size))
        epoch = self.epoch(engine, 0)
        self.both(Step(engine, epoch, request_id, 0, free_ids, allocate_ids, counts, policy))

    @precondition(lambda self: self.model.leases)
    @rule(data=st.data(), allocate_ids=columns, policy=policies, again=st.sampled_from([1, 0, 2]))
    def step_of_a_session(
        self, data: st.DataObject, allocate_ids: list[int], policy: StepPolicy, again: int
    ) -> None:
        engine = data.draw(st.sampled_from(sorted(self.model.leases)))
        lease = self.model.leases[engine]
        if not again and lease.steps:
            self.both(lease.steps[-1][0])
        step_id = max(1, len(lease.steps) + again)
        self.both(Step(engine, lease.epoch, "", step_id, [1, 2], allocate_ids, [], policy))

    @precondition(lambda self: self.model.tables)
    @rule(data=st.data(), num_blocks=amounts)
    def grow_what_is_there(self, data: st.DataObject, num_blocks: int) -> None:
        engine = data.draw(st.sampled_from(sorted(self.model.tables)))
        sequence_id = data.draw(st.sampled_from(sorted(self.model.tables[engine])))
        self.both(Allocate(engine, self.epoch(engine, 0), "", sequence_id, num_blocks))

    @invariant()
    def is_clean(self) -> None:
        report = audit(self.pool)
        assert report.violations == []
        assert report.free_blocks == len(self.model.free)
        waiting = sum(len(blocks) for _, blocks in self.model.batches.values())
        assert report.quarantined_blocks == waiting
        assert report.free_blocks + report.held_blocks + waiting == self.model.total

    @invariant()
    def is_the_same(self) -> None:
        pool, model = self.pool, self.model
        tables = {
            name: {one: list(blocks_of(table)) for one, table in engine.tables.items()}
            for name, engine in pool.engines.items()
            if engine.tables
        }
        assert tables == model.tables
        epochs = {name: engine.epoch for name, engine in pool.engines.items() if engine.epoch}
        assert epochs == {name: lease.epoch for name, lease in model.leases.items()}
        for name, sequence_id in [("a", 0), ("d", 2**64 - 1)]:
            assert pool.table(name, sequence_id) == model.tables.get(name, {}).get(sequence_id)
        assert (pool.allocated_total, pool.freed_total) == (model.allocated, model.freed)
        assert (pool.reclaimed_total, pool.expired_total) == (model.reclaimed, model.expired)
        assert pool.refused_total == model.refused

    def teardown(self) -> None:
        """At the end everything comes back, and in the order that the model says."""
        if not hasattr(self, "pool"):
            return
        for engine in list({*self.model.tables, *self.model.leases}):
            self.both(Reclaim(engine, 0, "", 0))
        for batch in list(self.model.batches):
            self.both(EndQuarantine(batch))
        assert len(self.pool.free_list) == self.model.total
        assert self.pool.free_list.take(self.model.total) == self.model.free


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=250,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
