"""The rounds in a short form: in process and over the wire, from a new seed each time."""

import pytest

from tests.torture.rounds.__main__ import Sizes, play

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
