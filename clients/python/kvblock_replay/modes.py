"""The ways to give engines their blocks, and the pools that each of them needs.

Rules:
  - `shared`: all engines take from one pool of all blocks.
  - `split`: engine i has the pool `split-i` to itself. The blocks are divided evenly; what is left
    over goes to the first pools, one block each.
  - `hoard`: one pool, `hoard`, and engines that keep the blocks of ended sequences as a cache until
    they need them themselves. `recall`: the same in the pool `recall`, and they give back what they
    owe. In a pool of its own an engine's cache stands in nobody's way, so `split` needs no other
    form.
  - All are run by the same engines, with the same blocks in total.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from kvblock_replay.simulation import Layout

SHARED_POOL = "shared"
"""The shared pool's name, unless another one is asked for."""


class Mode(Enum):
    """Who shares with whom."""

    SHARED = "shared"
    SPLIT = "split"
    HOARD = "hoard"
    RECALL = "recall"


@dataclass(frozen=True, slots=True)
class Setup:
    """One mode, ready to run."""

    mode: Mode
    pools: tuple[str, ...]
    """The pools' names, in the order of `layout.pool_blocks`."""
    layout: Layout

    def pool_of(self, engine: int) -> str:
        """Answer the name of the pool that an engine takes from."""
        return self.pools[self.layout.pool_of_engine[engine]]

    def definitions(self) -> tuple[str, ...]:
        """Answer the pools as `kvblock serve --pool` takes them."""
        return tuple(
            f"{name}:total={blocks},block_size={self.layout.block_size},device=0"
            for name, blocks in zip(self.pools, self.layout.pool_blocks, strict=True)
        )


def make_setup(
    mode: Mode, engines: int, blocks: int, block_size: int, shared_pool: str = SHARED_POOL
) -> Setup:
    """Lay out a mode. Split needs at least as many blocks as engines."""
    if mode is not Mode.SPLIT:
        name = shared_pool if mode is Mode.SHARED else mode.value
        caches = mode is not Mode.SHARED
        layout = Layout((blocks,), (0,) * engines, block_size, caches, mode is Mode.RECALL)
        return Setup(mode, (name,), layout)
    each, left_over = divmod(blocks, engines)
    shares = tuple(each + (index < left_over) for index in range(engines))
    names = tuple(f"split-{index}" for index in range(engines))
    return Setup(mode, names, Layout(shares, tuple(range(engines)), block_size))
