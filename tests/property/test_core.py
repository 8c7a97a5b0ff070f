"""Any sequence of commands: the pool answers as the naive model does, and stays sound.

A failure prints the commands that lead to it, and a `@reproduce_failure` line that replays it.
"""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.property.model import ModelPool

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import Allocate, Command, Free, Release, Step, StepPolicy
from kvblock_service.core.pool import Bounds, Geometry, Pool, blocks_of

engines = st.sampled_from(["a", "b", "c", "d"])
sequences = st.sampled_from([0, 1, 2, 3, 4, 2**64 - 1])
columns = st.lists(sequences, unique=True, max_size=5)
policies = st.sampled_from(StepPolicy)
# Often fits, often does not, sometimes exceeds every pool below.
amounts = st.integers(1, 5) | st.integers(1, 20)


class PoolMachine(RuleBasedStateMachine):
    """Gives each command to the pool and to the model."""

    @initialize(
        total=st.integers(1, 16), engines_max=st.integers(1, 4), sequences_max=st.integers(1, 5)
    )
    def begin(self, total: int, engines_max: int, sequences_max: int) -> None:
        self.pool = Pool(Geometry("main", total, 16, 0), Bounds(engines_max, sequences_max))
        self.model = ModelPool(total, engines_max, sequences_max)

    def both(self, command: Command) -> None:
        assert self.pool.apply(command) == self.model.apply(command)

    @rule(engine=engines, sequence_id=sequences, num_blocks=amounts)
    def allocate(self, engine: str, sequence_id: int, num_blocks: int) -> None:
        self.both(Allocate(engine, sequence_id, num_blocks))

    @rule(engine=engines, sequence_id=sequences)
    def free(self, engine: str, sequence_id: int) -> None:
        self.both(Free(engine, sequence_id))

    @rule(engine=engines)
    def release(self, engine: str) -> None:
        self.both(Release(engine))

    @rule(engine=engines, free_ids=columns, allocate_ids=columns, policy=policies)
    def step_of_single_blocks(
        self, engine: str, free_ids: list[int], allocate_ids: list[int], policy: StepPolicy
    ) -> None:
        self.both(Step(engine, free_ids, allocate_ids, [], policy))

    @rule(engine=engines, free_ids=columns, allocate_ids=columns, policy=policies, data=st.data())
    def step_of_runs(
        self,
        engine: str,
        free_ids: list[int],
        allocate_ids: list[int],
        policy: StepPolicy,
        data: st.DataObject,
    ) -> None:
        size = len(allocate_ids)
        counts = data.draw(st.lists(amounts, min_size=size, max_size=size))
        self.both(Step(engine, free_ids, allocate_ids, counts, policy))

    @precondition(lambda self: self.model.tables)
    @rule(data=st.data(), num_blocks=amounts)
    def grow_what_is_there(self, data: st.DataObject, num_blocks: int) -> None:
        engine = data.draw(st.sampled_from(sorted(self.model.tables)))
        sequence_id = data.draw(st.sampled_from(sorted(self.model.tables[engine])))
        self.both(Allocate(engine, sequence_id, num_blocks))

    @invariant()
    def is_clean(self) -> None:
        report = audit(self.pool)
        assert report.violations == []
        assert report.free_blocks == len(self.model.free)
        assert report.free_blocks + report.held_blocks == self.model.total

    @invariant()
    def is_the_same(self) -> None:
        pool, model = self.pool, self.model
        tables = {
            name: {one: list(blocks_of(table)) for one, table in engine.tables.items()}
            for name, engine in pool.engines.items()
        }
        assert tables == model.tables
        for name, sequence_id in [("a", 0), ("d", 2**64 - 1)]:
            assert pool.table(name, sequence_id) == model.tables.get(name, {}).get(sequence_id)
        assert pool.held == sum(
            len(table) for held in model.tables.values() for table in held.values()
        )
        assert (pool.allocated_total, pool.freed_total) == (model.allocated, model.freed)
        assert pool.refused_total == model.refused
        assert pool.revision == model.revision

    def teardown(self) -> None:
        """At the end everything comes back, and in the order that the model says."""
        if not hasattr(self, "pool"):
            return
        for engine in list(self.model.tables):
            self.both(Release(engine))
        assert len(self.pool.free_list) == self.model.total
        assert self.pool.free_list.take(self.model.total) == self.model.free


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
