"""The floods in a short form: the engine keeps its lease, whatever the machine's speed."""

import pytest

from tests.torture.floods.servers import kvblock_server
from tests.torture.floods.shapes import FLOODS
from tests.torture.floods.trial import problems_of, run

SECONDS = 1.0
SIZE = 0.2


@pytest.mark.parametrize("name", FLOODS)
def test_an_engine_lives_through(name: str, seed: int) -> None:
    with kvblock_server() as prey:
        outcome = run(name, prey, SECONDS, SIZE, seed)
        assert problems_of(outcome) == []
        assert outcome.seen.steps
