"""Drives a simulation against the service's core, without a server."""

from kvblock.results import StepResult
from kvblock_replay.simulation import Layout, Outcome, OwedCall, StepCall, simulate
from kvblock_replay.trace import Request
from kvblock_service.core.commands import Stepped, StepPolicy
from kvblock_service.core.demand import Demands
from kvblock_service.core.pool import Bounds, Geometry, Pool
from kvblock_service.core.recall import Hints
from tests.commands import STAMP, step


class Pools:
    """The pools of a layout, and every call that was made to them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.pools = [
            Pool(Geometry(f"pool-{index}", blocks, layout.block_size, 0), Bounds(1024, 1 << 20, 0))
            for index, blocks in enumerate(layout.pool_blocks)
        ]
        self.demands = [Demands(pool) for pool in self.pools]
        self.calls: list[tuple[StepCall, StepResult]] = []

    def answer(self, call: StepCall | OwedCall) -> StepResult | int:
        if isinstance(call, StepCall):
            return self.step(call)
        hints = Hints(call.hints.want_blocks, call.hints.idle_blocks)
        demands = self.demands[self.layout.pool_of_engine[call.engine]]
        demands.hint(f"engine-{call.engine}", hints, None, 0)
        return self.owed(call.engine)

    def step(self, call: StepCall) -> StepResult:
        index = self.layout.pool_of_engine[call.engine]
        command = step(
            f"engine-{call.engine}",
            list(call.free),
            list(call.allocate),
            list(call.num_blocks),
            StepPolicy.IN_ORDER_UNTIL_REFUSED,
        )
        stepped, _ = self.pools[index].apply(command, STAMP)
        assert isinstance(stepped, Stepped)
        demands = self.demands[index]
        demands.applied(command, stepped, 0)
        if call.hints is not None:
            hints = Hints(call.hints.want_blocks, call.hints.idle_blocks)
            demands.hint(command.engine, hints, len(stepped.blocks), 0)
        result = StepResult(
            stepped.blocks,
            stepped.granted,
            None,
            stepped.freed_counts,
            stepped.free_blocks,
            owed_blocks=self.owed(call.engine),
        )
        self.calls.append((call, result))
        return result

    def owed(self, engine: int) -> int:
        demands = self.demands[self.layout.pool_of_engine[engine]]
        return demands.owed(demands.levels({}, 0), 0).get(f"engine-{engine}", 0)

    def held(self) -> int:
        return sum(engine.held for pool in self.pools for engine in pool.engines.values())


def shared(engines: int, blocks: int, block_size: int = 16) -> Layout:
    return Layout((blocks,), (0,) * engines, block_size)


def drive(requests: list[Request], layout: Layout, *, steps_max: int) -> tuple[Outcome, Pools]:
    pools = Pools(layout)
    simulation = simulate(tuple(requests), layout)
    try:
        call = next(simulation)
        for _ in range(steps_max):
            call = simulation.send(pools.answer(call))
    except StopIteration as end:
        return end.value, pools
    raise AssertionError(f"not done after {steps_max} steps")
