"""A server that is started with standard descriptors that are closed, or cannot be written to."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvblock
from tests.integration.processes import plain_environment
from tests.integration.spawned import LAST_RESORT

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


@contextmanager
def started(directory: Path, redirection: str) -> "Iterator[subprocess.Popen[str]]":
    """A server with a journal, whose descriptors a shell has redirected."""
    command = [sys.executable, "-m", "kvblock", "serve", "--pool", "main:total=8"]
    state = ["--state-dir", str(directory / "state"), "--listen", f"unix:{directory}/kv.sock"]
    with subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *command, *state],
        env=plain_environment() | {"KVBLOCK_EPHEMERAL": "false"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("redirection", CLOSED)
def test_a_server_whose_descriptors_are_closed(tmp_path: Path, redirection: str) -> None:
    for life in range(2):
        with started(tmp_path, redirection) as process:
            with kvblock.connect(f"unix:{tmp_path}/kv.sock", timeout=LAST_RESORT) as kv:
                assert kv.stats().pools[0].held_blocks == life
                kv.allocate(life)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=LAST_RESORT)
        assert process.returncode == 0, stderr
        assert stdout.startswith("" if ">&-" in redirection.split() else "kvblock ready ")
        assert "Traceback" not in stderr
        if "2>&-" not in redirection:
            assert "stopped" in stderr


def test_a_ready_line_that_cannot_be_written_ends_the_server_in_order(tmp_path: Path) -> None:
    with started(tmp_path, ">/dev/full") as process:
        _, stderr = process.communicate(timeout=LAST_RESORT)
    assert process.returncode == 4
    assert "cannot write the ready line to stdout" in stderr
    assert "No space left on device" in stderr
    assert "Traceback" not in stderr
    assert not (tmp_path / "kv.sock").exists()


def test_a_log_that_cannot_be_written_does_not_end_the_server(tmp_path: Path) -> None:
    with started(tmp_path, "2>/dev/full") as process:
        with kvblock.connect(f"unix:{tmp_path}/kv.sock", timeout=LAST_RESORT) as kv:
            kv.allocate(1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LAST_RESORT)
    assert process.returncode == 0


def test_an_embedded_server_of_a_program_without_descriptors(tmp_path: Path) -> None:
    program = f"""
import os
for number in range(3):
    os.close(number)
import kvblock
with kvblock.EmbeddedServer() as server, kvblock.connect(server.address, timeout=30.0) as kv:
    kv.allocate(1)
    code = server.stop()
with open({str(tmp_path / "told")!r}, "w") as told:
    told.write(f"{{code}} {{'stopped' in server.stderr}}")
"""
    subprocess.run([sys.executable, "-c", program], env=plain_environment(), check=False)
    assert (tmp_path / "told").read_text() == "0 True"
