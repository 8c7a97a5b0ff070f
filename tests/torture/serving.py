"""The server under torture: started, killed and started again over one state directory.

Rules:
- It listens on one Unix socket, always the same; engines come through the proxy.
- The next process is loaded while this one serves.
- Its wall clock is what `set_wall_clock` says, where libfaketime is installed; its monotonic clock
  is the host's.
"""

import contextlib
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from tests.torture.setting import POOL, Setting

READY_SECONDS = 30.0
FAKETIME = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
)
GRPC = {"GRPC_VERBOSITY": "NONE", "GRPC_EXPERIMENTS": "-event_engine_poller_for_python"}


class StartFailed(Exception):
    """A server ended, or said nothing, instead of getting ready; the text is from its log."""


class Serving:
    """One server at a time."""

    def __init__(self, setting: Setting, state_dir: Path) -> None:
        self.setting = setting
        self.log_path = setting.path / "server.log"
        self.log_path.touch()
        self.running: subprocess.Popen[str] | None = None
        self._wall = setting.path / "faketime"
        self.faketime = next((path for path in FAKETIME if Path(path).exists()), None)
        self.set_wall_clock(0)
        pool = f"{POOL}:total={setting.blocks},block_size=16,quarantine={setting.quarantine:g}"
        self._command = [
            *(sys.executable, "-m", "tests.torture.launcher", setting.plant),
            *("--pool", pool, "--listen", setting.server),
            *("--state-dir", str(state_dir)),
        ]
        self._standby = self._load()

    def set_wall_clock(self, seconds: float) -> None:
        """Let the server's wall clock be so far off."""
        self._wall.write_text(f"{seconds:+.0f}\n")

    def start(self) -> None:
        """Let the process that is loaded serve, and load the next one.

        Raises:
            StartFailed: it does not serve.

        """
        process, self._standby = self._standby, self._load()
        assert process.stdin is not None
        assert process.stdout is not None
        offset = self.log_path.stat().st_size
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write("serve\n")
            process.stdin.flush()
        line = first_line(process, READY_SECONDS)
        if not line.startswith("kvblock ready "):
            process.kill()
            process.wait()
            raise StartFailed(self.log_path.read_text(errors="replace")[offset:][-2000:])
        self.running = process

    def kill(self) -> None:
        """SIGKILL."""
        assert self.running is not None
        self.running.kill()
        self.running.wait()
        self.running = None

    def died(self) -> int | None:
        """The exit code of a server that nobody killed; None while it runs."""
        return self.running.poll() if self.running is not None else None

    def stop(self) -> int:
        """End in order; the exit code."""
        assert self.running is not None
        self.running.terminate()
        code = self.running.wait(READY_SECONDS)
        self.running = None
        return code

    def close(self) -> None:
        """Leave nothing running."""
        for process in (self.running, self._standby):
            if process is not None:
                process.kill()
                process.wait()

    def _load(self) -> "subprocess.Popen[str]":
        env = {key: value for key, value in os.environ.items() if not key.startswith("KVBLOCK_")}
        env.update(GRPC)
        if self.faketime:
            env |= {
                "LD_PRELOAD": self.faketime,
                "FAKETIME_TIMESTAMP_FILE": str(self._wall),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
            }
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=env,
            )


def first_line(process: "subprocess.Popen[str]", seconds: float) -> str:
    """The first line of a process's output; empty when there is none in time."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    stdout = process.stdout
    assert stdout is not None
    threading.Thread(target=lambda: lines.put(stdout.readline()), daemon=True).start()
    try:
        return lines.get(timeout=seconds)
    except queue.Empty:
        return ""
