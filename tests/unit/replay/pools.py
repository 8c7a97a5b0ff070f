"""Drives a simulation against the service's core, without a server."""

from kvblock.results import StepResult
from kvblock_replay.simulation import Layout, Outcome, StepCall, simulate
from kvblock_replay.trace import Request
from kvblock_service.core.commands import Stepped, StepPolicy
from kvblock_service.core.pool import Bounds, Geometry, Pool
from tests.commands import STAMP, step


class Pools:
    """The pools of a layout, and every call that was made to them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.pools = [
            Pool(Geometry(f"pool-{index}", blocks, layout.block_size, 0), Bounds(1024, 1 << 20, 0))
            for index, blocks in enumerate(layout.pool_blocks)
        ]
        self.calls: list[tuple[StepCall, StepResult]] = []

    def step(self, call: StepCall) -> StepResult:
        pool = self.pools[self.layout.pool_of_engine[call.engine]]
        stepped, _ = pool.apply(
            step(
                f"engine-{call.engine}",
                list(call.free),
                list(call.allocate),
                list(call.num_blocks),
                StepPolicy.IN_ORDER_UNTIL_REFUSED,
            ),
            STAMP,
        )
        assert isinstance(stepped, Stepped)
        result = StepResult(
            stepped.blocks, stepped.granted, None, stepped.freed_counts, stepped.free_blocks
        )
        self.calls.append((call, result))
        return result

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
            call = simulation.send(pools.step(call))
    except StopIteration as end:
        return end.value, pools
    raise AssertionError(f"not done after {steps_max} steps")
