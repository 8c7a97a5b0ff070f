"""State directories that an earlier commit has written are taken up with nothing lost.

How they were made: see `tests.fixtures.record`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.history import Remembered, serving
from tests.fixtures.observed import drained, observed, repeated, step_repeated
from tests.fixtures.unpack import NAMES, unpack


def recorded_of(shown: Any, recorded: Any) -> Any:
    """What is shown, without the fields that the recording has not."""
    if isinstance(shown, dict) and isinstance(recorded, dict):
        return {key: recorded_of(shown[key], recorded[key]) for key in recorded if key in shown}
    if isinstance(shown, list) and isinstance(recorded, list) and len(shown) == len(recorded):
        return [recorded_of(one, other) for one, other in zip(shown, recorded, strict=True)]
    return shown


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("restarts", [0, 1])
def test_everything_recorded_is_there(tmp_path: Path, name: str, restarts: int) -> None:
    state = tmp_path / "state"
    recorded = unpack(name, state)
    arguments = recorded["arguments"]
    for _ in range(restarts):
        # What takes the recording up writes its own form, from which the next one starts.
        with serving(state, *arguments, "--snapshot-records", "1") as server:
            server.process.kill()
            server.process.wait()
    with serving(state, *arguments) as server:
        shown = observed(server.address)
        assert recorded_of(shown, recorded) == {key: recorded[key] for key in shown}
        calls = [Remembered(**fields) for fields in recorded["remembered"]]
        answers = repeated(server.address, calls)
        assert recorded_of(answers, recorded["repeated"]) == recorded["repeated"]
        epoch = recorded["epochs"][recorded["session"]["engine"]]
        assert step_repeated(server.address, epoch, recorded["session"]) == recorded["resumed"]
        assert recorded_of(observed(server.address), recorded) == {k: recorded[k] for k in shown}
        assert drained(server.address) == recorded["free_order"]
