"""Pools for the tests of the core, and the shortest way to say a command."""

from collections.abc import Sequence

from kvblock_service.core.audit import audit
from kvblock_service.core.commands import (
    Allocate,
    Attach,
    Attached,
    Command,
    Detach,
    Free,
    Freed,
    Granted,
    LimitReached,
    Outcome,
    Reclaim,
    Refused,
    Stamp,
    Step,
    Stepped,
    StepPolicy,
)
from kvblock_service.core.pool import Bounds, Geometry, Pool
from tests.commands import STAMP

ALL = StepPolicy.ALL_OR_NOTHING
IN_ORDER = StepPolicy.IN_ORDER_UNTIL_REFUSED


class Desk:
    """A pool whose every command is followed by an audit that has to find nothing.

    `replayed` tells whether the last one was carried out before.
    """

    def __init__(
        self, total_blocks: int, engines_max: int = 8, sequences_max: int = 64, reserved: int = 0
    ) -> None:
        geometry = Geometry("main", total_blocks, 16, 7, reserved)
        self.pool = Pool(geometry, Bounds(engines_max, sequences_max, request_ids_max=64))
        self.now_ms = 0
        self.epochs: dict[str, int] = {}
        self.replayed = False

    def try_allocate(self, sequence_id: int, num_blocks: int = 1, engine: str = "a") -> Outcome:
        return self.apply(Allocate(engine, self.epochs.get(engine, 0), "", sequence_id, num_blocks))

    def allocate(self, sequence_id: int, num_blocks: int = 1, engine: str = "a") -> list[int]:
        outcome = self.try_allocate(sequence_id, num_blocks, engine)
        assert isinstance(outcome, Granted), outcome
        return outcome.blocks

    def refused(self, sequence_id: int, num_blocks: int = 1, engine: str = "a") -> Refused:
        outcome = self.try_allocate(sequence_id, num_blocks, engine)
        assert isinstance(outcome, Refused), outcome
        return outcome

    def free(self, sequence_id: int, engine: str = "a") -> int:
        outcome = self.apply(Free(engine, self.epochs.get(engine, 0), "", sequence_id))
        assert isinstance(outcome, Freed)
        return outcome.num_blocks

    def reclaim(self, engine: str, quarantine_ms: int = 0) -> int:
        outcome = self.apply(Reclaim(engine, 0, "", quarantine_ms))
        assert isinstance(outcome, Freed)
        return outcome.num_blocks

    def attach(
        self,
        engine: str = "a",
        *,
        epoch: int = 0,
        takeover: bool = False,
        ttl_ms: int = 1000,
        quarantine_ms: int = 500,
    ) -> Attached:
        """Attach an engine; its commands carry its epoch from then on."""
        outcome = self.apply(Attach(engine, epoch, "", takeover, ttl_ms, quarantine_ms))
        assert isinstance(outcome, Attached), outcome
        self.epochs[engine] = outcome.epoch
        return outcome

    def detach(self, engine: str = "a") -> int:
        outcome = self.apply(Detach(engine, self.epochs.pop(engine), ""))
        assert isinstance(outcome, Freed), outcome
        return outcome.num_blocks

    def try_step(
        self,
        free: Sequence[int] = (),
        allocate: Sequence[int] = (),
        num_blocks: Sequence[int] = (),
        policy: StepPolicy = ALL,
        engine: str = "a",
    ) -> Stepped | LimitReached:
        epoch = self.epochs.get(engine, 0)
        columns = (list(free), list(allocate), list(num_blocks))
        outcome = self.apply(Step(engine, epoch, "", 0, *columns, policy))
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
        return len(self.pool.blocks.free_list)

    def apply(self, command: Command) -> Outcome:
        stamp = Stamp(self.now_ms, STAMP.wall_ms, "")
        outcome, self.replayed = self.pool.apply(command, stamp)
        report = audit(self.pool)
        assert not report.violations, report.violations
        counted = report.free_blocks + report.held_blocks + report.quarantined_blocks
        counted += report.reserved_blocks
        assert counted == self.pool.geometry.total_blocks
        return outcome
