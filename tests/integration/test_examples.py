"""The programs in `examples` do what their pages say."""

import re
import sys

from tests.integration.processes import ROOT, run


def test_two_processes() -> None:
    done = run(sys.executable, ROOT / "examples/two_processes.py", "--steps", "200")
    shown = (ROOT / "docs/examples.md").read_text()
    for line in done.stdout.splitlines():
        assert re.sub(r"\d+(\.\d)?", "N", line) in re.sub(r"\d+(\.\d)?", "N", shown)
    found = re.findall(
        r"(\d+) blocks written, (\d+) verified, .* (\d+) were the other's", done.stdout
    )
    assert len(found) == 2
    assert all(int(written) and int(verified) for written, verified, _ in found)
    # The one that starts first may be alone for a while, and gets nothing of the other then.
    assert any(int(inherited) for _, _, inherited in found)


def test_write_an_engine() -> None:
    done = run(sys.executable, ROOT / "examples/write_an_engine.py")
    shown = (ROOT / "docs/examples.md").read_text()
    finished, iterations = done.stdout.splitlines()
    for line in (finished, iterations):
        assert re.sub(r"\d+", "N", line) in re.sub(r"\d+", "N", shown)
    assert re.fullmatch(r"12 sequences finished, [1-9]\d* were preempted", finished)
    assert re.search(r", 1 lease lost, ", iterations)
