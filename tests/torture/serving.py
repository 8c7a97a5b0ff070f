"""The server under torture: started, killed and started again over one state directory.

Rules:
- It listens on one Unix socket, always the same; engines come through the proxy.
"""

import os
import signal
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.torture.arena import BLOCK_BYTES, REGIONS
from tests.torture.processes import Forks, serve
from tests.torture.setting import POOL, RESERVED_BLOCKS, Setting

READY_SECONDS = 30.0
LOG_SHOWN = 2000


class StartFailed(Exception):
    """A server ended, or said nothing, instead of getting ready; the text is from its log."""


class Serving:
    """One server at a time; `more` are further arguments of `kvblock serve`."""

    def __init__(
        self,
        setting: Setting,
        forks: Forks,
        state_dir: Path,
        block_bytes: int = BLOCK_BYTES,
        more: Sequence[str] = (),
    ) -> None:
        self.setting = setting
        self._forks = forks
        self.log_path = setting.path / "server.log"
        self.log_path.touch()
        self.running: BaseProcess | None = None
        sizes = f"total={setting.blocks},reserved={RESERVED_BLOCKS},block_size=16"
        memory = f"block_bytes={block_bytes},regions={REGIONS},memory=shm"
        pool = f"{POOL}:{sizes},{memory},quarantine={setting.quarantine:g}"
        setting.memory_dir.mkdir(exist_ok=True)
        self._arguments = [
            *("--pool", pool, "--listen", setting.server, "--log-format", "json"),
            *("--state-dir", str(state_dir), "--snapshot-records", "1000"),
            *("--durability", setting.durability, "--memory-dir", str(setting.memory_dir)),
            *more,
        ]

    def start(self) -> None:
        """Start a server and wait until it is ready.

        Raises:
            StartFailed: it does not get so far.

        """
        offset = self.log_path.stat().st_size
        reads, writes = Pipe(duplex=False)
        with reads:
            process = self._forks.start(
                serve, self.setting.plant, self._arguments, str(self.log_path), writes
            )
            writes.close()
            line = os.read(reads.fileno(), 4096) if reads.poll(READY_SECONDS) else b""
        if not line.startswith(b"kvblock ready "):
            process.kill()
            process.join()
            raise StartFailed(self.log_path.read_text(errors="replace")[offset:][-LOG_SHOWN:])
        self.running = process

    def kill(self) -> None:
        """SIGKILL."""
        assert self.running is not None
        self.running.kill()
        self.running.join()
        self.running = None

    def died(self) -> int | None:
        """The exit code of a server that nobody killed; None while it runs."""
        return self.running.exitcode if self.running is not None else None

    def stop(self) -> int | None:
        """End in order; the exit code."""
        assert self.running is not None
        assert self.running.pid is not None
        os.kill(self.running.pid, signal.SIGTERM)
        self.running.join(READY_SECONDS)
        code, self.running = self.running.exitcode, None
        return code

    def close(self) -> None:
        """Leave nothing running."""
        if self.running is not None:
            self.kill()
