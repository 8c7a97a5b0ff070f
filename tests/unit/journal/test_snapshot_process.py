"""The process that starts the snapshots: what comes of it when it, or one of these, is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from kvblock_service.journal.compaction import Compactor
from kvblock_service.journal.snapshot_process import SnapshotProcess
from tests.unit.journal.compacting import LIMITS, Make, Server, no_more_files, until
from tests.unit.journal.kept import BOUNDS


def pid_of(compactor: Compactor) -> int:
    """The process that starts its snapshots."""
    snapshots = compactor._snapshots
    assert isinstance(snapshots, SnapshotProcess)
    assert snapshots._helper is not None
    return snapshots._helper.pid


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in listed.split()]


def test_a_killed_child_is_told(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max)
    helper = pid_of(compactor)
    server.work(60)
    while not (found := children(helper)):
        assert compactor.tick() == []
    os.kill(found[0], signal.SIGKILL)
    event = until(compactor, lambda event: True)
    assert event.fields["exit_code"] == -signal.SIGKILL
    server.work(60)
    compactor.tick()
    assert compactor.idle, "it waits before it tries again"
    compactor.stop()
    server.journal.close()
    server.check()


def test_a_killed_helper_is_told_and_replaced(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max, retry_seconds=0.0)
    os.killpg(pid_of(compactor), signal.SIGKILL)
    server.work(60)
    event = until(compactor, lambda event: True)
    assert (event.level, event.fields["problem"]) == ("warning", "the helper process is gone")
    assert until(compactor, lambda event: True).event == "snapshot"
    compactor.stop()
    server.journal.close()
    server.check()


def test_a_helper_that_cannot_be_started_now_is_started_later(server: Server, make: Make) -> None:
    server.journal.settle()
    with no_more_files():
        compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max, retry_seconds=0.0)
        for _ in range(2):
            (event,) = compactor.tick()
            assert (event.level, event.event) == ("warning", "no snapshot could be made")
            assert "no process can be started" in str(event.fields["problem"])
    compactor.tick()
    os.killpg(pid_of(compactor), signal.SIGKILL)
    server.work(60)
    while not compactor._running:
        compactor.tick()
    server.journal.settle()
    with no_more_files():
        event = until(compactor, lambda event: True)
        assert event.fields["problem"] == "the helper process is gone"
        (event,) = compactor.tick()
        assert "no process can be started" in str(event.fields["problem"])
    assert until(compactor, lambda event: True).event == "snapshot"
    server.check()
    server.journal.close()


def test_a_stop_ends_the_helper_and_its_child(server: Server, make: Make) -> None:
    compactor = make(server.journal, LIMITS, BOUNDS.request_ids_max)
    helper = pid_of(compactor)
    server.work(60)
    while not children(helper):
        compactor.tick()
    compactor.stop()
    assert compactor.idle
    assert not Path(f"/proc/{helper}").exists()
    server.check()
    server.journal.close()


def test_the_helper_ends_with_its_server(tmp_path: Path) -> None:
    script = (
        "import os, sys\nfrom pathlib import Path\n"
        "from kvblock_service.journal.compaction import Compactor, SnapshotLimits\n"
        "from kvblock_service.journal.file_journal import FileJournal\n"
        "compactor = Compactor(FileJournal(Path(sys.argv[1]), 1), SnapshotLimits(9, 9), 1)\n"
        "print(compactor._snapshots._helper.pid, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    # The helper has this pipe, too: its end is the end of both.
    ended = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert ended.stderr == ""
