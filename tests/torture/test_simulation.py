"""Simulated crashes in the suite, and the proof that the simulation finds bugs."""

import pytest

from tests.torture.simulate import run_batch
from tests.torture.simulation.plants import NONE, PLANTS

SEED = 1


def test_the_pool_survives_crashes_at_every_point() -> None:
    batch = run_batch(SEED, range(3000), NONE)
    assert batch.failure is None, f"python -m tests.torture.simulate --seed {SEED}: {batch.failure}"
    assert all(count > 100 for count in batch.counts.values()), batch.counts


IN_EVERY_RUN = "no-epoch-check"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == IN_EVERY_RUN else pytest.mark.plants)
        for name in sorted(PLANTS)
    ],
)
def test_a_planted_bug_is_found_within_a_thousand_schedules(name: str) -> None:
    batch = run_batch(SEED, range(1000), PLANTS[name])
    assert batch.failure is not None, f"{batch.passed} schedules passed"
    again = run_batch(SEED, range(batch.failure.number, batch.failure.number + 1), PLANTS[name])
    assert again.failure == batch.failure
