"""The rounds in a short form, in process and over the wire, and the proof that they find a bug."""

from typing import Any

import pytest

from kvblock_service.core.blocks import Blocks
from kvblock_service.core.commands import BlockNotHeld
from kvblock_service.core.engine import Engine
from kvblock_service.core.pool import Pool
from tests.torture.rounds.__main__ import Sizes, play, replay
from tests.torture.rounds.play import Failure

SIZES = Sizes(rounds=3_000, trims=3_000, wire_rounds=300, wire_trims=100)
OFTEN = {
    "rounds": ("kills", "restarts", "refused", "rejected: BlockNotHeld", "rejected: invalid"),
    "trims": ("refused", "tables trimmed"),
    "wire_rounds": ("restarts", "rejected: BlockNotHeld"),
    "wire_trims": ("tables trimmed",),
}
"""What happens in any run of that size, whatever the seed."""


@pytest.mark.parametrize("what", SIZES._fields)
def test_nothing_leaks_and_pool_and_model_agree(what: str, seed: int) -> None:
    counts = play(seed, what, getattr(SIZES, what))
    assert all(counts[kind] for kind in OFTEN[what]), counts


def free_and_reject(pool: Pool, engine: Engine | None, release: list[int]) -> BlockNotHeld:
    """A release that is rejected when tables are free already."""
    if engine is not None:
        pool.blocks.free(engine, list(engine.tables))
    return NOT_HELD(pool, engine, release)


def trim_all_but_one(blocks: Blocks, *columns: Any) -> list[int]:
    """A trim that forgets the last block it took out of a table."""
    counts = TRIM(blocks, *columns)
    if blocks.free_list.freed and any(counts):
        blocks.free_list.freed.pop()
        blocks.free_list._newest = []
    return counts


NOT_HELD, TRIM = Pool._not_held, Blocks.trim


@pytest.mark.parametrize(
    ("what", "place", "name", "bug"),
    [
        ("rounds", Pool, "_not_held", free_and_reject),
        ("rounds", Blocks, "trim", trim_all_but_one),
        ("trims", Blocks, "trim", trim_all_but_one),
    ],
)
def test_a_bug_is_found_and_found_again(
    what: str, place: type, name: str, bug: Any, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, bug)
    with pytest.raises(Failure) as first:
        play(seed, what, getattr(SIZES, what))
    with pytest.raises(Failure) as again:
        play(seed, what, first.value.count)
    assert str(again.value) == str(first.value)
    flag = f"--{what} {first.value.count} "
    assert flag in replay(seed, what, first.value) + " "
