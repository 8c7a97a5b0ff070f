"""Pools for the tests of the core, and the shortest way to say a command."""

from collections.abc import Sequence

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import (
    Allocate,
    Free,
    Freed,
    Granted,
    LimitReached,
    Outcome,
    Refused,
    Release,
    Step,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool

ALL = StepPolicy.ALL_OR_NOTHING
IN_ORDER = StepPolicy.IN_ORDER_UNTIL_REFUSED


class Desk:
    """A pool whose every command is followed by an audit that has to find nothing."""

    def __init__(self, total_blocks: int, engines_max: int = 8, sequences_max: int = 64) -> None:
        geometry = Geometry("main", total_blocks, block_size=16, device_id=7)
        self.pool = Pool(geometry, Bounds(engines_max, sequences_max))

    def try_allocate(self, sequence_id: int, num_blocks: int = 1, engine: str = "a") -> Outcome:
        return self._audited(self.pool.apply(Allocate(engine, sequence_id, num_blocks)))

    def allocate(self, sequence_id: int, num_blocks: int = 1, engine: str = "a") -> list[int]:
        outcome = self.try_allocate(sequence_id, num_blocks, engine)
        assert isinstance(outcome, Granted), outcome
        return outcome.blocks

    def refused(self, sequence_id: int, num_blocks: int = 1, engine: str = "a") -> Refused:
        outcome = self.try_allocate(sequence_id, num_blocks, engine)
        assert isinstance(outcome, Refused), outcome
        return outcome

    def free(self, sequence_id: int, engine: str = "a") -> int:
        outcome = self._audited(self.pool.apply(Free(engine, sequence_id)))
        assert isinstance(outcome, Freed)
        return outcome.num_blocks

    def release(self, engine: str) -> int:
        outcome = self._audited(self.pool.apply(Release(engine)))
        assert isinstance(outcome, Freed)
        return outcome.num_blocks

    def try_step(
        self,
        free: Sequence[int] = (),
        allocate: Sequence[int] = (),
        num_blocks: Sequence[int] = (),
        policy: StepPolicy = ALL,
        engine: str = "a",
    ) -> Stepped | LimitReached:
        command = Step(engine, list(free), list(allocate), list(num_blocks), policy)
        outcome = self._audited(self.pool.apply(command))
        assert isinstance(outcome, Stepped | LimitReached)
        return outcome

    def step(
        self,
        free: Sequence[int] = (),
        allocate: Sequence[int] = (),
        num_blocks: Sequence[int] = (),
        policy: StepPolicy = ALL,
        engine: str = "a",
    ) -> Stepped:
        outcome = self.try_step(free, allocate, num_blocks, policy, engine)
        assert isinstance(outcome, Stepped), outcome
        return outcome

    def table(self, sequence_id: int, engine: str = "a") -> list[int] | None:
        return self.pool.table(engine, sequence_id)

    @property
    def free_blocks(self) -> int:
        return len(self.pool.free_list)

    def _audited(self, outcome: Outcome) -> Outcome:
        report = audit(self.pool)
        assert not report.violations, report.violations
        assert report.free_blocks + report.held_blocks == self.pool.geometry.total_blocks
        return outcome
