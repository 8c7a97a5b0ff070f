"""A kvblock that a test starts as a fork is what it would be otherwise."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kvblock
from tests.preloaded import kvblock_words

KVBLOCK = [sys.executable, "-m", "kvblock"]
SCRIPT = Path(sys.executable).with_name("kvblock")


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.skipif("TEST_FRESH_STARTS" in os.environ, reason="nothing is forked")
def test_it_is_a_child_of_its_own() -> None:
    with kvblock.EmbeddedServer() as server, kvblock.EmbeddedServer() as other:
        process = server.process
        assert "preloaded" in command_of(process.pid)
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert f"\nPPid:\t{os.getpid()}\n" in status
        assert os.getsid(process.pid) == process.pid
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        with kvblock.connect(other.address) as kv:
            assert kv.health()
    assert other.process.returncode == 0


def test_others_are_started_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONNODEBUGRANGES", "1")
    with kvblock.EmbeddedServer() as server:
        assert "preloaded" not in command_of(server.process.pid)
    assert kvblock_words([sys.executable, "-c", "kvblock"]) is None
    assert kvblock_words("kvblock") is None


@pytest.mark.usefixtures("fresh_starts")
def test_a_test_can_ask_for_usual_starts() -> None:
    with kvblock.EmbeddedServer() as server:
        assert "preloaded" not in command_of(server.process.pid)


@pytest.mark.parametrize("program", [KVBLOCK, [SCRIPT]], ids=["module", "script"])
def test_it_ends_and_writes_as_usual(program: list[str | Path], tmp_path: Path) -> None:
    asked: dict[str, Any] = {
        "env": {"PATH": os.environ["PATH"], "KVBLOCK_POOLS": "a", "PYTHONWARNINGS": "error"},
        "cwd": tmp_path,
        "input": "",
        "capture_output": True,
        "text": True,
        "check": False,
    }
    for arguments in (["--version"], ["serve", "--check"], ["nonsense"], ["serve", "--help"]):
        forked, usual = (
            start([*program, *arguments], **asked) for start in (subprocess.run, run_as_usual)
        )
        assert forked.returncode == usual.returncode
        assert (forked.stdout, forked.stderr) == (usual.stdout, usual.stderr)


def run_as_usual(command: list[str | Path], **asked: Any) -> "subprocess.CompletedProcess[str]":
    environment = asked.pop("env")
    assert isinstance(environment, dict)
    # A variable that is read when Python starts, and changes nothing here.
    ended: subprocess.CompletedProcess[str] = subprocess.run(
        command, env=environment | {"PYTHONNODEBUGRANGES": "1"}, **asked
    )
    return ended
