"""Any sequence of commands: the pool answers as the naive model does, and stays sound.

A failure prints the commands that lead to it, and a `@reproduce_failure` line that replays it.
"""

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

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
    Step,
    StepPolicy,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool
from tests.examples import examples
from tests.property.comparison import (
    apply_both,
    check_clean,
    check_next,
    check_same,
    due_of_both,
)
from tests.property.model import ModelPool

# Few names, and mostly small amounts: commands that are of one another's blocks, tables and leases
# are the interesting ones, and they have to follow each other closely.
engines = st.sampled_from(["a", "a", "b", "c"])
sequences = st.sampled_from([0, 1, 2, 2**64 - 1])
# A step frees less than it lets grow, or there would never be much in the tables.
few = st.lists(sequences, unique=True, max_size=2)
columns = few | st.permutations([0, 1, 2, 2**64 - 1])
policies = st.sampled_from(StepPolicy)
# Mostly what a decoding engine asks for; sometimes more than there is in any pool below.
amounts = st.sampled_from([1, 1, 1, 1, 1, 1, 2, 2, 3, 3, 5, 20])
# Few, so that they meet again; most calls have none.
request_ids = st.sampled_from(["", "", "", "", "", "", "r1", "r2"])
# Time passes in shorter spans than blocks wait, so that there is mostly something in quarantine.
spans = st.sampled_from([0, 1, 5, 20, 100])
waits = st.sampled_from([0, 7, 100, 100])
# How far off the right epoch: mostly not at all.
slips = st.sampled_from([0, 0, 0, 0, 0, 0, 0, 0, -1, 1])


# What a step does beside its frees and allocations: mostly nothing.
by_number = st.fixed_dictionaries(
    {
        "pick": st.lists(st.integers(0, 5), unique=True, max_size=4) | st.just([]),
        "wrong": st.sampled_from([None, None, None, None, None, 0, 3, 15, 16]),
        "acquire": st.sampled_from([0, 0, 1, 2, 3, 20]),
        "trim_ids": few,
        "heads": st.lists(st.integers(0, 3), min_size=2, max_size=2) | st.just([]),
        "tails": st.lists(st.integers(0, 3), min_size=2, max_size=2) | st.just([]),
    }
)
nothing: dict[str, Any] = {
    "pick": [],
    "wrong": None,
    "acquire": 0,
    "trim_ids": [],
    "heads": [],
    "tails": [],
}


class PoolMachine(RuleBasedStateMachine):
    """Gives each command to the pool and to the model."""

    @initialize(
        total=st.integers(8, 16) | st.integers(1, 16),
        engines_max=st.sampled_from([3, 3, 3, 3, 2, 1]),
        sequences_max=st.sampled_from([4, 4, 4, 4, 4, 3, 2, 1]),
        reserved=st.sampled_from([0, 0, 1, 1, 3]),
    )
    def begin(self, total: int, engines_max: int, sequences_max: int, reserved: int) -> None:
        bounds = Bounds(engines_max, sequences_max, request_ids_max=10_000)
        total += reserved
        self.pool = Pool(Geometry("main", total, 16, 0, reserved), bounds)
        self.model = ModelPool(total, engines_max, sequences_max, reserved)

    def both(self, command: Command) -> None:
        apply_both(self.pool, self.model, command)

    def epoch(self, engine: str, slip: int) -> int:
        return max(0, self.model.epoch(engine) + slip)

    @rule(engine=engines, slip=slips, request_id=request_ids, sequence_id=sequences, count=amounts)
    def allocate(
        self, engine: str, slip: int, request_id: str, sequence_id: int, count: int
    ) -> None:
        self.both(Allocate(engine, self.epoch(engine, slip), request_id, sequence_id, count))

    @precondition(lambda self: self.model.tables)
    @rule(engine=engines, slip=slips, request_id=request_ids, sequence_id=sequences)
    def free(self, engine: str, slip: int, request_id: str, sequence_id: int) -> None:
        self.both(Free(engine, self.epoch(engine, slip), request_id, sequence_id))

    @precondition(lambda self: self.model.tables)
    @rule(data=st.data(), num_blocks=amounts)
    def grow_what_is_there(self, data: st.DataObject, num_blocks: int) -> None:
        engine, sequence_id = self.one_that_is_there(data)
        self.both(Allocate(engine, self.epoch(engine, 0), "", sequence_id, num_blocks))

    @precondition(lambda self: self.model.tables)
    @rule(data=st.data())
    def free_what_is_there(self, data: st.DataObject) -> None:
        engine, sequence_id = self.one_that_is_there(data)
        self.both(Free(engine, self.epoch(engine, 0), "", sequence_id))

    def one_that_is_there(self, data: st.DataObject) -> tuple[str, int]:
        engine = data.draw(st.sampled_from(sorted(self.model.tables)))
        return engine, data.draw(st.sampled_from(sorted(self.model.tables[engine])))

    @rule(
        engine=engines,
        slip=slips,
        request_id=request_ids,
        takeover=st.booleans(),
        ttl=st.sampled_from([0, 5, 20]),
        wait=waits,
        resume=st.booleans(),
    )
    def attach(
        self,
        engine: str,
        slip: int,
        request_id: str,
        takeover: bool,
        ttl: int,
        wait: int,
        resume: bool,
    ) -> None:
        epoch = self.epoch(engine, slip) if resume else 0
        self.both(Attach(engine, epoch, request_id, takeover, ttl, wait))

    @precondition(lambda self: self.model.leases)
    @rule(engine=engines, slip=slips)
    def renew(self, engine: str, slip: int) -> None:
        self.both(Renew(engine, self.epoch(engine, slip)))

    @precondition(lambda self: self.model.leases)
    @rule(engine=engines, slip=slips, request_id=request_ids)
    def detach(self, engine: str, slip: int, request_id: str) -> None:
        self.both(Detach(engine, self.epoch(engine, slip), request_id))

    @precondition(lambda self: self.model.engines())
    @rule(engine=engines, slip=slips, request_id=request_ids, wait=waits, any_epoch=st.booleans())
    def reclaim(self, engine: str, slip: int, request_id: str, wait: int, any_epoch: bool) -> None:
        epoch = 0 if any_epoch else self.epoch(engine, slip)
        self.both(Reclaim(engine, epoch, request_id, wait))

    @precondition(lambda self: self.model.leases)
    @rule(engine=engines, slip=slips, wait=waits)
    def expire(self, engine: str, slip: int, wait: int) -> None:
        """As a reaper that is late may have found it due before the lease was another one."""
        self.both(Expire(engine, self.epoch(engine, slip), wait))

    @precondition(lambda self: self.model.answers)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """One of the last requests, as a client does that was not answered."""
        latest = [command for command, _ in self.model.answers.values()][-3:]
        self.both(data.draw(st.sampled_from(latest)))

    @precondition(lambda self: self.model.leases or self.model.batches)
    @rule(span=spans, wait=st.sampled_from([0, 7]) | st.none())
    def let_time_pass(self, span: int, wait: int | None) -> None:
        """Whatever has ended by then is ended, in the order that the pool says."""
        self.model.now += span
        for command in due_of_both(self.pool, self.model, wait):
            self.both(command)

    @precondition(lambda self: self.model.batches)
    @rule()
    def end_the_oldest_quarantine(self) -> None:
        """As a restarted reaper may find it due between any two commands."""
        self.both(EndQuarantine(next(iter(self.model.batches))))

    @rule(
        engine=engines,
        slip=slips,
        request_id=request_ids,
        free_ids=few,
        allocate_ids=columns,
        runs=st.booleans(),
        policy=policies,
        data=st.data(),
    )
    def step(
        self,
        engine: str,
        slip: int,
        request_id: str,
        free_ids: list[int],
        allocate_ids: list[int],
        runs: bool,
        policy: StepPolicy,
        data: st.DataObject,
    ) -> None:
        size = len(allocate_ids) if runs else 0
        counts = data.draw(st.lists(amounts, min_size=size, max_size=size))
        epoch = self.epoch(engine, slip)
        step = Step(engine, epoch, request_id, 0, free_ids, allocate_ids, counts, policy)
        self.both(self.with_numbers(step, data.draw(st.just(nothing) | by_number)))

    def with_numbers(self, step: Step, drawn: dict[str, Any]) -> Step:
        """A step that also releases blocks, mostly acquired ones of the engine, and trims."""
        acquired = self.model.acquired.get(step.engine, [])
        release = [acquired[one] for one in drawn["pick"] if one < len(acquired)]
        wrong = drawn["wrong"]
        release += [] if wrong is None or wrong in release else [wrong]
        size = len(drawn["trim_ids"])
        return step._replace(
            release=release,
            acquire=drawn["acquire"],
            trim_ids=drawn["trim_ids"],
            trim_heads=drawn["heads"][:size],
            trim_tails=drawn["tails"][:size],
        )

    @rule(engine=engines, slip=slips, request_id=request_ids, drawn=by_number, policy=policies)
    def step_by_number(
        self,
        engine: str,
        slip: int,
        request_id: str,
        drawn: dict[str, Any],
        policy: StepPolicy,
    ) -> None:
        step = Step(engine, self.epoch(engine, slip), request_id, 0, [], [], [], policy)
        self.both(self.with_numbers(step, drawn))

    @precondition(lambda self: self.model.leases)
    @rule(
        data=st.data(),
        free_ids=few,
        allocate_ids=columns,
        policy=policies,
        again=st.sampled_from([1, 1, 0, 2]),
        drawn=st.just(nothing) | by_number,
    )
    def step_of_a_session(
        self,
        data: st.DataObject,
        free_ids: list[int],
        allocate_ids: list[int],
        policy: StepPolicy,
        again: int,
        drawn: dict[str, Any],
    ) -> None:
        engine = data.draw(st.sampled_from(sorted(self.model.leases)))
        lease = self.model.leases[engine]
        if not again and lease.steps:
            self.both(lease.steps[-1][0])
        step_id = max(1, len(lease.steps) + again)
        step = Step(engine, lease.epoch, "", step_id, free_ids, allocate_ids, [], policy)
        self.both(self.with_numbers(step, drawn))

    @invariant()
    def is_clean(self) -> None:
        check_clean(self.pool, self.model)

    @invariant()
    def would_hand_out_the_same(self) -> None:
        check_next(self.pool, self.model)

    @invariant()
    def is_the_same(self) -> None:
        check_same(self.pool, self.model)
        for name, sequence_id in [("a", 0), ("c", 2**64 - 1)]:
            table = self.model.tables.get(name, {}).get(sequence_id)
            assert self.pool.table(name, sequence_id) == table

    def teardown(self) -> None:
        """At the end everything comes back, and in the order that the model says."""
        if not hasattr(self, "pool"):
            return
        for engine in list({*self.model.tables, *self.model.acquired, *self.model.leases}):
            self.both(Reclaim(engine, 0, "", 0))
        for batch in list(self.model.batches):
            self.both(EndQuarantine(batch))
        assert len(self.pool.blocks.free_list) == self.model.total
        assert self.pool.blocks.free_list.take(self.model.total) == self.model.free


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=examples(200),
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],
)
